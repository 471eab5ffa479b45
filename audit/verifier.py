"""Does a store hold? Every entry from the mesh's root up, with no node, network or TPM, and nothing recorded is believed.

What is recorded beside an entry's bytes (number, hash, time, type; of a log its size, root and end) is worked out anew and
compared, and so is the end of a log with what the next incarnation says of it. What this cannot see: the end of the newest
log cut off together with its records, or a log that is gone as a whole.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from audit.batch import DAMAGED
from audit.bodies import Former, LogOpen
from audit.chain import ChainState, extend
from audit.entry import LOG_ID_SIZE, parse_entry
from audit.store import AuditStore, EntryRow, LogRow
from overlay.core.certificates import Root
from overlay.core.keys import NodeId
from overlay.core.mesh.chains import item_hash
from overlay.errors import CheckFailed, Refused, StateDamaged
from overlay.registry import Reason


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
            return f"{log}: {self.size} entries hold, root {self.root.hex()[:16]}"
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


def verify_store(path: Path, root: Root) -> Report:
    """Verify every log in a store, also while a node writes to it.

    Raises:
        StateDamaged: the file cannot be read at all.
    """
    store = AuditStore.open_readonly(path)
    try:
        with store.snapshot():
            reports = {row.log_id: verify_log(store, row, root) for row in store.logs()}
            reports |= {log.log_id: log for log in _cut_off(store, reports)}
            return Report(logs=tuple(reports.values()), faults=_file_faults(store))
    finally:
        store.close()


def _file_faults(store: AuditStore) -> tuple[str, ...]:
    """What is wrong beside the logs."""
    faults = [damage] if (damage := store.integrity()) else []
    if stray := store.without_log():
        faults.append(f"{stray} entries belong to no log: the record of their log was removed")
    return tuple(faults)


def verify_log(store: AuditStore, row: LogRow, root: Root) -> LogReport:
    """Verify one log, up to the first entry that does not hold."""
    state: ChainState | None = None
    try:
        state = _begin(row)
        for entry in store.rows(row.number):
            state = _follow(state, entry, root)
        _check_end(state, row)
        return _report(row, state, None)
    except Refused as error:
        return _report(row, state, Fault(seq=_size(state), reason=error.reason, detail=error.detail))
    except _BadRecord as error:
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


class _BadRecord(Exception):
    """The row of a log says something else than its entries."""


def _begin(row: LogRow) -> ChainState:
    """The state before entry 0."""
    if not isinstance(row.node_id, bytes) or not isinstance(row.log_id, bytes):
        raise _BadRecord("node and log ids are bytes")
    if len(row.node_id) != len(NodeId(bytes(32))) or len(row.log_id) != LOG_ID_SIZE:
        raise _BadRecord("ids of another length")
    return ChainState(node_id=NodeId(row.node_id), log_id=row.log_id)


def _follow(state: ChainState, row: EntryRow, root: Root) -> ChainState:
    """The state after one stored entry; raises Refused."""
    if row.seq != state.size:
        raise Refused(Reason.CHAIN_BROKEN, f"entry {state.size} is missing, entry {row.seq} follows")
    if not isinstance(row.raw, bytes):
        raise Refused(Reason.MALFORMED, "no bytes where an entry was expected")
    found = item_hash(row.raw)
    try:
        extension = extend(state, [row.raw], root, at=None)
    except Refused as error:
        changed = isinstance(row.hash, bytes) and row.hash != found
        expected = f"; its hash is {found.hex()}, expected {row.hash.hex()}" if changed else ""
        raise Refused(error.reason, f"{error}{expected}") from None
    (entry,) = extension.entries
    recorded = {"hash": (row.hash, entry.hash), "time": (row.hlc, entry.hlc), "type": (row.type, entry.type)}
    for what, (there, right) in recorded.items():
        if there != right:
            raise Refused(Reason.CHAIN_BROKEN, f"the recorded {what} is {_show(there)}, expected {_show(right)}")
    return extension.state


def _check_end(state: ChainState, row: LogRow) -> None:
    """What is recorded of the log fits its entries."""
    if isinstance(row.size, int) and state.size < row.size:
        raise Refused(Reason.CHAIN_BROKEN, f"entry {state.size} is missing: {row.size} entries are recorded")
    key_seq = 0 if state.key is None else state.key.seq
    recorded = {
        "size": (row.size, state.size), "root": (row.root, state.root), "edge": (row.edge, b"".join(state.tree.edge)),
        "last hash": (row.last, state.last), "time": (row.hlc, state.hlc), "number": (row.k, state.k),
        "entry with the key": (row.key_seq, key_seq),
    }  # fmt: skip
    for what, (there, expected) in recorded.items():
        if there != expected:
            raise _BadRecord(f"the {what} is {_show(there)}, expected {_show(expected)}")


def _bytes(recorded: object) -> bytes:
    """A recorded id; anything but bytes is reported as none."""
    return recorded if isinstance(recorded, bytes) else b""


def _size(state: ChainState | None) -> int:
    return 0 if state is None else state.size


def _show(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else repr(value)


def _report(row: LogRow, state: ChainState | None, fault: Fault | None) -> LogReport:
    name = _bytes(row.node_id).hex()[:8] or "unknown"
    if state is not None:
        name = state.node_id.short if state.key is None else state.key.peer.name
    return LogReport(
        node_id=_bytes(row.node_id), name=name, log_id=_bytes(row.log_id), size=_size(state),
        recorded=row.size if isinstance(row.size, int) else 0, root=state.root if state else b"", fault=fault,
    )
