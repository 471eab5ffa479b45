"""Addresses to try when nothing can be heard: seeds from the settings, and the peer book's."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import trio

from overlay.core.keys import NodeId
from overlay.core.mesh.found import Address, AnnouncementFacts, Candidate
from overlay.errors import UsageError

SEED: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[\w.-]+)):(?P<port>[0-9]{1,5})", re.ASCII
)


def parse_seed(text: str) -> Address:
    """`host:port` or `[ipv6]:port`; raises UsageError."""
    match = SEED.fullmatch(text.strip())
    port = int(match["port"]) if match else 0
    if match is None or not 0 < port < 65_536:
        raise UsageError(f"{text!r} is not an address", hint="write host:port, or [ipv6]:port")
    return match["six"] or match["host"], port


class StaticFinder:
    """A Finder that knows a fixed list of addresses and announces nothing."""

    def __init__(self, seeds: Iterable[str]) -> None:
        self._seeds = tuple(parse_seed(seed) for seed in seeds)

    async def run(
        self,
        announcement: AnnouncementFacts,
        found: Callable[[Candidate], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Name each seed once, then wait to be cancelled: whoever dials does not give up on them."""
        task_status.started()
        for seed in self._seeds:
            found(Candidate(addresses=(seed,), ours=True, source="static"))  # the settings say so
        await trio.sleep_forever()


class BookFinder:
    """A Finder that knows the peers of earlier runs, so that a node finds its mesh again where nothing can be heard."""

    def __init__(self, remembered: Callable[[], Mapping[NodeId, Sequence[Address]]]) -> None:
        """`remembered` is asked once per run: addresses by node, best first."""
        self._remembered = remembered

    async def run(
        self,
        announcement: AnnouncementFacts,
        found: Callable[[Candidate], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Name each remembered peer once, then wait to be cancelled."""
        task_status.started()
        for node_id, addresses in self._remembered().items():
            if node_id != announcement.node_id and addresses:
                found(Candidate(addresses=tuple(addresses), node_id=node_id, ours=True, source="book"))
        await trio.sleep_forever()
