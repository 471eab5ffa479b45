"""What a worker remembers of runs: nothing that has started is forgotten, whatever happens to the machine."""

import random
import shutil
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from overlay.core.work.book import Declined, WorkBook
from overlay.core.work.records import RunRecord
from overlay.errors import OverlayError, StateDamaged
from overlay.registry import Reason
from overlay.store.work import WorkStore
from tests.unit.audit.crash_kit import GCC, Disk, Lost, record
from tests.unit.core.authority_kit import DAY, NOW
from tests.unit.core.work.work_kit import MINUTE, assign, make_workload, report, sign, view


def make_record(run: int = 1, workload: bytes = bytes(32)) -> RunRecord:
    return RunRecord(workload=workload, run=run, placement=run.to_bytes(32, "big"), until=int(NOW.timestamp()))


def test_a_placement_is_refused_after_a_restart_of_the_worker(tmp_path: Path) -> None:
    assignment = assign()
    store = WorkStore.open(tmp_path / "work.sqlite3", NOW)
    store.add(RunRecord.of(assignment), assignment.pack())
    store.close()
    again = WorkStore.open(tmp_path / "work.sqlite3", NOW + MINUTE)
    book = WorkBook(again.records(), since=again.since)
    event = book.receive(assignment.pack(), view(), 0.0, NOW)
    assert isinstance(event, Declined) and event.reason is Reason.WORK_REPLAYED
    again.close()


def test_a_worker_that_has_lost_its_memory_refuses_what_was_placed_before(tmp_path: Path) -> None:
    store = WorkStore.open(tmp_path / "work.sqlite3", NOW + MINUTE)
    event = WorkBook(store.records(), since=store.since).receive(assign().pack(), view(), 0.0, NOW + MINUTE)
    assert isinstance(event, Declined) and event.reason is Reason.WORK_REPLAYED
    store.close()


def test_a_run_is_kept_once_whichever_placement_brings_it(tmp_path: Path) -> None:
    store = WorkStore.open(tmp_path / "work.sqlite3", NOW)
    store.add(make_record(), b"a")
    for again in (make_record(), RunRecord(workload=bytes(32), run=1, placement=b"p" * 32, until=0)):
        with pytest.raises(OverlayError):
            store.add(again, b"b")
    assert [one.assignment for one in store.runs()] == [b"a"]
    store.close()


def test_results_are_found_again_and_forgotten_after_a_week(tmp_path: Path) -> None:
    store = WorkStore.open(tmp_path / "work.sqlite3", NOW)
    assignment = assign(sign(make_workload(runs=2)))
    result = report(assignment.placement).pack()
    row = RunRecord.of(assignment)
    store.add(row, assignment.pack())
    assert [one.result for one in store.runs()] == [None]
    assert [one.record for one in store.unfinished()] == store.records() == [row]
    store.finish(row.placement, result)
    found = store.find(row.placement)
    assert found is not None and (found.assignment, found.result) == (assignment.pack(), result)
    assert store.unfinished() == [] and store.find(bytes(32)) is None
    store.forget(NOW + DAY)
    assert [(one.record, one.result) for one in store.runs()] == [(row, result)]
    store.forget(NOW + 8 * DAY)
    assert store.runs() == []
    store.close()


def test_since_when_it_remembers_is_kept(tmp_path: Path) -> None:
    for later in (0, 100):
        store = WorkStore.open(tmp_path / "work.sqlite3", NOW + timedelta(seconds=later))
        assert store.since == NOW
        store.close()
    assert (tmp_path / "work.sqlite3").stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_read_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "work.sqlite3"
    store = WorkStore.open(path, NOW)
    with sqlite3.connect(path) as other:
        other.execute("INSERT INTO runs VALUES ('text', 'text', 1, 1, 'text', NULL)")
    other.close()
    with pytest.raises(StateDamaged, match=r"work\.sqlite3 cannot be read") as caught:
        store.records()
    with pytest.raises(StateDamaged, match="other types"):
        store.runs()
    assert "nobody knows" in caught.value.hint
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE runs")
    other.close()
    with pytest.raises(StateDamaged):
        store.records()
    with pytest.raises(OverlayError, match="takes nothing more"):
        store.add(make_record(), b"a")
    store.close()
    path.write_bytes(b"no database" * 100)
    with pytest.raises(StateDamaged):
        WorkStore.open(path, NOW)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateDamaged, match="cannot open"):
        WorkStore.open(path, NOW)


# --- a crash at any write -----------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from overlay.core.work.records import RunRecord
from overlay.store.work import WorkStore

store = WorkStore.open(Path(sys.argv[1]), datetime(2026, 3, 1, 12, tzinfo=UTC))
for run in range(1, 31):
    store.add(RunRecord(workload=bytes(32), run=run, placement=run.to_bytes(32, "big"), until=2**33), b"x" * (run * 97 % 900))
    print(run, flush=True)
store.close()
"""


@pytest.mark.skipif(GCC is None, reason="there is no gcc to build the recorder with")
def test_no_crash_makes_a_worker_forget_a_run_that_it_was_allowed_to_start(tmp_path: Path) -> None:
    folder, work, crash = tmp_path / "state", tmp_path / "work", tmp_path / "crash"
    folder.mkdir()
    work.mkdir()
    rows = record(folder, work, PROGRAM, str(folder / "work.sqlite3"))
    places, disk = set(random.Random(1).sample(range(len(rows)), 40)), Disk(folder)
    for place, row in enumerate(rows):
        for lost in Lost if place in places else ():
            disk.write_to(crash, lost, random.Random(f"{place} {lost}"))
            allowed = [int(note) for note in disk.notes]
            if allowed or (crash / "work.sqlite3").exists():
                store = WorkStore.open(crash / "work.sqlite3", NOW)
                assert {one.run for one in store.records()} >= set(allowed)
                store.close()
            shutil.rmtree(crash)
        disk.happen(row)
    assert len(disk.notes) == 30
