"""The driver of one stream at the node that measures: readings go in, batches go to collectors, anchors into the audit log."""

import math
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol

import trio

from audit.log import AuditLog
from overlay.app.telemetry.collecting import Collecting
from overlay.app.telemetry.names import BATCH
from overlay.app.telemetry.sampling import Reading
from overlay.core.forwarding import Rule, may_use
from overlay.core.keys import NodeId
from overlay.core.telemetry.anchor import anchor_body
from overlay.core.telemetry.asks import Ask
from overlay.core.telemetry.batch import STREAM_ID_SIZE
from overlay.core.telemetry.records import Sample
from overlay.core.telemetry.sender import Anchor, Cut, TelemetrySender
from overlay.errors import DeadlineExceeded, OverlayError
from overlay.net.node import Node
from overlay.net.peer import Peer
from overlay.net.request import PeerInfo
from overlay.registry import EntryType

DELIVER_WITHIN: Final = 10.0  # seconds for one batch: our guess
AGAIN_AFTER: Final = 5.0  # seconds until a collector that did not take a batch is tried again: our guess
LAST_WITHIN: Final = 2.0  # seconds that the end of a stream waits for its last batches: our guess


class Source(Protocol):
    """Something that measures. `blocks`: whether it is read in a thread of its own."""

    blocks: bool

    def read(self, reading: Reading) -> None:
        """Put what it has into the reading; may block."""
        ...


class Sending:
    """One stream. `run` until cancelled, then `finish`."""

    def __init__(
        self, name: str, engine: Node, log: AuditLog, *, to: tuple[Rule, ...], sources: Sequence[Source], every: float,
        here: Callable[[], Collecting | None],
    ) -> None:
        """`here`: the collector of this node, if it is one. Raises UsageError for a name that no stream can have."""
        self._engine, self._log, self._to, self._sources, self._every = engine, log, to, sources, every
        self._machine = TelemetrySender(
            name, secrets.token_bytes(STREAM_ID_SIZE), own=engine.identity, mesh_id=engine.parts.trust().mesh_id,
            now=trio.current_time(),
        )
        self._here, self._fed, self._fed_until = here, here(), 0
        self._cursors: dict[NodeId, int] = {}  # the next batch for each collector
        self._recorded, self._cut = trio.Event(), trio.Event()
        self.left_out = 0

    @property
    def stream(self) -> bytes:
        """Its id."""
        return self._machine.stream

    def record(self, samples: Sequence[Sample]) -> None:
        """Queue samples of one's own. Raises UsageError for one that no batch can hold."""
        self._machine.record(samples, trio.current_time())
        self._recorded.set()

    async def missing(self, ask: Ask, caller: PeerInfo) -> AsyncIterator[bytes]:
        """What a collector asks for again; nothing for whom it is not meant."""
        await trio.lowlevel.checkpoint()
        if may_use(self._to, caller):
            for cut in self._machine.receive(ask):
                yield cut.raw

    # --- tasks --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Measure, cut, deliver."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._measure)
            nursery.start_soon(self._find_collectors, nursery)
            while True:
                self._recorded = trio.Event()
                await self._tick(trio.current_time())
                with trio.move_on_at(self._machine.deadline):
                    await self._recorded.wait()

    async def finish(self) -> None:
        """The last batches and the last anchor, as far as they go in a moment; call it shielded."""
        await self._tick(math.inf)
        with trio.move_on_after(LAST_WITHIN):
            async with trio.open_nursery() as nursery:
                for peer in self._collectors():
                    nursery.start_soon(self._deliver_last, peer)

    async def _deliver_last(self, peer: Peer) -> None:
        try:
            await self._deliver_kept(peer)
        except OverlayError:
            return

    async def _measure(self) -> None:
        while self._sources:
            reading = Reading(self._engine.parts.calendar().timestamp())
            for source in self._sources:
                if source.blocks:
                    await trio.to_thread.run_sync(source.read, reading)
                else:
                    source.read(reading)
            self.left_out += reading.left_out
            self.record(reading.samples)
            await trio.sleep(self._every)

    async def _tick(self, now: float) -> None:
        self._machine.renew_identity(self._engine.identity)
        found = self._machine.tick(now, self._engine.parts.calendar().timestamp())
        if any(isinstance(one, Cut) for one in found):
            self._cut.set()
            self._cut = trio.Event()
        self._feed_here()
        for one in found:
            if isinstance(one, Anchor):
                await self._anchor(one)

    def _feed_here(self) -> None:
        """What our own collector has not got: no link leads to it."""
        own, collector = self._engine.identity.node_id, self._here()
        if collector is not self._fed:
            self._fed, self._fed_until = collector, 0
        if collector is not None and may_use(self._to, self._engine.info_of(own, "")):
            for cut in self._machine.batches_from(self._fed_until):
                collector.receive(cut.raw, own)
                self._fed_until = cut.seq + 1

    async def _anchor(self, anchor: Anchor) -> None:
        try:
            await self._log.append(EntryType.TELEMETRY, anchor_body(anchor.streams))
        except OverlayError:
            return  # the log keeps its warning, which every status shows

    # --- delivery -----------------------------------------------------------------------------------------------------

    def _collectors(self) -> list[Peer]:
        return [peer for peer in self._engine.peers if may_use(self._to, peer.info)]

    async def _find_collectors(self, nursery: trio.Nursery) -> None:
        """A task for each linked peer that is meant."""
        served: set[NodeId] = set()

        async def serve(node_id: NodeId) -> None:
            await self._serve(node_id)
            served.discard(node_id)

        while True:
            for peer in self._collectors():
                if peer.node_id not in served:
                    served.add(peer.node_id)
                    nursery.start_soon(serve, peer.node_id)
            await self._engine.wait_peers_change()

    async def _serve(self, node_id: NodeId) -> None:
        """As long as it is linked and meant: each batch, in order."""
        while (peer := next((one for one in self._collectors() if one.node_id == node_id), None)) is not None:
            cut = self._cut
            try:
                await self._deliver_kept(peer)
            except DeadlineExceeded:
                continue
            except OverlayError:
                await trio.sleep(AGAIN_AFTER)
                continue
            await cut.wait()

    async def _deliver_kept(self, peer: Peer) -> None:
        """All that it has not got. Raises OverlayError."""
        while (cuts := self._machine.batches_from(self._cursors.get(peer.node_id, 0))):
            for cut in cuts:
                await peer.call(BATCH, cut.raw, timeout=DELIVER_WITHIN)
                self._cursors[peer.node_id] = cut.seq + 1
