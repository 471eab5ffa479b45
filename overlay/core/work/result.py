"""How a run ended, before the worker has signed it.

    result = {0:1, 1:worker, 2:H(placement), 3:H(workload), 4:run, 5:state, 6:number?, 7:reason?, 8:started, 9:ended,
              10:[[name, hash32, size], ...]}

Times are Unix milliseconds. Files are sorted by name; stdout and stderr are among them, where the run began.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from overlay.core.keys import NodeId
from overlay.core.policy_parts import TIME_MAX
from overlay.core.wire import Array, Bytes, Maybe, Text, Tuple, UInt, make_map, malformed, open_map
from overlay.core.work import names
from overlay.core.work.workload import FILES_MAX, RUNS_MAX, SIZE_MAX, File
from overlay.registry import Reason, WorkState

RESULT_MAX: Final = 64 * 1024  # bytes of the payload: our guess, 258 files fit
NUMBER_MAX: Final = 255  # of an exit code or a signal

_MS: Final = UInt(TIME_MAX * 1000)
_FORM: Final = (
    Bytes(32), Bytes(32), Bytes(32), UInt(RUNS_MAX), UInt(255), Maybe(UInt(NUMBER_MAX)), Maybe(UInt(255)), _MS, _MS,
    Array(Tuple((Text(names.FILE_NAME_MAX), Bytes(32), UInt(SIZE_MAX))), FILES_MAX + len(names.STREAMS)),
)  # fmt: skip
_NUMBERED: Final = frozenset({WorkState.EXITED, WorkState.SIGNALLED})
_REASONED: Final = frozenset({WorkState.STOPPED, WorkState.NOT_STARTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkResult:
    """One run, from its start to its end, by the worker's clock."""

    worker: NodeId
    placement: bytes  # 32: hash of its COSE bytes
    workload: bytes  # 32: hash of its COSE bytes
    run: int
    state: WorkState
    number: int | None = None  # exit code or signal; for EXITED and SIGNALLED only
    reason: Reason | None = None  # for STOPPED and NOT_STARTED only
    started: datetime  # whole milliseconds
    ended: datetime
    files: tuple[File, ...] = field(default=())  # sorted by name

    def pack(self) -> bytes:
        """The payload, which is signed."""
        return make_map(
            self.worker, self.placement, self.workload, self.run, int(self.state), self.number,
            None if self.reason is None else int(self.reason), milliseconds(self.started), milliseconds(self.ended),
            [[one.name, one.hash, one.size] for one in self.files],
        )

    @classmethod
    def unpack(cls, payload: bytes) -> "WorkResult":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        worker, placement, workload, run, state, number, reason, started, ended, files = open_map(
            payload, *_FORM, limit=RESULT_MAX
        )
        if not run or state not in WorkState._value2member_map_ or reason not in {None, *Reason._value2member_map_}:
            malformed("run, state or reason of a result")
        found = cls(
            worker=NodeId(worker), placement=placement, workload=workload, run=run, state=WorkState(state), number=number,
            reason=None if reason is None else Reason(reason), started=_from_milliseconds(started),
            ended=_from_milliseconds(ended), files=tuple(File(*row) for row in files),
        )
        found.check()
        return found

    def check(self) -> None:
        """What no single field shows. Raises Refused(MALFORMED)."""
        if (self.number is not None) != (self.state in _NUMBERED) or (self.reason is not None) != (self.state in _REASONED):
            malformed("a result has the number or reason that its state asks for")
        if self.ended < self.started:
            malformed("a run that ended before it began")
        called = [one.name for one in self.files]
        names.check_rising(called, "files")
        names.check_file_names([name for name in called if name not in names.STREAMS])


def milliseconds(time: datetime) -> int:
    """Unix milliseconds."""
    return round(time.timestamp() * 1000)


def _from_milliseconds(value: int) -> datetime:
    seconds, rest = divmod(value, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1000)
