"""Drives one reconciliation machine: messages of open links in, messages out, items made durable in between."""

import math
from collections.abc import Callable, Iterable
from typing import Protocol

import trio

from overlay.core.keys import NodeId
from overlay.core.mesh.reconcile import (
    HeadsDiffer,
    ItemShown,
    ItemsVerified,
    Misbehaved,
    PeerAgrees,
    RangeWanted,
    Reconcile,
    ReconcileEvent,
)
from overlay.errors import OverlayError
from overlay.registry import ChainKind, FrameType, Reason

SendTo = Callable[[NodeId, FrameType, bytes], None]
READS_WAITING = 256  # our guess: ranges that peers may have asked for at once
Rejected = Callable[[NodeId, Reason, str], None]


class ChainKeeper(Protocol):
    """Where chains of one kind live: `audit` logs, or topics."""

    @property
    def kind(self) -> ChainKind:
        """What it keeps."""
        ...

    @property
    def machine(self) -> Reconcile:
        """The machine that knows what we hold."""
        ...

    async def store(self, items: ItemsVerified) -> None:
        """Make verified items durable, then tell the machine with `stored`, or `dropped`."""
        ...

    async def read(self, wanted: RangeWanted) -> list[bytes]:
        """Stored items of a range. Raises OverlayError if the store cannot be read there."""
        ...


class ForkKeeper(Protocol):
    """Who looks for proofs where two copies of an audit log differ, and hears of those that others have found."""

    def peer_opened(self, peer: NodeId) -> None:
        """There is a link to this peer. Must not block."""
        ...

    def peer_closed(self, peer: NodeId) -> None:
        """There is none any more. Must not block."""
        ...

    def received(self, sender: NodeId, body: bytes) -> None:
        """FORK_PROOF. Must not block. Raises Refused: the link ends."""
        ...

    def watch(self, event: HeadsDiffer | ItemShown) -> bool:
        """A peer has another copy than we, or has shown an item of it; True if its author is exposed already, and this no news.

        Must not block.
        """
        ...


class Replicator:
    """One keeper on the mesh."""

    def __init__(self, keeper: ChainKeeper, *, send: SendTo, rejected: Rejected) -> None:
        self.keeper = keeper
        self.watch: Callable[[HeadsDiffer | ItemShown], bool] = lambda _event: False  # see `ForkKeeper`
        self.warning = ""  # why our store could not be read for a peer the last time; empty while it can
        self._machine = keeper.machine
        self._send = send
        self._rejected = rejected
        self._wake = trio.Event()
        self._changed = trio.Event()
        self._to_store_in, self._to_store = trio.open_memory_channel[ItemsVerified](math.inf)
        self._to_read_in, self._to_read = trio.open_memory_channel[RangeWanted](READS_WAITING)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._store_all)
            nursery.start_soon(self._read_all)
            while True:
                self._wake = trio.Event()
                with trio.move_on_at(self._machine.deadline):
                    await self._wake.wait()
                self._take(self._machine.tick(trio.current_time()))

    def peer_opened(self, peer: NodeId) -> None:
        """There is a link to this peer, or another one than before."""
        self._machine.peer_opened(peer, trio.current_time())
        self._notify()
        self.flush()

    def peer_closed(self, peer: NodeId) -> None:
        """There is none any more."""
        self._machine.peer_closed(peer)
        self._notify()
        self.flush()

    def received(self, sender: NodeId, frame: FrameType, body: bytes) -> None:
        """HEADS, WANT or ITEMS of an open link."""
        self._take(self._machine.receive(sender, frame, body, trio.current_time()))

    def flush(self) -> None:
        """Send what the machine owes."""
        for peer, frame, body in self._machine.messages_to_send():
            self._send(peer, frame, body)
        self._wake.set()

    def copies(self, log_id: bytes, seq: int, peers: Iterable[NodeId]) -> int | None:
        """How many of these peers hold item `seq` of a log as we do; None while some may still get it, or none has it.

        A peer that holds another history of the log is left out: it will never hold this item.
        """
        holders = 0
        for peer in peers:
            if self._machine.agreed(peer, log_id) > seq:
                holders += 1
            elif not self._machine.differs(peer, log_id):
                return None
        return holders or None

    async def wait_change(self) -> None:
        """Until `copies` may say something else. Nothing may be awaited between asking that and this."""
        await self._changed.wait()

    def _take(self, events: list[ReconcileEvent]) -> None:
        for event in events:
            match event:
                case ItemsVerified():
                    self._to_store_in.send_nowait(event)  # bounded by the machine's outstanding wants
                case RangeWanted():
                    try:
                        self._to_read_in.send_nowait(event)
                    except trio.WouldBlock:
                        continue  # the peer asks again
                case PeerAgrees():
                    self._notify()
                case Misbehaved(peer=peer, reason=reason, detail=detail):
                    self._rejected(peer, reason, detail)
                case HeadsDiffer(peer=peer, log_id=log_id):
                    if not self.watch(event):
                        self._rejected(peer, Reason.FORKED, f"another history of log {log_id.hex()}")
                    self._notify()
                case ItemShown():
                    self.watch(event)
        self.flush()

    async def _store_all(self) -> None:
        async for items in self._to_store:
            await self.keeper.store(items)
            self.flush()

    async def _read_all(self) -> None:
        async for wanted in self._to_read:
            try:
                items, self.warning = await self.keeper.read(wanted), ""
            except OverlayError as error:  # the peer is told that we have nothing there, and asks others
                items, self.warning = [], str(error)
            self._machine.supply(wanted, items)
            self.flush()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
