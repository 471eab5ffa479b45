"""A LAN in a box: network namespaces around a bridge, held by file descriptors. `keeper.py` makes them.

Nothing of it shows outside: no names in /run/netns, no interface of the host, no change to us. The last descriptor to
close takes it all away, so that a launcher which is killed leaves nothing.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import trio

from overlay.app.lab.keeper import BRIDGE, PREFIX
from overlay.app.lab.processes import Place
from overlay.errors import HostLacks

KEEPER: Final = str(Path(__file__).with_name("keeper.py"))
KEEPER_TIMEOUT: Final = 30.0  # seconds; it takes 0.1 for five nodes
NODES_MAX: Final = 250  # in 10.77.0.0/24, and descriptors in one message (SCM_MAX_FD is 253)
HINT: Final = "run without --network to take the best that this host can do"


class Namespaces:
    """A hub with a bridge, and nodes around it, numbered from 1. `close` it."""

    def __init__(self) -> None:
        self._user = -1
        self._hub = -1
        self._nodes: list[int] = []

    @classmethod
    async def create(cls, count: int) -> "Namespaces":
        """The hub and `count` nodes; raises HostLacks."""
        made = cls()
        await made.add(count)
        return made

    async def add(self, count: int = 1) -> None:
        """More nodes; raises HostLacks, and then there are as many as before."""
        with trio.CancelScope(shield=True):  # or the descriptors would be lost, open
            made = await trio.to_thread.run_sync(_ask_keeper, self._user, self._hub, len(self._nodes) + 1, count)
        users, hubs, nodes = made
        self._user, self._hub = next(iter(users), self._user), next(iter(hubs), self._hub)
        self._nodes += nodes

    def address(self, number: int) -> str:
        """The IPv4 address of a node's eth0."""
        return f"{PREFIX}.{number}"

    def place(self, number: int) -> Place:
        """Where the processes of a node run."""
        return Place(self._user, self._nodes[number - 1])

    @property
    def hub(self) -> Place:
        """Where the bridge is."""
        return Place(self._user, self._hub)

    @property
    def bridge(self) -> str:
        """The bridge's name in the hub: all that nodes say to each other passes here."""
        return BRIDGE

    def close(self) -> None:
        """Let go of all; what still runs in a namespace keeps that one alive."""
        for descriptor in (self._user, self._hub, *self._nodes):
            if descriptor >= 0:
                os.close(descriptor)
        self._user, self._hub, self._nodes = -1, -1, []


def available() -> str | None:
    """None if this host lets us make namespaces, else what it lacks; it is tried out, which takes 0.1 s and blocks."""
    try:
        made = _ask_keeper(-1, -1, 1, 1)
    except HostLacks as error:
        return str(error)
    for descriptor in (number for part in made for number in part):
        os.close(descriptor)
    return None


def _ask_keeper(user: int, hub: int, first: int, count: int) -> tuple[list[int], list[int], list[int]]:
    """Run the keeper; descriptors of the new user namespace, hub and nodes. Raises HostLacks."""
    if first + count - 1 > NODES_MAX:
        raise HostLacks(f"the lab has room for {NODES_MAX} nodes")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        numbers = (theirs.fileno(), user, hub, first, count)
        inherited = tuple(number for number in numbers[:3] if number >= 0)
        ran = subprocess.run(
            [sys.executable, "-IS", KEEPER, *map(str, numbers)],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=KEEPER_TIMEOUT,
            check=False,
        )
        if ran.returncode:
            raise HostLacks((ran.stderr.strip().splitlines() or ["no namespaces"])[-1], hint=HINT)
        counts, descriptors, _, _ = socket.recv_fds(ours, 3, NODES_MAX + 3, socket.MSG_CMSG_CLOEXEC)
    users, hubs = counts[0], counts[0] + counts[1]
    return descriptors[:users], descriptors[users:hubs], descriptors[hubs:]
