"""How far every log is known to be witnessed, and which peers lack what of that: sans-IO.

Of each log one checkpoint is remembered, the largest one that is witnessed. Peers tell each other the sizes; who has more sends
the note. An author sends its own as soon as they are witnessed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from audit.judged import Witnessed
from audit.kept import DropCheckpoints, KeptCheckpoint, Record, with_lines
from audit.quorum import TIMELY_WITHIN
from audit.witness_frames import make_news
from overlay.core.keys import NodeId


@dataclass(frozen=True, slots=True)
class Known:
    """A checkpoint that is witnessed."""

    kept: KeptCheckpoint
    judged: Witnessed

    @property
    def size(self) -> int:
        """Entries that it covers."""
        return self.kept.checkpoint.size

    @property
    def log_id(self) -> bytes:
        """Of which log."""
        return self.kept.checkpoint.log_id


class WitnessBook:
    """The machine."""

    def __init__(self, known: Iterable[Known] = ()) -> None:
        self._known: dict[bytes, Known] = {}
        for one in known:
            if one.judged.at is not None and one.size > self.size(one.log_id):
                self._known[one.log_id] = one
        self._theirs: dict[NodeId, dict[bytes, int]] = {}  # what linked peers have told, or were sent
        self._told: dict[NodeId, dict[bytes, int]] = {}  # what they were told

    def get(self, log_id: bytes) -> Known | None:
        """The largest witnessed checkpoint of a log."""
        return self._known.get(log_id)

    def size(self, log_id: bytes) -> int:
        """Up to where a log is witnessed, as far as we know."""
        found = self._known.get(log_id)
        return 0 if found is None else found.size

    def is_news(self, found: Known) -> bool:
        """Whether it says more than what is known: it reaches further, or has more lines."""
        known = self._known.get(found.log_id)
        if found.judged.at is None:
            return False
        if known is None or found.size > known.size:
            return True
        return found.size == known.size and len(found.judged.lines) > len(known.judged.lines)

    def merged(self, found: Known) -> Known:
        """With the lines that are known of the same checkpoint."""
        known = self._known.get(found.log_id)
        if known is None or known.kept.key != found.kept.key:
            return found
        note = with_lines(found.kept.note, [known.kept.note])
        lines = {**known.judged.lines, **found.judged.lines}
        kept = KeptCheckpoint(checkpoint=found.kept.checkpoint, tree=found.kept.tree, note=note)
        judged = Witnessed(checkpoint=found.judged.checkpoint, witnesses=found.judged.witnesses, lines=lines)
        return Known(kept, judged)

    def records(self, found: Known, ends: Iterable[float]) -> list[Record]:
        """What to make durable before `learn`.

        The one that was known is dropped, unless it alone shows that entries were witnessed in time.

        Args:
            ends: of the author's endorsements, in Unix seconds, as far as they may have been in force lately.
        """
        records: list[Record] = [found.kept]
        known = self._known.get(found.log_id)
        if known is not None and known.kept.key != found.kept.key and not _still_needed(known, found, ends):
            records.append(DropCheckpoints((known.kept.key,)))
        return records

    def learn(self, found: Known) -> None:
        """It is durable."""
        self._known[found.log_id] = found

    # --- peers ------------------------------------------------------------------------------------------------------

    def peer_opened(self, peer: NodeId) -> None:
        """There is a link to it: it has been told nothing."""
        self._theirs[peer], self._told[peer] = {}, {}

    def peer_closed(self, peer: NodeId) -> None:
        """There is none any more."""
        self._theirs.pop(peer, None)
        self._told.pop(peer, None)

    def heard(self, peer: NodeId, sizes: Mapping[bytes, int]) -> list[bytes]:
        """It knows logs to be witnessed so far: what it lacks; and where it has more, up to where we know them to be."""
        theirs = self._theirs.get(peer)
        if theirs is None:
            return []
        for log_id, size in sizes.items():
            if log_id in self._known:  # what we do not know of is not remembered
                theirs[log_id] = max(size, theirs.get(log_id, 0))
        more = [one for log_id, one in self._known.items() if log_id in sizes and one.size > theirs[log_id]]
        for one in more:
            theirs[one.log_id] = one.size
        wanted = {log_id: self.size(log_id) for log_id, size in sizes.items() if size > self.size(log_id)}
        return list(make_news([one.kept.note.raw for one in more], wanted))

    def tell(self, peer: NodeId, *, again: bool = False) -> list[bytes]:
        """The sizes that it has not been told yet, or all `again`: it may be able to judge now what it could not then."""
        told = self._told.get(peer)
        if told is None:
            return []
        if again:
            told.clear()
        sizes = {log_id: one.size for log_id, one in self._known.items() if told.get(log_id) != one.size}
        told.update(sizes)
        return list(make_news((), sizes))


def _still_needed(old: Known, new: Known, ends: Iterable[float]) -> bool:
    """Whether entries were in time by the old one that are not by the new one."""
    then, now = old.judged.at, new.judged.at
    grace = TIMELY_WITHIN.total_seconds()
    return then is None or now is None or any(then <= end + grace < now for end in ends)
