"""What of a log is witnessed, since when, and what nobody has attested in time: judged from a store and the mesh's root alone.

A cosignature counts if a key verifies it that its witness's own log has shown in an endorsement, up to the root, and if its
time lies in the life of that endorsement. A checkpoint is witnessed when q of the witnesses have cosigned that its author had
logged last before it; it is then of the q-th smallest of their times, as each of the others may be a lie.
"""

from collections.abc import Iterable
from datetime import datetime

from audit.chain import KeyInForce, verify_key
from audit.checkpoint import Checkpoint, UnverifiedCheckpoint, witness_key, witness_name
from audit.entry import Entry
from audit.judged import Witnessed, WitnessReport
from audit.notes import Note, NoteSignature, verify_line
from audit.quorum import WitnessSet, is_timely
from audit.store import AuditStore
from audit.witness_sets import WitnessSets, sets_of
from overlay.core.certificates import Root
from overlay.core.keys import NodeId
from overlay.core.merkle import Tree
from overlay.errors import Refused


class Judge:
    """Judges checkpoints by what a store holds. It remembers keys that it has verified, and looks again for unknown ones."""

    def __init__(self, store: AuditStore, root: Root) -> None:
        self._store = store
        self._root = root
        self._shown: dict[NodeId, tuple[tuple[bytes, KeyInForce], ...]] = {}  # with the log that shows it, newest first
        self._sets: WitnessSets | None = None

    def keys(self, node_id: NodeId) -> tuple[KeyInForce, ...]:
        """Every endorsement that the logs of a node have shown, verified, the newest first."""
        return tuple(key for _, key in self._shown_by(node_id))

    def _shown_by(self, node_id: NodeId) -> tuple[tuple[bytes, KeyInForce], ...]:
        if node_id not in self._shown:
            self._shown[node_id] = tuple(self._verified(node_id))
        return self._shown[node_id]

    def _verified(self, node_id: NodeId) -> Iterable[tuple[bytes, KeyInForce]]:
        for entry in self._store.with_keys_of(node_id):
            try:
                yield entry.log_id, verify_key(entry, self._root)
            except Refused:
                continue  # `verify` names it

    def forget(self, node_id: NodeId) -> None:
        """Its logs have shown another endorsement."""
        self._shown.pop(node_id, None)

    def forget_sets(self) -> None:
        """Some log has named other witnesses."""
        self._sets = None

    @property
    def _witness_sets(self) -> WitnessSets:
        if self._sets is None:
            self._sets = sets_of(self._store.with_witnesses())
        return self._sets

    def check_author(self, found: UnverifiedCheckpoint) -> NoteSignature:
        """The line by which a message key of its author signed it. Raises Refused(BAD_SIGNATURE)."""
        public = found.verify_any({key.peer.message_public for key in self.keys(found.says.node_id)})
        return found.note.signature_of(found.says.author_key(public))

    def judge(self, checkpoint: Checkpoint, note: Note, witnesses: WitnessSet) -> Witnessed:
        """Which of these witnesses have cosigned; lines of others, and lines that do not hold, do not count."""
        lines = {}
        for node in witnesses.nodes:
            name = witness_name(checkpoint.mesh_id, node)
            mine = [line for line in note.signatures if line.name == name]
            good = [line for line in mine if self._holds(checkpoint, node, line)]
            if good:
                lines[node] = min(good, key=lambda line: line.timestamp)
        return Witnessed(checkpoint=checkpoint, witnesses=witnesses, lines=lines)

    def _holds(self, checkpoint: Checkpoint, node: NodeId, line: NoteSignature) -> bool:
        """Under an endorsement that was in force at the time that it says."""
        for key in self.keys(node):
            public = key.peer.endorsement.witness_public
            if public is None or not line.is_of(witness_key(checkpoint.mesh_id, node, public)):
                continue
            try:
                verify_line(checkpoint.text, line, witness_key(checkpoint.mesh_id, node, public))
            except Refused:
                return False
            if int(key.not_before.timestamp()) <= line.timestamp <= int(key.not_after.timestamp()):
                return True
        return False

    def witnessed(self, log_id: bytes) -> list[Witnessed]:
        """The checkpoints of a log that are kept and hold, the largest first; witnessed or not."""
        sets, found = self._witness_sets, []
        for kept in self._store.checkpoints(log_id):
            try:
                self.check_author(UnverifiedCheckpoint(kept.checkpoint, kept.note))
            except Refused:
                continue
            found.append(self.judge(kept.checkpoint, kept.note, sets.at(log_id, kept.checkpoint.size)))
        return found

    def vouches(self, log_id: bytes, size: int) -> bool:
        """Whether a witnessed checkpoint covers the first so many entries, with the root that their hashes have here."""
        for one in self.witnessed(log_id):
            if one.at is not None and one.checkpoint.size >= size:
                with self._store.tree(log_id) as tree:
                    if tree.root(one.checkpoint.size) == one.checkpoint.root:
                        return True
        return False

    def report(self, node_id: NodeId, log_id: bytes, size: int, at: datetime | None) -> WitnessReport:
        """What witnesses say of the first `size` entries of a log, which hold, at that time."""
        found = [one for one in self.witnessed(log_id) if one.checkpoint.size <= size]
        if other := self._differing(log_id, found):
            fault = f"its author has signed another root of its first {other.checkpoint.size} entries than they have here"
            return WitnessReport(fault=fault)
        reached = [one for one in found if one.at is not None]
        best = next(iter(reached or found), None)
        newest = self._witness_sets.at(log_id, size)
        return WitnessReport(
            witnesses=newest, size=reached[0].checkpoint.size if reached else 0,
            sentence=newest.sentence(0) if best is None else best.sentence,
            unproven=() if at is None else tuple(self._unproven(node_id, log_id, size, reached, at)),
        )

    def unproven(self, entries: Iterable[Entry], at: datetime) -> frozenset[bytes]:
        """The hashes of those whose endorsement has ended, and that were not witnessed in time."""
        found, logs = set[bytes](), dict[bytes, list[Witnessed]]()
        for entry in entries:
            ends = [key.not_after for key in self.keys(entry.node_id) if key.kid == entry.kid]
            if ends and ends[0] >= at:
                continue
            if entry.log_id not in logs:
                logs[entry.log_id] = self.witnessed(entry.log_id)
            covering = (one.at for one in logs[entry.log_id] if one.checkpoint.size > entry.seq)
            if not ends or not any(is_timely(since, ends[0]) for since in covering):
                found.add(entry.hash)
        return frozenset(found)

    def _differing(self, log_id: bytes, found: Iterable[Witnessed]) -> Witnessed | None:
        """The first checkpoint that says something else than the entries, whose recorded hashes have been verified."""
        tree = Tree()
        for one in sorted(found, key=lambda one: one.checkpoint.size):
            tree = tree.extend(self._store.hashes(log_id, tree.size, one.checkpoint.size))
            if tree.root != one.checkpoint.root:
                return one
        return None

    def _unproven(
        self, node_id: NodeId, log_id: bytes, size: int, reached: list[Witnessed], at: datetime
    ) -> Iterable[range]:
        periods = self._periods(node_id, log_id)
        for (start, key), end in zip(periods, [*(start for start, _ in periods[1:]), size], strict=True):
            timely = max((one.checkpoint.size for one in reached if is_timely(one.at, key.not_after)), default=0)
            if key.not_after < at and (left := range(max(start, timely), min(end, size))):
                yield left

    def _periods(self, node_id: NodeId, log_id: bytes) -> list[tuple[int, KeyInForce]]:
        """From which entry on which endorsement was in force."""
        found = [(key.seq, key) for shown_in, key in self._shown_by(node_id) if shown_in == log_id]
        return sorted(found, key=lambda one: one[0])
