"""Remembers where members were reached, so that a node finds its mesh again where nothing can be heard.

It is a memory and no more: a book that cannot be read is set aside, and the node goes on with an empty one.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import trio

from overlay.core.keys import NodeId
from overlay.core.mesh.found import Address
from overlay.errors import OverlayError, StateDamaged
from overlay.events import NodeEvent, PeerUp
from overlay.store.peers import ASIDE, PeerBook, load_peers, save_peers, set_aside
from overlay.store.state import PEERS, StateFolder


class PeerMemory:
    """The peer book of a running node: read once, written when a member was dialled with success."""

    def __init__(self, folder: StateFolder, at: Callable[[], datetime]) -> None:
        self.warning = ""  # why we had to begin with an empty book
        self._folder = folder
        self._at = at
        self._book = self._load()
        self._changed = trio.Event()

    def _load(self) -> PeerBook:
        try:
            return load_peers(self._folder)
        except StateDamaged as error:
            kept = f"; it was set aside as {PEERS}{ASIDE}" if set_aside(self._folder) else ""
            self.warning = f"began with an empty peer book: {error}{kept}"
            return PeerBook()

    def known(self) -> Sequence[NodeId]:
        """Everyone whom we ever reached."""
        return tuple(self._book.peers)

    def addresses(self) -> Mapping[NodeId, Sequence[Address]]:
        """Where they were, the newest address first."""
        return {node_id: peer.addresses for node_id, peer in self._book.peers.items()}

    def observe(self, event: NodeEvent) -> None:
        """Take a link that we dialled; those that dialled us are asked where they listen."""
        if isinstance(event, PeerUp) and event.dialled:
            host, _, port = event.address.rpartition(" ")
            self.learn(NodeId.parse(event.node), event.name, (host, int(port)))

    def learn(self, node: NodeId, name: str, address: Address) -> None:
        """A member says where it listens, or was reached there."""
        self._book = self._book.with_peer(node, name, [address], self._at())
        self._changed.set()

    async def run(self) -> None:
        """Write changes until cancelled; a disk that takes nothing costs the memory only."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            try:
                await trio.to_thread.run_sync(save_peers, self._folder, self._book)
            except OverlayError:
                continue
