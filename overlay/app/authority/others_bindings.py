"""What other signers have bound: asked for page by page, and how much of it somebody takes over who gets a share."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import trio

from overlay.core.authority.binding_pages import Reading
from overlay.core.authority.bindings import Binding, Bindings, Bound
from overlay.core.keys import NodeId
from overlay.errors import OverlayError, Refused
from overlay.registry import Reason

READ_WITHIN: Final = 25.0  # seconds for all pages of all signers: our guess; who deals waits 30 for each round

AskPage = Callable[[NodeId, bytes], Awaitable[bytes]]  # raises OverlayError


async def read_bindings(ask: AskPage, members: Iterable[NodeId], threshold: int) -> list[Bindings]:
    """What these have bound, of all who tell it in time.

    Raises:
        Refused: NOT_ENOUGH_SIGNERS if these are fewer than t.
    """
    found: list[Bindings] = []

    async def read(member: NodeId) -> None:
        reading = Reading()
        try:
            while not reading.is_complete:
                reading = reading.with_page(await ask(member, reading.asks))
        except OverlayError:
            return
        found.append(reading.bindings)

    with trio.move_on_after(READ_WITHIN):
        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(read, member)
    if len(found) < threshold:
        raise Refused(Reason.NOT_ENOUGH_SIGNERS, f"{len(found)} of {threshold} signers say what they have bound")
    return found


def joined(own: Bindings, others: Sequence[Bindings], threshold: int, members: int) -> Bindings:
    """Ours, and what signers say that does not contradict it: what t of n have signed is known to 2t - n of any t others at
    least. Where these are three or more, two have to say the same: what one alone says, who may lie, would make us refuse for
    ever. Where they are fewer one is enough: then what matters more is that we promise nothing twice.
    """
    wanted = 2 if 2 * threshold - members > 2 else 1
    for kind in Bound:
        votes = Counter((row.key, row.value, row.until) for one in others for row in one.rows.get(kind, {}).values())
        taken: dict[bytes, Binding] = {}
        for (key, value, until), count in votes.most_common():
            if count >= wanted and key not in taken and own.get(kind, key) is None:
                taken[key] = Binding(kind, key, value, until)
        own = own.adding(taken.values())
    return own
