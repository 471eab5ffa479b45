"""Seeds for `work_targets.py`: envelopes of every kind, and payloads that their authors sign there."""

from collections.abc import Iterator

from overlay.core.work.envelopes import Assignment
from overlay.core.work.records import RunRecord
from tests.fuzz.work_targets import PLACEMENT, WORKLOAD
from tests.unit.core.work.work_kit import make_workload, report, sign, sign_both

AS_IT_IS, PLACED, WANTED = b"\0", b"\1", b"\3"


def work() -> Iterator[bytes]:
    half = sign(make_workload(second=sign_both().says.second))
    for carried in (WORKLOAD, half, PLACEMENT, report(PLACEMENT), RunRecord.of(Assignment(WORKLOAD, PLACEMENT))):
        yield AS_IT_IS + carried.pack()
    yield PLACED + PLACEMENT.says.pack()
    yield WANTED + WORKLOAD.says.pack()
