"""What was pruned is gone, and nothing else: hashes, keys and every proof stay, and nobody can pass off an edit as pruning."""

from pathlib import Path

import pytest

from audit.bundle import write_bundle
from audit.proofs import check_proof
from audit.prover import prove
from audit.store import AuditStore
from audit.verifier import LogReport, verify_store
from overlay.errors import StateDamaged, UsageError
from tests.unit.audit.audit_kit import edit
from tests.unit.audit.proof_kit import Witnessed, witnessed_store

BELOW = 6
OF_ALICE = "log = (SELECT number FROM logs WHERE log_id = ?)"


@pytest.fixture
def world(tmp_path: Path) -> Witnessed:
    found = witnessed_store(tmp_path / "audit.sqlite3", checkpoints=((8, ("bob", "carol")),))
    store = AuditStore.open(found.path)
    store.prune(found.alice.log_id, BELOW)
    store.shrink()
    store.close()
    return found


def report_of(world: Witnessed) -> LogReport:
    (report,) = [one for one in verify_store(world.path, world.mesh.root).logs if one.log_id == world.alice.log_id]
    return report


def test_a_pruned_log_holds_and_says_that_it_was_pruned(world: Witnessed) -> None:
    report = report_of(world)
    assert (report.holds, report.size, report.pruned) == (True, 12, BELOW)
    assert "contents below 6 were pruned" in report.line


def test_the_opening_and_the_entry_with_witnesses_stay(tmp_path: Path) -> None:
    found = witnessed_store(tmp_path / "audit.sqlite3", checkpoints=())
    store = AuditStore.open(found.path)
    assert store.prune(found.alice.log_id, BELOW) == BELOW - 2
    assert store.prune(found.alice.log_id, BELOW) == 0
    store.close()


def test_its_contents_are_gone_from_the_file(world: Witnessed) -> None:
    content = world.path.read_bytes()
    for seq, raw in enumerate(world.alice.raws):
        assert (raw[-64:] in content) == (seq in {0, 1} or seq >= BELOW)  # its signature


def test_proofs_of_what_is_left_hold_and_a_node_goes_on_from_there(world: Witnessed) -> None:
    store = world.store()
    for seq in (0, 1, 6, 7):
        found = check_proof(prove(store, world.mesh.root, world.alice.log_id, seq), world.mesh.mesh_id)
        assert (found.entry, found.timely) == (world.alice.entries[seq], True)
    with pytest.raises(UsageError, match="no entry 3"):
        prove(store, world.mesh.root, world.alice.log_id, 3)
    states, damaged = store.load(world.mesh.root)
    assert damaged == ()
    assert states[world.alice.log_id].last == world.alice.entries[-1].hash
    assert store.read(world.alice.log_id, 0, 99, limit=2**20) == world.alice.raws[:2]
    assert store.read(world.alice.log_id, 3, 99, limit=2**20) == []
    store.close()


def test_a_pruned_log_is_not_exported(world: Witnessed, tmp_path: Path) -> None:
    store = world.store()
    with pytest.raises(UsageError, match="were pruned"):
        write_bundle(store, world.mesh.root, tmp_path / "x.zip", world.mesh.at)
    assert not (tmp_path / "x.zip").exists()
    store.close()


@pytest.mark.parametrize(("change", "seq"), [
    ("UPDATE entries SET raw = x'' WHERE seq = 7", 7), ("UPDATE entries SET raw = x'' WHERE seq = 1", 1),
    ("UPDATE entries SET hlc = 1 WHERE seq = 4", 4), ("UPDATE entries SET hash = 'x' WHERE seq = 4", 4),
    ("UPDATE entries SET hash = zeroblob(32) WHERE seq = 5", 6), ("DELETE FROM entries WHERE seq = 3", 3),
    ("DELETE FROM pruned", 2), ("UPDATE pruned SET below = 'x'", 2),
])  # fmt: skip
def test_an_edit_does_not_pass_for_pruning(world: Witnessed, change: str, seq: int) -> None:
    edit(world.path, f"{change} {'AND' if 'WHERE' in change else 'WHERE'} {OF_ALICE}", world.alice.log_id)
    report = report_of(world)
    assert report.fault is not None
    assert report.fault.seq == seq


def test_more_than_witnesses_have_seen_does_not_pass_for_pruning(world: Witnessed) -> None:
    edit(world.path, "UPDATE pruned SET below = 11")
    edit(world.path, f"UPDATE entries SET raw = x'' WHERE seq < 11 AND seq > 1 AND {OF_ALICE}", world.alice.log_id)
    report = report_of(world)
    assert report.fault is not None
    assert "no witnessed checkpoint vouches" in report.fault.detail


def test_without_its_checkpoint_a_pruned_log_does_not_hold(world: Witnessed) -> None:
    edit(world.path, "DELETE FROM checkpoints")
    report = report_of(world)
    assert report.fault is not None
    assert "vouches" in report.fault.detail


def test_a_store_opened_to_look_at_is_not_pruned(world: Witnessed) -> None:
    store = world.store()
    with pytest.raises(StateDamaged):
        store.prune(world.alice.log_id, 3)
    store.close()
