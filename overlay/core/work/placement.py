"""Where a run of a workload was placed, before the scheduler has signed it.

    placement = {0:1, 1:scheduler, 2:H(workload), 3:run, 4:worker, 5:not_before, 6:not_after, 7:nonce16}

H(workload) is SHA-256 of all COSE bytes of the workload: a scheduler never encodes it anew. Times are Unix seconds.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from overlay.core.keys import NodeId
from overlay.core.policy_parts import TIME_MAX
from overlay.core.wire import Bytes, UInt, make_map, malformed, open_map
from overlay.core.work.workload import RUNS_MAX, read_time

PLACEMENT_MAX: Final = 256  # bytes of the payload, rounded up
NONCE_SIZE: Final = 16
LIFE_MAX: Final = timedelta(hours=1)  # our guess: a worker starts at once or not at all
LIFE: Final = timedelta(minutes=5)  # our guess, for who does not say

_FORM: Final = (Bytes(32), Bytes(32), UInt(RUNS_MAX), Bytes(32), UInt(TIME_MAX), UInt(TIME_MAX), Bytes(NONCE_SIZE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One run on one worker. It must start before `not_after`; how long it runs is the workload's affair."""

    scheduler: NodeId
    workload: bytes  # 32: hash of its COSE bytes
    run: int  # from 1
    worker: NodeId
    not_before: datetime  # whole seconds
    not_after: datetime
    nonce: bytes  # 16, by chance

    def pack(self) -> bytes:
        """The payload, which is signed."""
        times = int(self.not_before.timestamp()), int(self.not_after.timestamp())
        return make_map(self.scheduler, self.workload, self.run, self.worker, *times, self.nonce)

    @classmethod
    def unpack(cls, payload: bytes) -> "Placement":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        scheduler, workload, run, worker, begin, end, nonce = open_map(payload, *_FORM, limit=PLACEMENT_MAX)
        found = cls(
            scheduler=NodeId(scheduler), workload=workload, run=run, worker=NodeId(worker), not_before=read_time(begin),
            not_after=read_time(end), nonce=nonce,
        )  # fmt: skip
        if not run:
            malformed("runs are numbered from 1")
        if not timedelta(0) < found.not_after - found.not_before <= LIFE_MAX:
            malformed(f"a placement lives at most {LIFE_MAX}")
        return found
