"""Whatever someone edits in a stored log, `verify` finds it and names the entry."""

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.bodies import Former, LogOpen
from audit.store import AuditStore
from audit.verifier import LogReport, verify_store
from overlay.errors import CheckFailed, StateDamaged
from overlay.registry import Reason
from tests.unit.audit.audit_kit import Writer, append_of, edit, some_log, state_after, stored_logs
from tests.unit.core.authority_kit import make_member, make_mesh

ROOT = Path(__file__).parents[3]
MESH = make_mesh()
SIZE = 4


@pytest.fixture
def log() -> Writer:
    return some_log(SIZE, mesh=MESH)


@pytest.fixture
def path(tmp_path: Path, log: Writer) -> Path:
    return stored_logs(tmp_path / "audit.sqlite3", log)


def report_of(path: Path) -> LogReport:
    (report,) = verify_store(path, MESH.root).logs
    return report


def first_bad(path: Path) -> int | None:
    """The entry that is named; the store must not hold."""
    report = report_of(path)
    assert report.fault is not None
    assert not report.holds
    return report.fault.seq


# --- what holds -------------------------------------------------------------------------------------------------------


def test_a_good_store_holds_and_says_so_in_one_line_per_log(path: Path, log: Writer) -> None:
    found = verify_store(path, MESH.root)
    assert found.holds
    root = state_after(log).root
    assert found.lines == (f"alice log {log.log_id.hex()[:8]}: 4 entries hold, root {root.hex()[:16]}",)
    found.demand()


def test_a_log_with_a_change_of_keys_holds(tmp_path: Path, log: Writer) -> None:
    log.change_to(make_member(MESH, "alice", start=2))
    log.note()
    assert report_of(stored_logs(tmp_path / "other.sqlite3", log)).size == 6


def test_a_store_is_verified_while_a_node_writes(path: Path, log: Writer) -> None:
    store = AuditStore.open(path)
    log.note()
    store.append_many([append_of(log, SIZE)])
    assert report_of(path).size == 5
    store.close()


def test_an_empty_store_holds(tmp_path: Path) -> None:
    AuditStore.open(tmp_path / "new.sqlite3").close()
    assert verify_store(tmp_path / "new.sqlite3", MESH.root).holds


# --- edits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", range(SIZE))
def test_an_edit_of_any_single_byte_of_an_entry_is_found_and_named(path: Path, log: Writer, seq: int) -> None:
    raw = log.raws[seq]
    for index in range(0, len(raw), 7):
        changed = raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]
        edit(path, "UPDATE entries SET raw = ? WHERE seq = ?", changed, seq)
        assert first_bad(path) == seq, index
    edit(path, "UPDATE entries SET raw = ? WHERE seq = ?", raw, seq)
    assert report_of(path).holds


def test_who_edits_an_entry_and_its_hash_is_found_too(path: Path, log: Writer) -> None:
    other = log.sign(log.entries[1].type, log.entries[1].body, seq=1, prev=log.entries[0].hash, hlc=log.entries[1].hlc,
                     signer=make_member(MESH, "bob").message)  # fmt: skip
    edit(path, "UPDATE entries SET raw = ?, hash = ? WHERE seq = 1", other.raw, other.hash)
    report = report_of(path)
    assert report.fault is not None
    assert (report.fault.seq, report.fault.reason) == (1, Reason.BAD_SIGNATURE)


def test_an_entry_that_its_author_signed_anew_breaks_the_next(path: Path, log: Writer) -> None:
    first = log.entries[1]
    other = log.sign(first.type, {0: "test", 1: b'"other"'}, seq=1, prev=first.prev, hlc=first.hlc)
    edit(path, "UPDATE entries SET raw = ?, hash = ? WHERE seq = 1", other.raw, other.hash)
    assert first_bad(path) == 2


@pytest.mark.parametrize(("change", "seq"), [
    ("UPDATE entries SET hash = zeroblob(32) WHERE seq = 2", 2),
    ("UPDATE entries SET hash = 'text' WHERE seq = 2", 2),
    ("UPDATE entries SET hlc = hlc + 1 WHERE seq = 2", 2),
    ("UPDATE entries SET type = 5 WHERE seq = 2", 2),
    ("UPDATE entries SET raw = 'text' WHERE seq = 2", 2),
    ("UPDATE entries SET raw = 7 WHERE seq = 2", 2),
    ("UPDATE entries SET raw = x'' WHERE seq = 2", 2),
    ("UPDATE entries SET seq = 7 WHERE seq = 2", 2),
    ("UPDATE entries SET seq = -1 WHERE seq = 0", 0),
    ("DELETE FROM entries WHERE seq = 0", 0),
    ("DELETE FROM entries WHERE seq = 1", 1),
    ("DELETE FROM entries WHERE seq = 3", 3),
    ("DELETE FROM entries", 0),
    ("UPDATE logs SET size = 5", 4),
    ("UPDATE logs SET size = 3", None),
    ("UPDATE logs SET size = 'text'", None),
    ("UPDATE logs SET root = zeroblob(32)", None),
    ("UPDATE logs SET edge = zeroblob(32)", None),
    ("UPDATE logs SET last = zeroblob(32)", None),
    ("UPDATE logs SET hlc = hlc + 1", None),
    ("UPDATE logs SET k = 1", None),
    ("UPDATE logs SET key_seq = 1", None),
    ("UPDATE logs SET node_id = zeroblob(32)", 0),
    ("UPDATE logs SET log_id = zeroblob(16)", 0),
    ("UPDATE logs SET node_id = 'text'", None),
    ("UPDATE logs SET log_id = 'text'", None),
    ("UPDATE logs SET node_id = zeroblob(31)", None),
])  # fmt: skip
def test_an_edit_of_any_column_is_found(path: Path, change: str, seq: int | None) -> None:
    edit(path, change)
    assert first_bad(path) == seq
    assert report_of(path).line


def test_two_entries_that_changed_places_are_found(path: Path) -> None:
    edit(path, "UPDATE entries SET seq = 9 WHERE seq = 1")
    edit(path, "UPDATE entries SET seq = 1 WHERE seq = 2")
    edit(path, "UPDATE entries SET seq = 2 WHERE seq = 9")
    assert first_bad(path) == 1


def test_an_entry_added_behind_the_authors_back_is_found(path: Path, log: Writer) -> None:
    edit(path, "INSERT INTO entries SELECT log, 4, hlc, type, hash, raw FROM entries WHERE seq = 3")
    assert first_bad(path) == 4


def test_a_log_whose_record_was_removed_is_found(path: Path) -> None:
    edit(path, "DELETE FROM logs")
    found = verify_store(path, MESH.root)
    assert not found.holds
    assert "4 entries belong to no log" in found.lines[0]


def test_the_logs_of_another_mesh_do_not_hold(path: Path) -> None:
    (report,) = verify_store(path, make_mesh("other").root).logs
    assert report.fault is not None
    assert report.fault.seq == 0


def test_one_bad_log_leaves_the_others(path: Path, tmp_path: Path, log: Writer) -> None:
    other = stored_logs(tmp_path / "two.sqlite3", log, some_log(3, name="bob", mesh=MESH))
    of_log = "log = (SELECT number FROM logs WHERE log_id = ?)"
    edit(other, f"UPDATE entries SET raw = zeroblob(9) WHERE seq = 2 AND {of_log}", log.log_id)
    found = verify_store(other, MESH.root)
    assert {report.name: report.holds for report in found.logs} == {"alice": False, "bob": True}


# --- incarnations -----------------------------------------------------------------------------------------------------


def next_log(log: Writer, **fields: object) -> Writer:
    """The incarnation after a log, naming its end; or another one, field by field."""
    state = state_after(log)
    former = Former(log_id=log.log_id, size=state.size, root=state.root, last=state.last, reason="clock went back")
    opening = LogOpen(k=1, credentials=log.member.credentials, former=replace(former, **fields))  # type: ignore[arg-type]
    writer = Writer.begin(log.mesh, log.member, opening)
    writer.open()
    return writer


def test_a_log_and_the_one_after_it_hold(tmp_path: Path, log: Writer) -> None:
    assert verify_store(stored_logs(tmp_path / "two.sqlite3", log, next_log(log)), MESH.root).holds


def test_a_log_that_was_cut_off_together_with_its_record_is_found_by_the_one_after_it(tmp_path: Path, log: Writer) -> None:
    later = next_log(log)
    log.entries.pop()
    first, second = verify_store(stored_logs(tmp_path / "two.sqlite3", log, later), MESH.root).logs
    assert second.holds
    assert first.fault is not None
    assert (first.fault.seq, first.affected) == (SIZE - 1, 1)


def test_a_log_whose_end_is_another_than_the_one_after_it_names_is_found(tmp_path: Path, log: Writer) -> None:
    later = next_log(log)
    log.entries.pop()
    log.note("another story")
    first, _ = verify_store(stored_logs(tmp_path / "two.sqlite3", log, later), MESH.root).logs
    assert first.fault is not None
    assert (first.fault.seq, first.fault.reason) == (SIZE - 1, Reason.FORKED)


def test_of_a_damaged_log_the_one_after_it_proves_nothing(tmp_path: Path, log: Writer) -> None:
    later = next_log(log, last=bytes(32), size=0, reason="damaged")
    assert verify_store(stored_logs(tmp_path / "two.sqlite3", log, later), MESH.root).holds


# --- what people read -------------------------------------------------------------------------------------------------


def test_the_line_says_which_entry_what_was_expected_and_what_else_is_affected(path: Path, log: Writer) -> None:
    raw = bytearray(log.raws[1])
    raw[-1] ^= 1
    edit(path, "UPDATE entries SET raw = ? WHERE seq = 1", bytes(raw))
    report = report_of(path)
    assert (report.name, report.size, report.recorded, report.affected) == ("alice", 1, 4, 3)
    assert "entry 1 does not hold: bad signature" in report.line
    assert f"expected {log.entries[1].hash.hex()}" in report.line
    assert report.line.endswith("with it 2 later entries prove nothing")
    with pytest.raises(CheckFailed, match="entry 1 does not hold") as caught:
        verify_store(path, MESH.root).demand()
    assert caught.value.hint


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_store_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StateDamaged, match="there is no audit store"):
        verify_store(tmp_path / "none.sqlite3", MESH.root)


def test_verifying_changes_nothing(path: Path) -> None:
    edit(path, "UPDATE entries SET raw = zeroblob(9) WHERE seq = 2")
    before = path.read_bytes()
    assert first_bad(path) == 2
    assert path.read_bytes() == before


@given(st.data())
def test_any_damage_to_the_file_is_found_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    log = some_log(SIZE, mesh=MESH)
    path = stored_logs(tmp_path_factory.mktemp("damage") / "audit.sqlite3", log)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.binary(min_size=1, max_size=64))
    content[start : start + len(damage)] = damage
    path.write_bytes(content)
    try:
        found = verify_store(path, MESH.root)
    except StateDamaged:
        return
    if found.holds and found.logs:
        store = AuditStore.open_readonly(path)
        assert store.read(log.log_id, 0, SIZE, limit=2**20) == log.raws
        store.close()


def test_verifying_needs_no_node_network_tpm_or_trio() -> None:
    look = "import sys, audit.verifier; print({'trio', 'overlay.net', 'zeroconf', 'tpm2_pytss'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == "set()"
