"""What a running node does about forks: has copies compared, keeps proofs, puts their authors out, and tells the others.

A proof is durable before anybody hears of it from us. Each is passed on once; whoever is linked later is told of all that
can still be judged.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, Protocol, Self

import trio

from audit.bodies import read_credentials
from audit.checkpoint import parse_checkpoint
from audit.entry import Entry, parse_entry
from audit.exposer import Compare, Exposed, Exposer, ExposerEvent, Misbehaved, Suspected
from audit.fork_sides import Side
from audit.forks import ForkProof
from audit.kept_forks import KeptFork, known_forks
from audit.log import AuditLog
from audit.store import AuditStore
from overlay.core.certificates import Root
from overlay.core.grace import OF_MEMBERS
from overlay.core.keys import NodeId
from overlay.core.limits import ENTRY_MAX
from overlay.core.mesh.reconcile import HeadsDiffer, ItemShown
from overlay.core.trust import Quarantine, TrustSet
from overlay.errors import OverlayError, Refused
from overlay.events import ForkExposed, ForkSuspected, NodeEvent
from overlay.registry import EntryType, ForkKind, FrameType, Reason

KEPT_OUT_FOR: Final = OF_MEMBERS  # after its certificate: then nothing of it can be renewed, and it stays out for good
TOLD_FOR: Final = timedelta(hours=25)  # an endorsement lives 24 h: then nobody can judge the proof any more


class Engine(Protocol):
    """What is needed of the node."""

    def tell(self, peer: NodeId, frame: FrameType, body: bytes) -> bool:
        """Send to a linked peer."""
        ...

    def linked_ids(self) -> tuple[NodeId, ...]:
        """Who is linked."""
        ...

    def flush_logs(self) -> None:
        """Send what the machine of audit logs owes."""
        ...

    def rejected(self, peer: NodeId, reason: Reason, detail: str) -> None:
        """A peer sent what no honest peer sends: its link ends."""
        ...

    def emit(self, event: NodeEvent) -> None:
        """Tell observers."""
        ...


class Trust(Protocol):
    """Where trust moves."""

    def move(self, after: TrustSet) -> None:
        """Another trust set is in force."""
        ...


class ForkWatch:
    """Of one node. Keeps `ForkKeeper` (net/replicator.py)."""

    def __init__(
        self, log: AuditLog, root: Root, at: Callable[[], datetime], trust: Callable[[], TrustSet],
        kept: Sequence[KeptFork] = (),
    ) -> None:  # fmt: skip
        self._log = log
        self._at = at
        self._trust = trust
        self._engine: Engine | None = None
        self._mover: Trust | None = None
        self._found = {one.node_id: one.at for one in kept}
        self._machine = Exposer(root, at, log.replica.credentials_of, known_forks(kept, root))
        self._work_in, self._work = trio.open_memory_channel[Compare | Exposed | Entry](math.inf)  # one of each peer, node, log
        self._shown: dict[tuple[NodeId, bytes, int], bytes | None] = {}
        log.listen(self._on_entries)

    @classmethod
    async def open(
        cls, log: AuditLog, root: Root, at: Callable[[], datetime], trust: Callable[[], TrustSet]
    ) -> Self:
        """With what is kept from earlier starts. Raises StateDamaged."""
        return cls(log, root, at, trust, await log.read_store(AuditStore.forks))

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def exposed(self) -> tuple[ForkProof, ...]:
        """A proof against each node that has told two stories, by name."""
        return tuple(sorted(self._machine.exposed.values(), key=lambda proof: proof.name))

    @property
    def warnings(self) -> tuple[str, ...]:
        """For every status."""
        own = self._log.node_id
        found = [
            f"this node is exposed: it has signed {proof.detail}; enrol the machine anew"
            if proof.node_id == own else f"{proof.name} has told two stories, proven: it has signed {proof.detail}"
            for proof in self.exposed
        ]
        doubts = (f"{node.short} is suspected of two stories: {why}" for node, why in self._machine.suspected.items())
        return (*found, *doubts)

    # --- ForkKeeper -------------------------------------------------------------------------------------------------

    def peer_opened(self, peer: NodeId) -> None:
        """It hears of all that can still be judged."""
        for proof in self._machine.exposed.values():
            found = self._found.get(proof.node_id)  # None: it is being stored, and told to everybody after that
            if self._engine is not None and found is not None and self._at() < found + TOLD_FOR:
                self._engine.tell(peer, FrameType.FORK_PROOF, proof.raw)

    def peer_closed(self, peer: NodeId) -> None:
        """What it should have shown does not come."""
        self._machine.peer_closed(peer)

    def received(self, sender: NodeId, body: bytes) -> None:
        """A proof. Raises Refused for what no honest peer sends."""
        events = self._machine.heard(sender, body)
        for event in events:
            if isinstance(event, Misbehaved):
                raise Refused(event.reason, event.detail)
        self._take(events)

    def watch(self, event: HeadsDiffer | ItemShown) -> bool:
        """Another copy, or an item of it; whether its author is exposed already."""
        state = self._log.replica.states.get(event.log_id)
        match event:
            case HeadsDiffer(peer=peer, log_id=log_id, size=size):
                if state is not None:
                    agreed = self._log.machine.agreed(peer, log_id)
                    self._take(self._machine.histories_differ(peer, state.node_id, log_id, agreed=agreed, size=size))
            case ItemShown(peer=peer, log_id=log_id, index=index, item=item):
                self._shown[peer, log_id, index] = item
                self._work_in.send_nowait(Compare(peer, log_id, index))
        return state is not None and state.node_id in self._machine.exposed

    def two_heads(self, one: bytes, other: bytes) -> None:
        """Two checkpoints by one author that contradict each other."""
        try:
            sides = [self._head(note) for note in (one, other)]
        except Refused:
            return  # its keys are not known here, or no more
        self._take(self._machine.contradict(ForkKind.HEADS, *sides))

    def _head(self, note: bytes) -> Side:
        """Under the key of its author that has signed it. Raises Refused."""
        found = parse_checkpoint(note)
        keys = {key.peer.message_public: key for key in self._log.replica.keys_of(found.says.node_id)}
        return Side.of_head(note, keys[found.verify_any(keys)].credentials)

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self, engine: Engine, mover: Trust) -> None:
        """Until cancelled."""
        self._engine, self._mover = engine, mover
        for proof in self.exposed:
            self._quarantine(proof)
        for peer in engine.linked_ids():
            self.peer_opened(peer)
        async for one in self._work:
            match one:
                case Compare():
                    await self._compare(one)
                case Exposed():
                    await self._expose(one)
                case Entry():
                    await self._look_at_opening(one)

    def _take(self, events: Iterable[ExposerEvent]) -> None:
        engine = self._engine
        for event in events:
            match event:
                case Compare(peer=peer, log_id=log_id, index=index):
                    self._log.machine.probe(peer, log_id, index, trio.current_time())
                    if engine is not None:
                        engine.flush_logs()
                case Exposed():
                    self._work_in.send_nowait(event)
                case Suspected(node_id=node_id, peer=peer, detail=detail) if engine is not None:
                    engine.emit(ForkSuspected(node=str(node_id), by=str(peer), detail=detail))
                case Misbehaved(peer=peer, reason=reason, detail=detail) if engine is not None:
                    engine.rejected(peer, reason, detail)

    async def _compare(self, one: Compare) -> None:
        """Ours beside what a peer has shown."""
        theirs = self._shown.pop((one.peer, one.log_id, one.index), None)
        ours = await self._read(one.log_id, one.index)
        self._take(self._machine.compared(one.peer, one.log_id, one.index, ours, theirs))

    async def _read(self, log_id: bytes, index: int) -> bytes | None:
        """An entry that is stored here; None if it cannot be read."""
        try:
            found = await self._log.read_store(lambda store: store.read(log_id, index, 1, limit=ENTRY_MAX))
        except OverlayError:
            return None
        return found[0] if found else None

    async def _expose(self, event: Exposed) -> None:
        """Durable here, told to the others, and its author is out."""
        proof, at = event.proof, self._at()
        with suppress(OverlayError):  # it counts until we end; the log keeps its warning, which every status shows
            await self._log.keep(KeptFork(node_id=proof.node_id, at=at, raw=proof.raw))
        self._found[proof.node_id] = at
        engine = self._engine
        if engine is None:
            return
        for peer in engine.linked_ids():
            if peer != event.sender:
                engine.tell(peer, FrameType.FORK_PROOF, proof.raw)
        engine.emit(ForkExposed(
            name=proof.name, node=str(proof.node_id), kind=proof.kind.name.lower(), detail=proof.detail, proof=proof.hash.hex()
        ))
        self._quarantine(proof)

    def _quarantine(self, proof: ForkProof) -> None:
        """Nobody speaks to its author any more; nothing of it can be renewed before that ends."""
        if self._mover is not None:
            after = self._trust().with_quarantine(Quarantine(proof.node_id, proof.until + KEPT_OUT_FOR, proof.hash))
            if after != self._trust():
                self._mover.move(after)

    # --- two openings -----------------------------------------------------------------------------------------------

    def _on_entries(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            if entry.type == EntryType.LOG_OPEN:
                self._work_in.send_nowait(entry)

    async def _look_at_opening(self, opening: Entry) -> None:
        """A node opens each number once."""
        logs = self._log.replica.logs_of(opening.node_id)
        k = next((log.k for log in logs if log.log_id == opening.log_id), None)
        for log in logs:
            if log.k == k and log.log_id != opening.log_id:
                other = await self._read(log.log_id, 0)
                if other is not None:
                    self._take(self._two_openings(opening.raw, other))

    def _two_openings(self, one: bytes, other: bytes) -> list[ExposerEvent]:
        try:
            sides = [self._opening(raw) for raw in (one, other)]
        except Refused:
            return []
        return self._machine.contradict(ForkKind.OPENINGS, *sides)

    def _opening(self, raw: bytes) -> Side:
        entry = parse_entry(raw).says
        return Side.of_entry(raw, read_credentials(entry.type, entry.body))
