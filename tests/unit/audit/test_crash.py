"""A crash at any write or sync of a real run: the log that is found then is a beginning of the one that was written, with all
that was acknowledged.

The writes of a real process are recorded, and the disk is put together as it may be at each of them.
"""

import errno
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import audit
from audit.store import AuditStore
from tests.unit.audit.crash_kit import GCC, Disk, Lost, Row, record
from tests.unit.core.authority_kit import make_member, make_mesh

pytestmark = pytest.mark.skipif(GCC is None, reason="there is no gcc to build the recorder with")

ENTRIES = 200
MESH = make_mesh()
ALICE = make_member(MESH, "alice")
PROGRAM = """
import sys
import audit
from tests.unit.core.authority_kit import make_member, make_mesh

mesh = make_mesh()
alice = make_member(mesh, "alice")
signer = audit.LogSigner(alice.message, alice.credentials)
with audit.open_log(sys.argv[1], root=mesh.root, signer=signer, clock=lambda: mesh.at) as log:
    for number in range(int(sys.argv[2])):
        print(log.append("count", "x" * (number * 37 % 900)).seq, flush=True)
"""


@dataclass
class Run:
    """What a process did, and the log that it wrote."""

    folder: Path
    rows: list[Row]
    raws: list[bytes]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, work = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("work")
    path = folder / "audit.sqlite3"
    rows = record(folder, work, PROGRAM, str(path), str(ENTRIES))
    store = AuditStore.open_readonly(path)
    (log,) = store.logs()
    raws = [raw for start in range(0, log.size, 64) for raw in store.read(log.log_id, start, 64, limit=2**24)]
    store.close()
    assert len(raws) == ENTRIES + 1
    return Run(folder, rows, raws)


def crashes(run: Run, places: set[int]) -> Iterator[tuple[int, Disk]]:
    """The disk before each of these rows."""
    disk = Disk(run.folder)
    for place, row in enumerate(run.rows):
        if place in places:
            yield place, disk
        disk.happen(row)


def check(run: Run, folder: Path, acknowledged: int) -> None:
    """What a node finds when it starts again: it goes on, and nothing is damaged."""
    path = folder / "audit.sqlite3"
    if not path.exists():
        assert acknowledged == 0
        return
    signer = audit.LogSigner(ALICE.message, ALICE.credentials)
    with audit.open_log(path, root=MESH.root, signer=signer, clock=lambda: MESH.at) as log:
        assert log.damaged == ()
        assert log.state.k == 0
        size = log.state.size
        found = [entry.raw for entry in log.query()]
    assert found == run.raws[:size]
    assert size > acknowledged
    audit.verify(path, root=MESH.root).demand()


def crash_everywhere(run: Run, tmp_path: Path, places: set[int], seed: int) -> None:
    for place, disk in crashes(run, places):
        for lost in Lost:
            chance = random.Random(f"{seed} {place} {lost}")
            disk.write_to(tmp_path / "crash", lost, chance)
            acknowledged = len(disk.notes)
            check(run, tmp_path / "crash", acknowledged)
            shutil.rmtree(tmp_path / "crash")


def test_the_record_is_of_the_whole_run(run: Run, tmp_path: Path) -> None:
    kinds = {row.kind for row in run.rows}
    assert {"w", "s", "n"} <= kinds
    assert sum(row.kind == "s" for row in run.rows) > ENTRIES
    disk = Disk(run.folder)
    for row in run.rows:
        disk.happen(row)
    assert len(disk.notes) == ENTRIES
    disk.write_to(tmp_path / "end", Lost.ALL, random.Random(0))
    check(run, tmp_path / "end", ENTRIES)


def test_a_disk_that_lies_about_its_syncs_is_noticed_by_this_test(run: Run, tmp_path: Path) -> None:
    disk = Disk(run.folder)
    for row in run.rows:
        if row.kind != "s":
            disk.happen(row)
    disk.write_to(tmp_path / "lost", Lost.ALL, random.Random(0))
    with pytest.raises(AssertionError):
        check(run, tmp_path / "lost", ENTRIES)


def test_a_crash_at_some_writes_loses_nothing_acknowledged(run: Run, tmp_path: Path) -> None:
    crash_everywhere(run, tmp_path, set(random.Random(1).sample(range(len(run.rows)), 12)), 1)


@pytest.mark.slow
def test_a_crash_at_many_writes_loses_nothing_acknowledged(run: Run, tmp_path: Path) -> None:
    crash_everywhere(run, tmp_path, set(random.Random(2).sample(range(len(run.rows)), 250)), 2)


@pytest.mark.soak
def test_a_crash_at_every_write_loses_nothing_acknowledged(run: Run, tmp_path: Path) -> None:
    crash_everywhere(run, tmp_path, set(range(len(run.rows))), 3)


# --- a disk that fails ------------------------------------------------------------------------------------------------

FAILING = """
import sys
import audit
from overlay.errors import OverlayError
from tests.unit.core.authority_kit import make_member, make_mesh

mesh = make_mesh()
alice = make_member(mesh, "alice")
signer = audit.LogSigner(alice.message, alice.credentials)
with audit.open_log(sys.argv[1], root=mesh.root, signer=signer, clock=lambda: mesh.at) as log:
    for number in range(40):
        try:
            seq = log.append("count", number).seq
        except OverlayError as error:
            print(type(error).__name__, flush=True)
            assert log.warning
        else:
            print(seq, flush=True)
"""


@pytest.mark.parametrize(("kind", "number", "error"), [
    ("s", errno.EIO, "StateDamaged"), ("w", errno.EIO, "StateDamaged"), ("w", errno.EROFS, "StateDamaged"),
    ("w", errno.ENOSPC, "HostLacks"),
])  # fmt: skip
def test_a_disk_that_fails_is_said_and_loses_nothing_acknowledged(
    tmp_path: Path, kind: str, number: int, error: str
) -> None:
    for name in ("state", "work"):
        (tmp_path / name).mkdir()
    path = tmp_path / "state" / "audit.sqlite3"
    fail = {"FAIL_KIND": kind, "FAIL_AFTER": "60" if kind == "w" else "12", "FAIL_ERRNO": str(number)}
    rows = record(tmp_path / "state", tmp_path / "work", FAILING, str(path), fail=fail)
    told = [word for row in rows if row.kind == "n" for word in row.data.decode().split()]
    done = [int(word) for word in told if word.isdigit()]
    assert done == list(range(1, len(done) + 1))
    assert 0 < len(done) < 40
    assert set(told[len(done) :]) == {error}
    found = audit.verify(path, root=MESH.root)
    assert found.holds
    assert found.logs[0].size > len(done)
