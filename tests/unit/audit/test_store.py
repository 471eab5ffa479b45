"""The file with the logs: what was acknowledged is there, whatever happens, and a damaged file is left as it is."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from audit.chain import Append, ChainState
from audit.store import AuditStore
from overlay.errors import HostLacks, OverlayError, StateDamaged
from tests.unit.audit.audit_kit import append_of, edit, some_log, state_after, stored_logs
from tests.unit.core.authority_kit import make_member, make_mesh

ROOT = Path(__file__).parents[3]
MESH = make_mesh()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[AuditStore]:
    opened = AuditStore.open(path)
    yield opened
    opened.close()


def states_in(path: Path) -> dict[bytes, ChainState]:
    """What a node would load, with nothing damaged."""
    store = AuditStore.open_readonly(path)
    states, damaged = store.load(MESH.root)
    store.close()
    assert damaged == ()
    return states


def everything(store: AuditStore, log_id: bytes, start: int = 0) -> list[bytes]:
    return store.read(log_id, start, 256, limit=2**20)


# --- good days --------------------------------------------------------------------------------------------------------


def test_what_was_appended_is_there_when_the_file_is_opened_again(path: Path) -> None:
    alice, bob = some_log(3, mesh=MESH), some_log(5, name="bob", mesh=MESH)
    stored_logs(path, alice, bob)
    assert states_in(path) == {alice.log_id: state_after(alice), bob.log_id: state_after(bob)}
    store = AuditStore.open_readonly(path)
    assert everything(store, bob.log_id) == bob.raws
    assert everything(store, bob.log_id, 3) == bob.raws[3:]


def test_a_log_grows(path: Path, store: AuditStore) -> None:
    log = some_log(2, mesh=MESH)
    store.append_many([append_of(log)])
    log.note()
    store.append_many([append_of(log, 2)])
    assert everything(store, log.log_id) == log.raws
    assert states_in(path)[log.log_id] == state_after(log)


def test_a_log_goes_on_after_a_change_of_keys(path: Path) -> None:
    log = some_log(2, mesh=MESH)
    log.change_to(make_member(MESH, "alice", start=2))
    log.note()
    stored_logs(path, log)
    assert states_in(path)[log.log_id] == state_after(log)


def test_every_commit_reaches_the_disk_before_it_is_acknowledged(store: AuditStore) -> None:
    writer = store._writer
    assert writer is not None
    assert writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_file_is_for_its_owner_only(path: Path, store: AuditStore) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_range_is_cut_to_what_a_message_holds(store: AuditStore) -> None:
    log = some_log(5, mesh=MESH)
    store.append_many([append_of(log)])
    assert store.read(log.log_id, 1, 2, limit=2**20) == log.raws[1:3]
    assert store.read(log.log_id, 1, 4, limit=len(log.raws[1]) + 1) == log.raws[1:2]
    assert store.read(log.log_id, 0, 5, limit=1) == log.raws[:1]
    assert store.read(bytes(16), 0, 5, limit=2**20) == []


def test_others_read_while_the_node_writes(path: Path, store: AuditStore) -> None:
    log = some_log(2, mesh=MESH)
    store.append_many([append_of(log)])
    reader = AuditStore.open_readonly(path)
    with reader.snapshot():
        assert len(everything(reader, log.log_id)) == 2
        log.note()
        store.append_many([append_of(log, 2)])
        assert len(everything(reader, log.log_id)) == 2
    assert len(everything(reader, log.log_id)) == 3


def test_entries_are_shown_by_time_and_by_node(store: AuditStore) -> None:
    alice, bob = some_log(3, mesh=MESH), some_log(3, name="bob", mesh=MESH)
    store.append_many([append_of(alice), append_of(bob)])
    assert [entry.hash for entry in store.newest(node_id=alice.member.node_id)] == [one.hash for one in alice.entries]
    assert store.newest(node_id=bob.member.node_id, last=1) == [bob.entries[-1]]
    assert [entry.seq for entry in store.newest()] == [0, 0, 1, 1, 2, 2]


# --- all or none ------------------------------------------------------------------------------------------------------


def test_entries_that_do_not_follow_are_not_stored(store: AuditStore) -> None:
    log = some_log(4, mesh=MESH)
    store.append_many([append_of(some_log(2, mesh=MESH))])
    with pytest.raises(StateDamaged, match="is not at size 3"):
        store.append_many([append_of(log, 3)])
    assert everything(store, log.log_id) == log.raws[:2]


def test_of_a_commit_of_several_logs_all_is_stored_or_nothing(path: Path) -> None:
    alice, bob = some_log(2, mesh=MESH), some_log(2, name="bob", mesh=MESH)
    store = AuditStore.open(path)
    with pytest.raises(StateDamaged):
        store.append_many([append_of(alice), append_of(bob, 1)])
    store.close()
    assert states_in(path) == {}


def test_a_store_opened_to_look_at_takes_no_entries(path: Path) -> None:
    stored_logs(path, some_log(2, mesh=MESH))
    with pytest.raises(StateDamaged, match="takes no more entries"):
        AuditStore.open_readonly(path).append_many([append_of(some_log(2, name="bob", mesh=MESH))])


# --- bad days ---------------------------------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing_and_the_log_goes_on_when_there_is_room(path: Path, store: AuditStore) -> None:
    log = some_log(2, mesh=MESH)
    store.append_many([append_of(log)])
    writer = store._writer
    assert writer is not None
    ((pages,),) = writer.execute("PRAGMA page_count").fetchall()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    log.note("x" * 30_000)
    with pytest.raises(HostLacks, match="no space") as caught:
        store.append_many([append_of(log, 2)])
    assert caught.value.hint
    assert everything(store, log.log_id) == log.raws[:2]
    writer.execute("PRAGMA max_page_count = 100000")
    store.append_many([append_of(log, 2)])
    assert states_in(path)[log.log_id] == state_after(log)


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Writing beyond that fails as on a broken disk (EFBIG; Python ignores the signal)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_error_of_the_disk_stops_the_writer_and_loses_nothing(path: Path) -> None:
    log, store = some_log(2, mesh=MESH), AuditStore.open(path)
    store.append_many([append_of(log)])
    log.note("x" * 30_000)
    with files_at_most(1024), pytest.raises(StateDamaged) as caught:
        store.append_many([append_of(log, 2)])
    assert "nothing acknowledged is lost" in caught.value.hint
    with pytest.raises(StateDamaged, match="takes no more entries"):
        store.append_many([append_of(log, 2)])
    assert everything(store, log.log_id) == log.raws[:2]
    store.close()
    assert [state.size for state in states_in(path).values()] == [2]


def test_a_file_that_another_process_has_locked_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.store.BUSY_AFTER", 0.0)
    log, store = some_log(2, mesh=MESH), AuditStore.open(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OverlayError, match="locked by another process"):
        store.append_many([append_of(log)])
    other.execute("ROLLBACK")
    store.append_many([append_of(log)])
    assert len(everything(store, log.log_id)) == 2


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_that_is_no_store_is_left_as_it_is(path: Path, *, read_only: bool) -> None:
    path.write_bytes(b"these are somebody's notes\n" * 200)
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(StateDamaged) as caught:
        AuditStore.open_readonly(path) if read_only else AuditStore.open(path)
    assert caught.value.hint
    assert path.read_bytes() == before


def test_a_store_of_another_format_is_left_as_it_is(path: Path) -> None:
    stored_logs(path, some_log(2, mesh=MESH))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StateDamaged, match="format 2"):
        AuditStore.open(path)
    assert path.read_bytes() == before


def test_a_store_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "missing" / "audit.sqlite3", tmp_path, tmp_path / "link"):
        with pytest.raises(StateDamaged, match="cannot open"):
            AuditStore.open(path)
    assert not (tmp_path / "elsewhere").exists()


def test_there_is_nothing_to_look_at_before_a_node_ran(path: Path) -> None:
    with pytest.raises(StateDamaged, match="there is no audit store"):
        AuditStore.open_readonly(path)
    assert not path.exists()


@pytest.mark.parametrize("change", [
    "UPDATE logs SET size = 2", "UPDATE logs SET root = zeroblob(32)", "UPDATE logs SET edge = zeroblob(64)",
    "UPDATE logs SET last = zeroblob(32)", "UPDATE logs SET hlc = 7", "UPDATE logs SET node_id = zeroblob(32)",
    "UPDATE logs SET node_id = 'text'", "UPDATE logs SET key_seq = 1", "UPDATE logs SET key_seq = 7",
    "UPDATE logs SET edge = x'00'", "UPDATE entries SET raw = zeroblob(200) WHERE seq = 2",
    "UPDATE entries SET raw = (SELECT raw FROM entries WHERE seq = 1) WHERE seq = 2", "DELETE FROM entries WHERE seq = 2",
    "DELETE FROM entries", "UPDATE entries SET raw = 'text' WHERE seq = 2",
])  # fmt: skip
def test_a_log_whose_end_was_changed_is_not_loaded(path: Path, change: str) -> None:
    log = some_log(3, mesh=MESH)
    edit(stored_logs(path, log), change)
    store = AuditStore.open_readonly(path)
    states, damaged = store.load(MESH.root)
    store.close()
    assert states == {}
    assert [one.row.log_id for one in damaged] == [log.log_id]


def test_a_damaged_log_does_not_take_others_with_it(path: Path) -> None:
    alice, bob = some_log(3, mesh=MESH), some_log(3, name="bob", mesh=MESH)
    stored_logs(path, alice, bob)
    edit(path, "DELETE FROM entries WHERE seq = 2 AND log = (SELECT number FROM logs WHERE log_id = ?)", alice.log_id)
    store = AuditStore.open_readonly(path)
    states, damaged = store.load(MESH.root)
    assert (list(states), len(damaged)) == ([bob.log_id], 1)


# --- kill -9 ----------------------------------------------------------------------------------------------------------

APPENDER = """
import sys
from pathlib import Path
from audit.chain import Append, extend
from audit.store import AuditStore
from tests.unit.audit.audit_kit import some_log, start_of

log, store = some_log(1), AuditStore.open(Path(sys.argv[1]))
state = start_of(log)
while True:
    extension = extend(state, [log.entries[-1].raw], log.mesh.root, at=None)
    state = extension.state
    store.append_many([Append(state=state, entries=extension.entries)])
    print(state.size, flush=True)
    log.note()
"""


def test_a_kill_during_appends_loses_nothing_acknowledged(path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(50)]
        child.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout.read().split("\n")[:-1]]
    AuditStore.open(path).close()  # as a node does when it starts again
    (state,) = states_in(path).values()
    assert acknowledged == list(range(1, len(acknowledged) + 1))
    assert state.size >= acknowledged[-1]


def test_an_append_is_what_its_state_says() -> None:
    log = some_log(2, mesh=MESH)
    assert append_of(log, 1) == Append(state=state_after(log), entries=(log.entries[1],))
