"""What a node remembers of its upkeep: each alarm is given once, also over restarts, and a share is as old as it is."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.alarms import Lifelong, Mortal, Stage
from overlay.core.authority.upkeep_record import UpkeepRecord
from overlay.core.certificate_profile import Life
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import DAY, NOW

ROOT = Mortal(Lifelong.ROOT, "root 0", Life.between(NOW, NOW + 100 * DAY))
TOKEN = Mortal(Lifelong.TOKEN, "token 1", Life.between(NOW, NOW + 8 * DAY))


def after(record: UpkeepRecord, days: float) -> tuple[UpkeepRecord, list[tuple[str, Stage]]]:
    """The record after a look at that time, read from the disk again, and what was said."""
    things = (ROOT, TOKEN)
    due = record.due(things, NOW + days * DAY)
    told = [(one.of.name, one.stage) for one in due]
    return UpkeepRecord.unpack(record.with_told(due, things).pack()), told


def test_each_stage_of_each_object_is_told_once_also_over_restarts() -> None:
    record, said = UpkeepRecord(), []
    for days in (0, 3, 4, 5, 6, 7, 8, 40, 50, 60, 75, 80, 99):
        record, told = after(record, days)
        said += told
    assert said == [
        ("token 1", Stage.HALF), ("token 1", Stage.LATE), ("token 1", Stage.ENDED),
        ("root 0", Stage.HALF), ("root 0", Stage.LATE),
    ]


def test_a_clock_that_is_set_back_tells_nothing_twice() -> None:
    record, told = after(UpkeepRecord(), 60)
    assert ("root 0", Stage.HALF) in told
    assert after(record, 10)[1] == [] and after(after(record, 10)[0], 60)[1] == []


def test_what_is_gone_is_forgotten() -> None:
    record, _ = after(UpkeepRecord(), 60)
    assert {name for _, name in record.with_told((), (ROOT,)).told} == {"root 0"}


def test_a_share_is_as_old_as_its_generation() -> None:
    first = UpkeepRecord().with_share(bytes(32), 0, NOW)
    assert first == UpkeepRecord(), "none is none"
    first = UpkeepRecord().with_share(b"r" * 32, 0, NOW + timedelta(microseconds=7))
    assert (first.since, first.repaired) == (NOW, False)
    assert first.with_share(b"r" * 32, 0, NOW + DAY) is first
    for again in (first.with_share(b"r" * 32, 1, NOW + DAY), first.with_share(b"s" * 32, 0, NOW + DAY)):
        assert again.since == NOW + DAY
    repaired = UpkeepRecord.unpack(replace(first, repaired=True).pack())
    assert repaired.repaired and not repaired.with_share(b"r" * 32, 1, NOW + DAY).repaired


@pytest.mark.parametrize(
    "rows", [[["cat", "x", 50]], [["root", "x", 51]], [["root", "x" * 200, 50]]]
)
def test_what_is_no_record_is_refused(rows: list[object]) -> None:
    with pytest.raises(Refused) as refused:
        UpkeepRecord.unpack(make_map(bytes(32), 0, 0, 0, rows, None))
    assert refused.value.reason is Reason.MALFORMED


@given(st.binary(max_size=100))
def test_any_bytes_are_a_record_or_refused(data: bytes) -> None:
    try:
        record = UpkeepRecord.unpack(data)
    except Refused:
        return
    assert record.pack() == data
