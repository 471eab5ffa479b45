"""Which witnesses a log had from which entry on, as its author has logged it (docs/protocol/audit.md)."""

from collections.abc import Iterable

from audit.bodies import read_body
from audit.entry import Entry
from audit.quorum import WitnessSet, witness_set
from overlay.errors import Refused
from overlay.registry import EntryType

ALONE = WitnessSet()


class WitnessSets:
    """Of every log that is held here; only entries that hold are to be learnt from, each log's in order."""

    def __init__(self) -> None:
        self._sets: dict[bytes, list[tuple[int, WitnessSet]]] = {}  # by log: from which entry on, and who

    def learn(self, entries: Iterable[Entry]) -> None:
        """Entries of any kind; one of a form that we do not know leaves the set as it was."""
        for entry in entries:
            if entry.type == EntryType.WITNESSES:
                try:
                    nodes = read_body(EntryType.WITNESSES, entry.body)["nodes"]
                except Refused:
                    continue
                self._sets.setdefault(entry.log_id, []).append((entry.seq, witness_set(nodes)))

    def at(self, log_id: bytes, size: int) -> WitnessSet:
        """By whom a checkpoint of that size is judged: the last set that it covers."""
        covered = (found for seq, found in reversed(self._sets.get(log_id, ())) if seq < size)
        return next(covered, ALONE)

    def newest(self, log_id: bytes) -> WitnessSet:
        """The last set of a log."""
        found = self._sets.get(log_id)
        return found[-1][1] if found else ALONE


def sets_of(entries: Iterable[Entry]) -> WitnessSets:
    """What these entries say."""
    found = WitnessSets()
    found.learn(entries)
    return found
