"""What a worker remembers of runs, so that none starts twice, not even after a restart. A value per run; `Memory` holds them.

A record is durable before its run starts, and is forgotten when its workload has been over for an hour.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from overlay.core.certificates import TOLERANCE, show_time
from overlay.core.wire import Bytes, UInt, make_map, open_map
from overlay.core.work.envelopes import Assignment
from overlay.core.work.workload import RUNS_MAX
from overlay.errors import Refused
from overlay.registry import Reason

RECORDS_MAX: Final = 65_536  # our guess: as many as a worker starts in a day, every 1.3 s; 10 MiB
KEPT_LONGER: Final = timedelta(hours=1)  # our guess: the clock of this machine may be set back by less
SECONDS_MAX: Final = 2**40
RECORD_BYTES: Final = 128

_FORM: Final = (Bytes(32), UInt(RUNS_MAX), Bytes(32), UInt(SECONDS_MAX))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run that this worker has started, or was about to start when it went down."""

    workload: bytes  # 32: hash
    run: int
    placement: bytes  # 32: hash
    until: int  # Unix seconds: from then on its times refuse the run anyway

    @classmethod
    def of(cls, assignment: Assignment) -> "RunRecord":
        """Of a run that is about to start."""
        placed = assignment.placement
        until = int((assignment.workload.says.not_after + TOLERANCE + KEPT_LONGER).timestamp()) + 1
        return cls(workload=placed.says.workload, run=placed.says.run, placement=placed.hash, until=until)

    def pack(self) -> bytes:
        """{0:1, 1:workload, 2:run, 3:placement, 4:until}."""
        return make_map(self.workload, self.run, self.placement, self.until)

    @classmethod
    def unpack(cls, data: bytes) -> "RunRecord":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        workload, run, placement, until = open_map(data, *_FORM, limit=RECORD_BYTES)
        return cls(workload=workload, run=run, placement=placement, until=until)


@dataclass(slots=True)
class Memory:
    """All records that still matter. `since`: what was placed before is not known, as after a restore from a backup."""

    since: datetime | None = None
    _forgot: float = 0.0  # Unix seconds: records that counted until then are dropped, and their like is refused for good
    _runs: dict[tuple[bytes, int], RunRecord] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[RunRecord], since: datetime | None = None) -> "Memory":
        """As a store gave them."""
        return cls(since, _runs={(one.workload, one.run): one for one in records})

    @property
    def count(self) -> int:
        """How many runs are remembered."""
        return len(self._runs)

    def seen(self, assignment: Assignment) -> str:
        """See `Replays` in `checks.py`."""
        says, record = assignment.placement.says, RunRecord.of(assignment)
        known = self._runs.get((says.workload, says.run))
        if known is not None:
            same = known.placement == record.placement
            return "this placement was here before" if same else f"run {says.run} was started here by another placement"
        if self.since is not None and says.not_before < self.since:
            return f"placed before {show_time(self.since)}, and what ran here before then is not known"
        if record.until <= self._forgot:
            return "the clock of this worker was later already, and what ran until then is forgotten"
        return ""

    def add(self, record: RunRecord) -> None:
        """A run that is about to start. Raises Refused(TOO_MANY) when there are too many to remember."""
        if len(self._runs) >= RECORDS_MAX:
            raise Refused(Reason.TOO_MANY, f"{RECORDS_MAX} runs are remembered already")
        self._runs[record.workload, record.run] = record

    def forget(self, at: datetime) -> None:
        """Drop what its times refuse by now."""
        self._forgot = seconds = max(self._forgot, at.timestamp())
        self._runs = {key: one for key, one in self._runs.items() if one.until > seconds}
