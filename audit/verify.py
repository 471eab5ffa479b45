"""`audit verify`: what holds in a store, from the mesh's root alone; where it does not, which entry, and what hangs on it.

It needs no node, network or TPM, and changes nothing. It sees every edit of what is stored and every gap. That entries
were cut off at the end and the record of it changed with them, only others can tell, who remember the log's head.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from audit.chain import ChainState, extend
from audit.entry import Entry, parse_entry
from audit.store import AuditStore, EntryRow, LogRow
from overlay.core.certificates import Root
from overlay.core.keys import NodeId, base32
from overlay.core.mesh.chains import item_hash
from overlay.errors import Refused, StateDamaged

PROBLEMS_MAX = 8  # of one log: the first one says it, the others help to see what was done


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that does not hold in one log. `seq` is None when it is about the log as a whole."""

    seq: int | None
    expected: str
    found: str

    def __str__(self) -> str:
        where = "the log" if self.seq is None else f"entry {self.seq}"
        return f"{where}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReport:
    """What holds of one log. Entries below `good` hold and are in their order; `size` are there or recorded."""

    node: str  # base32
    name: str  # from its newest certificate that verified; empty if none did
    log_id: str  # hex
    k: int
    size: int
    good: int
    root: str  # hex; of the tree of the good ones
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all of it holds."""
        return not self.problems

    @property
    def line(self) -> str:
        """All in one line."""
        who = f"{self.name or '?'} ({self.node[:8]}) log {self.log_id}"
        if self.ok:
            return f"{who}: {self.size} entries hold, root {self.root[:16]}"
        first = self.problems[0]
        if first.seq is None:
            return f"{who}: {first}; its {self.good} entries hold"
        later = max(self.size - first.seq - 1, 0)
        affected = f"{later} later entries do not follow from what is good" if later else "no entry comes after it"
        return f"{who}: {first}; entries before {first.seq} hold, {affected}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What holds in a store. `damage` is what the database itself finds wrong with its file."""

    logs: tuple[LogReport, ...]
    damage: str = ""

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not self.damage and all(log.ok for log in self.logs)

    @property
    def lines(self) -> tuple[str, ...]:
        """One line per log, and one for the file if it is damaged."""
        return (*(log.line for log in self.logs), *([f"the file: {self.damage}"] if self.damage else []))


def verify_store(path: Path, root: Root) -> Report:
    """Check every entry of every log in a store against the mesh's root.

    Raises:
        StateDamaged: there is no store, it is not ours, or nothing of it can be read.
    """
    store = AuditStore.open_readonly(path)
    try:
        with store.snapshot():
            damage = store.integrity()
            lost = store.without_log()
            if lost and not damage:
                damage = f"{lost} entries belong to no log that is recorded"
            reports = tuple(_verify_log(store, row, root) for row in store.logs())
    finally:
        store.close()
    return Report(logs=reports, damage=damage)


def _verify_log(store: AuditStore, row: LogRow, root: Root) -> LogReport:
    check = _LogCheck(row, root)
    try:
        for entry in store.rows(row.number):
            check.take(entry)
    except StateDamaged as error:
        check.problem(check.next, "an entry that can be read", str(error))
    check.finish()
    return check.report()


class _LogCheck:
    """Goes through the rows of one log. After the first problem it goes on as if the rest had been given to it."""

    def __init__(self, row: LogRow, root: Root) -> None:
        self.next = 0
        self._row = row
        self._root = root
        self._problems: list[Problem] = []
        self._good: ChainState | None = None  # the last state before the first problem
        self._state = _start(row)

    def take(self, row: EntryRow) -> None:
        """The next row."""
        if row.seq != self.next:
            missing = f"{row.seq - self.next} missing entries, then entry {row.seq}"
            self.problem(self.next, f"entry {self.next}", missing)
            self._skip_to(row)
        wrong = list(self._wrong(row))
        for expected, found in wrong:
            self.problem(row.seq, expected, found)
        if any(self._problems) and wrong:
            self._skip_after(row)
        self.next = row.seq + 1
