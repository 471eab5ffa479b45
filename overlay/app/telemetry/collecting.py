"""The driver of a collector: what comes goes to the machine, what is missing is asked for, and what it finds is told."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

import trio

from overlay.app.telemetry.names import BATCH, MISSING
from overlay.app.telemetry.rows import Kept, Report, Row, StreamRow
from overlay.core.forwarding import Rule, may_use
from overlay.core.keys import NodeId
from overlay.core.mesh.topics import Author, AuthorOf
from overlay.core.telemetry.anchor import Anchored
from overlay.core.telemetry.asks import Ask
from overlay.core.telemetry.collector import TelemetryCollector
from overlay.core.telemetry.events import Contradicted, Gap, TelemetryEvent
from overlay.core.telemetry.quarantine import Quarantined
from overlay.errors import OverlayError, Refused
from overlay.events import TelemetryGap, TelemetryRefused
from overlay.net.node import Node
from overlay.net.request import PeerInfo
from overlay.registry import Reason

ASK_WITHIN: Final = 10.0  # seconds between two batches that were asked for: our guess
STALE_AFTER: Final = 300.0  # seconds: how long Prometheus itself shows a series that is not there any more
LOOK_EVERY: Final = 60.0
MINUTE: Final = 60.0


class Authors:
    """Keeps the collector's port `Authors`: whoever may not be here, or may not use the service, has no level."""

    def __init__(self, engine: Node, author_of: AuthorOf) -> None:
        self._engine = engine
        self.author_of = author_of

    def level(self, author: Author, at: datetime) -> int:
        """Raises Refused: REVOKED, QUARANTINED, NOT_IN_FORCE, LEVEL_TOO_LOW, NOT_ALLOWED."""
        return self.info(author.node_id, author.name, at).level

    def info(self, node_id: NodeId, name: str, at: datetime) -> PeerInfo:
        """What counts of an author now. Raises as `level`."""
        trust = self._engine.parts.trust()
        if trust.revocation_of(node_id) is not None:
            raise Refused(Reason.REVOKED, f"{name} was revoked")
        if trust.quarantine_end(node_id, at) is not None:
            raise Refused(Reason.QUARANTINED, f"{name} is in quarantine")
        if not self._is_known(node_id):
            raise Refused(Reason.NOT_IN_FORCE, f"no certificate of {name} is in force")
        info = self._engine.info_of(node_id, name)
        refusal = self._engine.rights.refusal(info, BATCH)
        if refusal is not None:
            raise refusal
        return info

    def _is_known(self, node_id: NodeId) -> bool:
        own = node_id == self._engine.identity.node_id
        return own or node_id in self._engine.pool.links or self._engine.parts.standings.member(node_id) is not None


class Collecting:
    """One collector, for as long as `run` does."""

    def __init__(
        self, engine: Node, author_of: AuthorOf, *, level: int = 0, expect: tuple[Rule, ...] = (),
        name_of: Callable[[NodeId], str],
    ) -> None:
        """`level`: the least that an author needs. `expect`: whose streams have to come here, once its log speaks of them."""
        self._engine, self._level, self._expect, self._name_of = engine, level, expect, name_of
        self._authors = Authors(engine, author_of)
        self.machine = TelemetryCollector(engine.parts.trust().mesh_id, self._authors, level=level, expects=self._expects)
        self.began = engine.parts.calendar().timestamp()
        self._changed = trio.Event()
        self._asking: set[NodeId] = set()
        self._contradicted: Counter[tuple[NodeId | None, Reason]] = Counter()
        self._told: set[tuple[NodeId, Reason, int]] = set()

    def receive(self, raw: bytes, sender: NodeId) -> None:
        """A batch, from whomever."""
        self._take(self.machine.receive(raw, sender, trio.current_time(), self._engine.parts.calendar()))

    def anchored(self, author: NodeId, streams: tuple[Anchored, ...]) -> None:
        """An author's log says so."""
        self.machine.anchored(author, streams, trio.current_time())
        self._wake()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                changed = self._changed
                self._tell(self.machine.tick(trio.current_time(), self._engine.parts.calendar()))
                for author, ask in self.machine.messages_to_send():
                    nursery.start_soon(self._ask, author, ask)
                with trio.move_on_at(min(self.machine.deadline, trio.current_time() + LOOK_EVERY)):
                    await changed.wait()

    async def _ask(self, author: NodeId, ask: Ask) -> None:
        """What is missing, of its author alone; whoever does not answer is asked again by the machine."""
        peer = next((one for one in self._engine.peers if one.node_id == author), None)
        if peer is None or author in self._asking:
            return
        self._asking.add(author)
        left = ask.count
        try:
            async with peer.call_stream(MISSING, ask.pack(), timeout=ASK_WITHIN) as batches:
                async for raw in batches:
                    self.receive(raw, author)
                    left -= 1
                    if not left:  # more was not asked for
                        return
        except OverlayError:
            return
        finally:
            self._asking.discard(author)

    def _expects(self, author: NodeId, _name: str) -> bool:
        return may_use(self._expect, self._engine.info_of(author, self._name_of(author)))

    # --- what it tells ------------------------------------------------------------------------------------------------

    def _take(self, events: Iterable[TelemetryEvent]) -> None:
        self._tell(events)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _tell(self, events: Iterable[TelemetryEvent]) -> None:
        for event in events:
            match event:
                case Quarantined():
                    author = "" if event.author is None else self._name_of(event.author)
                    self._refused(event.sender, event.reason, author, event.detail)
                case Contradicted():
                    self._contradicted[event.author, event.reason] += 1
                    detail = f"its log has {event.anchored} batches of {event.name}, and {event.have} have come"
                    self._refused(event.author, event.reason, self._name_of(event.author), detail)
                case Gap():
                    name, node = self._name_of(event.author), str(event.author)
                    self._engine.emit(
                        TelemetryGap(name=name, node=node, stream=event.name, first=event.first, count=event.count)
                    )

    def _refused(self, node: NodeId, reason: Reason, author: str, detail: str) -> None:
        """Once per node, reason and minute: nobody fills our log with batches."""
        minute = int(trio.current_time() // MINUTE)
        self._told = {one for one in self._told if one[2] == minute}
        if (node, reason, minute) not in self._told:
            self._told.add((node, reason, minute))
            self._engine.emit(
                TelemetryRefused(name=self._name_of(node), node=str(node), author=author, reason=reason, detail=detail)
            )

    # --- what it shows --------------------------------------------------------------------------------------------------

    def report(self, *, kept: bool = False) -> Report:
        """All that is fresh and whose authors count now; with what is in quarantine, if that is asked for."""
        at, now = self._engine.parts.calendar(), trio.current_time()
        levels = self._levels(at)
        labels = self._labels(levels)
        oldest = (at.timestamp() - STALE_AFTER) * 1000
        chains = [(key[0], chain) for key, chain in self.machine.chains.items() if key[0] in levels]
        newest = {(author, chain.name): chain for author, chain in sorted(chains, key=lambda one: one[1].heard)}
        return Report(
            rows=tuple(
                Row(
                    author=labels[node], node=str(node), level=levels[node], series=one.series, kind=one.kind, value=one.last,
                    at=one.last_at, count=one.count,
                )
                for node, one in self.machine.aggregates if node in levels and one.last_at >= oldest
            ),
            streams=tuple(
                StreamRow(
                    author=labels[node], node=str(node), level=levels[node], stream=name, batches=chain.next - chain.missing,
                    missing=chain.missing, dropped=chain.dropped, heard=round(now - chain.heard, 3),
                )
                for (node, name), chain in newest.items()
            ),
            refused=self._by_name(self.machine.quarantine.counts),
            contradicted=self._by_name(self._contradicted),
            kept=tuple(map(self._kept, self.machine.quarantine)) if kept else (),
        )  # fmt: skip

    def _by_name(self, counts: Mapping[tuple[NodeId | None, Reason], int]) -> tuple[tuple[str, str, int], ...]:
        """(name, reason, how many); two of one name together, for one series each."""
        found: Counter[tuple[str, str]] = Counter()
        for (node, reason), count in counts.items():
            found["others" if node is None else self._name_of(node), reason.name] += count
        return tuple((name, reason, count) for (name, reason), count in found.items())

    def _kept(self, one: Quarantined) -> Kept:
        author = "" if one.author is None else self._name_of(one.author)
        return Kept(
            at=one.at, sender=self._name_of(one.sender), author=author, reason=one.reason.name, detail=one.detail,
            size=len(one.raw),
        )

    def _levels(self, at: datetime) -> dict[NodeId, int]:
        """Of all authors that count now."""
        found = {}
        for node in {*(node for node, _ in self.machine.aggregates), *(key[0] for key in self.machine.chains)}:
            try:
                level = self._authors.info(node, self._name_of(node), at).level
            except Refused:
                continue
            if level >= self._level:
                found[node] = level
        return found

    def _labels(self, nodes: Iterable[NodeId]) -> dict[NodeId, str]:
        """Names; ids where two have one name."""
        names = {node: self._name_of(node) for node in nodes}
        many = Counter(names.values())
        return {node: name if many[name] == 1 else str(node) for node, name in names.items()}
