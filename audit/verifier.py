"""Does a store hold? Every entry from the mesh's root up, with no node, network or TPM, and nothing recorded is believed.

What is recorded beside an entry's bytes (number, hash, time, type; of a log its size, root and end) is worked out anew and
compared, and so is the end of a log with what the next incarnation says of it. What this cannot see: the end of the newest
log cut off together with its records, or a log that is gone as a whole.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from audit.batch import DAMAGED
from audit.bodies import Former, LogOpen
from audit.chain import ChainState
from audit.entry import parse_entry
from audit.judged import WitnessReport
from audit.lookahead import Lookahead
from audit.store import AuditStore, LogRow
from audit.walk import BadRecord, Walk
from audit.witnessed import Judge
from overlay.core.certificates import Root
from overlay.core.keys import NodeId
from overlay.core.mesh.chains import item_hash
from overlay.errors import CheckFailed, Refused, StateDamaged
from overlay.registry import Reason

MANY: Final = 16_384  # entries for which processes are worth their start: our guess, a second of work
WORKERS_MAX: Final = 8  # our guess: one process joins what they find

UNWITNESSED: Final = WitnessReport()  # of a log of which nothing was asked
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The first thing in a log that does not hold."""

    seq: int | None  # the entry; None where only the record of the log is wrong
    reason: Reason
    detail: str  # what was found, and what was expected


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReport:
    """One log of a store."""

    node_id: bytes
    name: str  # of the node, as far as a verified certificate says it
    log_id: bytes
    size: int  # entries that hold
    recorded: int  # entries that there should be
    root: bytes  # over those that hold
    fault: Fault | None = None
    pruned: int = 0  # of entries with a smaller number the contents may be gone
    witnesses: WitnessReport = UNWITNESSED

    @property
    def holds(self) -> bool:
        """Whether all of it does."""
        return self.fault is None

    @property
    def affected(self) -> int:
        """How many entries cannot be relied on: the bad one and all that build on it."""
        return max(self.recorded - self.size, 0)

    @property
    def line(self) -> str:
        """For people."""
        log = f"{self.name} log {self.log_id.hex()[:8]}"
        if self.fault is None:
            said = f"; {self.witnesses.line}" if self.witnesses.line else ""
            said = f"; contents below {self.pruned} were pruned{said}" if self.pruned else said
            return f"{log}: {self.size} entries hold, root {self.root.hex()[:16]}{said}"
        where = "its record" if self.fault.seq is None else f"entry {self.fault.seq}"
        others = f"; with it {self.affected - 1} later entries prove nothing" if self.affected > 1 else ""
        return f"{log}: {where} does not hold: {self.fault.detail}{others}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a store."""

    logs: tuple[LogReport, ...]
    faults: tuple[str, ...] = ()  # of the file as a whole

    @property
    def holds(self) -> bool:
        """Whether every log does, and the file."""
        return not self.faults and all(log.holds for log in self.logs)

    @property
    def lines(self) -> tuple[str, ...]:
        """One for each log, one for each fault of the file."""
        return (*(log.line for log in self.logs), *self.faults)

    def demand(self) -> None:
        """Raises CheckFailed unless all holds."""
        if not self.holds:
            bad = [log.line for log in self.logs if not log.holds]
            raise CheckFailed((*bad, *self.faults)[0], hint="compare with the copies of other nodes; leave this file as it is")


def verify_store(
    path: Path, root: Root, *, at: datetime | None = None, workers: int | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Report:
    """Verify every log in a store, also while a node writes to it.

    Args:
        at: now, to tell entries whose endorsement has ended and that were not witnessed in time; None: that is not looked at.
        workers: how many processes help; None for as many as there are cores, if there is enough to do.
        progress: told now and then how many entries of how many were judged.

    Raises:
        StateDamaged: the file cannot be read at all.
    """
    with ExitStack() as stack:
        store = AuditStore.open_readonly(path)
        stack.callback(store.close)
        stack.enter_context(store.snapshot())
        rows = store.logs()
        total = sum(row.size for row in rows if isinstance(row.size, int))
        count = _workers(total) if workers is None else workers
        ahead = stack.enter_context(Lookahead(path, root, count)) if count else None
        walk, reports = Walk(store, root, ahead), dict[bytes, LogReport]()
        done = 0
        for row in rows:
            report = verify_log(walk, row, partial(_tell, progress, done, total))
            reports[row.log_id] = replace(report, pruned=store.pruned_below(row.number))
            done += reports[row.log_id].recorded
        reports |= {log.log_id: log for log in _cut_off(store, reports)}
        judge = Judge(store, root)
        reports = {log_id: _witnessed(judge, report, at) for log_id, report in reports.items()}
        return Report(logs=tuple(reports.values()), faults=_file_faults(store))


def _witnessed(judge: Judge, report: LogReport, at: datetime | None) -> LogReport:
    """The report with what witnesses say of a log that holds by itself."""
    if not report.holds:
        return report
    if report.pruned and not judge.vouches(report.log_id, report.pruned):
        detail = f"contents of entries below {report.pruned} are gone, and no witnessed checkpoint vouches for them"
        return replace(report, fault=Fault(seq=None, reason=Reason.CHAIN_BROKEN, detail=detail))
    found = judge.report(NodeId(report.node_id), report.log_id, report.size, at)
    if found.fault:
        return replace(report, fault=Fault(seq=None, reason=Reason.FORKED, detail=found.fault))
    return replace(report, witnesses=found)


def _tell(progress: Progress, before: int, total: int, size: int) -> None:
    progress(before + size, total)


def _workers(entries: int) -> int:
    """None for a small store; else one for each core that we may use."""
    cores = len(os.sched_getaffinity(0))
    return min(cores, WORKERS_MAX) if cores > 1 and entries >= MANY else 0


def _file_faults(store: AuditStore) -> tuple[str, ...]:
    """What is wrong beside the logs."""
    faults = [damage] if (damage := store.integrity()) else []
    if stray := store.without_log():
        faults.append(f"{stray} entries belong to no log: the record of their log was removed")
    return tuple(faults)


def verify_log(walk: Walk, row: LogRow, progress: Callable[[int], None] = lambda _size: None) -> LogReport:
    """Verify one log, up to the first entry that does not hold."""
    state: ChainState | None = None
    try:
        for state in walk.steps(row):
            progress(state.size)
        return _report(row, state, None)
    except Refused as error:
        return _report(row, state, Fault(seq=_size(state), reason=error.reason, detail=error.detail))
    except BadRecord as error:
        return _report(row, state, Fault(seq=None, reason=Reason.CHAIN_BROKEN, detail=str(error)))
    except StateDamaged as error:
        return _report(row, state, Fault(seq=_size(state), reason=Reason.MALFORMED, detail=str(error)))


def _cut_off(store: AuditStore, reports: Mapping[bytes, LogReport]) -> Iterator[LogReport]:
    """The logs whose end is not the one that the next incarnation names."""
    for later in reports.values():
        former = _former(store, later)
        report = None if former is None else reports.get(former.log_id)
        if former is None or former.reason == DAMAGED or report is None or not report.holds:
            continue  # of a damaged log its author knew no more than the file said
        if report.size < former.size:
            detail = f"it is missing: the next log names {former.size} entries of this one"
            fault = Fault(seq=report.size, reason=Reason.CHAIN_BROKEN, detail=detail)
            yield replace(report, recorded=former.size, fault=fault)
        elif [item_hash(raw) for raw in store.read(former.log_id, former.size - 1, 1, limit=1)] != [former.last]:
            detail = f"the next log names another one: expected {former.last.hex()}"
            fault = Fault(seq=former.size - 1, reason=Reason.FORKED, detail=detail)
            yield replace(report, fault=fault)


def _former(store: AuditStore, report: LogReport) -> Former | None:
    """What a log whose entry 0 holds says of the one before."""
    if report.size == 0:
        return None
    (raw,) = store.read(report.log_id, 0, 1, limit=1)
    return LogOpen.read(parse_entry(raw).says.body).former


def _bytes(recorded: object) -> bytes:
    """A recorded id; anything but bytes is reported as none."""
    return recorded if isinstance(recorded, bytes) else b""


def _size(state: ChainState | None) -> int:
    return 0 if state is None else state.size


def _report(row: LogRow, state: ChainState | None, fault: Fault | None) -> LogReport:
    name = _bytes(row.node_id).hex()[:8] or "unknown"
    if state is not None:
        name = state.node_id.short if state.key is None else state.key.peer.name
    return LogReport(
        node_id=_bytes(row.node_id), name=name, log_id=_bytes(row.log_id), size=_size(state),
        recorded=row.size if isinstance(row.size, int) else 0, root=state.root if state else b"", fault=fault,
    )
