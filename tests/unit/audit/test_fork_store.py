"""Fork proofs on the disk: one of each node, judged for the time at which it was found."""

from datetime import timedelta
from pathlib import Path

from audit.forks import make_fork
from audit.kept_forks import KeptFork, known_forks
from audit.store import AuditStore
from overlay.registry import ForkKind
from tests.unit.audit.audit_kit import edit
from tests.unit.audit.fork_kit import Forker, entry_side
from tests.unit.core.authority_kit import make_mesh

MESH = make_mesh()
EVE, MAL = Forker.after(3, mesh=MESH), Forker.after(3, mesh=MESH, name="mal")


def kept(forker: Forker, seq: int = 3) -> KeptFork:
    raw = make_fork(ForkKind.ENTRIES, entry_side(forker.left, seq), entry_side(forker.right, seq))
    return KeptFork(node_id=forker.member.node_id, at=MESH.at, raw=raw)


def store_with(path: Path, *forks: KeptFork) -> list[KeptFork]:
    store = AuditStore.open(path / "audit.sqlite3")
    store.append_many([], forks)
    store.close()
    return read(path)


def read(path: Path) -> list[KeptFork]:
    store = AuditStore.open_readonly(path / "audit.sqlite3")
    try:
        return store.forks()
    finally:
        store.close()


def test_proofs_outlive_a_restart(tmp_path: Path) -> None:
    found = store_with(tmp_path, kept(EVE), kept(MAL))
    assert found == sorted([kept(EVE), kept(MAL)], key=lambda one: one.node_id)
    assert {proof.name for proof in known_forks(found, MESH.root)} == {"eve", "mal"}


def test_of_each_node_the_first_proof_is_kept(tmp_path: Path) -> None:
    store_with(tmp_path, kept(EVE))
    assert store_with(tmp_path, kept(EVE, 4)) == [kept(EVE)]


def test_a_proof_still_holds_when_its_keys_have_ended(tmp_path: Path) -> None:
    """It is judged for the time at which it was found; nobody else's word is taken for that time."""
    late = KeptFork(node_id=EVE.member.node_id, at=MESH.at + timedelta(days=9), raw=kept(EVE).raw)
    assert known_forks([late], MESH.root) == []
    assert known_forks(store_with(tmp_path, kept(EVE)), MESH.root)


def test_edited_rows_accuse_nobody(tmp_path: Path) -> None:
    store_with(tmp_path, kept(EVE), kept(MAL))
    edit(tmp_path / "audit.sqlite3", "UPDATE forks SET raw = x'00' WHERE node_id = ?", bytes(EVE.member.node_id))
    edit(tmp_path / "audit.sqlite3", "UPDATE forks SET node_id = zeroblob(32) WHERE node_id = ?", bytes(MAL.member.node_id))
    assert known_forks(read(tmp_path), MESH.root) == []
    edit(tmp_path / "audit.sqlite3", "UPDATE forks SET at = 'then'")
    assert read(tmp_path) == []
