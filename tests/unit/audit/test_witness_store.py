"""What the store keeps of checkpoints, beside entries and in the same commits."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from audit.checkpoint import Checkpoint
from audit.kept import DropCheckpoints, KeptCheckpoint, with_lines
from audit.notes import NoteSignature
from audit.store import AuditStore
from audit.verifier import verify_store
from audit.witness import Cosigned
from overlay.core.merkle import Tree, root_of
from overlay.errors import StateDamaged
from tests.unit.audit.audit_kit import append_of, edit, some_log, state_after, stored_logs
from tests.unit.core.authority_kit import make_member, make_mesh

MESH = make_mesh()
BOB = make_member(MESH, "bob", witness=True)
LOG = some_log(9, mesh=MESH)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.sqlite3"


def checkpoint(size: int) -> Checkpoint:
    root = root_of([entry.hash for entry in LOG.entries[:size]])
    return Checkpoint(mesh_id=MESH.mesh_id, node_id=LOG.member.node_id, log_id=LOG.log_id, size=size, root=root)


def kept(size: int, *more: NoteSignature) -> KeptCheckpoint:
    one = checkpoint(size)
    tree = Tree().extend(entry.hash for entry in LOG.entries[:size])
    return KeptCheckpoint(checkpoint=one, tree=tree, note=one.sign(LOG.member.message).with_signatures(*more))


def cosigned(size: int, at: int = 1_700_000_000) -> Cosigned:
    assert BOB.witness is not None
    note = kept(size, checkpoint(size).cosign(BOB.node_id, BOB.witness, at)).note
    return Cosigned(checkpoint=checkpoint(size), at=at, note=note.raw)


def test_checkpoints_are_kept_and_found_the_largest_first(path: Path) -> None:
    store = AuditStore.open(path)
    store.append_many([append_of(LOG)], [kept(5), kept(8), kept(3)])
    store.append_many([], [DropCheckpoints((kept(3).key,)), kept(5, checkpoint(5).cosign(BOB.node_id, LOG.member.message, 7))])
    assert [one.checkpoint.size for one in store.checkpoints(LOG.log_id)] == [8, 5]
    assert store.checkpoints(LOG.log_id, from_size=6) == store.checkpoints(LOG.log_id, newest=1) == [kept(8)]
    assert len(store.checkpoints(LOG.log_id)[1].note.signatures) == 2
    assert store.checkpoints(bytes(16)) == []
    store.close()
    assert verify_store(path, MESH.root).holds


@pytest.mark.parametrize("with_checkpoint", [False, True])
def test_the_tree_of_any_size_is_found(path: Path, *, with_checkpoint: bool) -> None:
    store = AuditStore.open(path)
    store.append_many([append_of(LOG)], [kept(5)] if with_checkpoint else [])
    for size in range(len(LOG.entries) + 1):
        assert store.tree_at(LOG.log_id, size).root == root_of([entry.hash for entry in LOG.entries[:size]])
    assert store.tree_at(LOG.log_id, len(LOG.entries)) == state_after(LOG).tree
    with pytest.raises(StateDamaged, match="lacks entries"):
        store.tree_at(LOG.log_id, 10)
    store.close()


def test_what_was_cosigned_never_shrinks(path: Path) -> None:
    store = AuditStore.open(path)
    store.append_many([], [cosigned(5)])
    store.append_many([], [cosigned(8, 1_700_000_001)])
    with pytest.raises(StateDamaged, match="no smaller size"):
        store.append_many([], [cosigned(8, 1_700_000_002)])
    store.close()
    again = AuditStore.open(path)
    assert again.cosigned() == [cosigned(8, 1_700_000_001)]
    again.close()


@pytest.mark.parametrize("statement", [
    "UPDATE cosigned SET note = x'00'", "UPDATE cosigned SET node_id = x'00'", "UPDATE cosigned SET log_id = x'00'",
    "UPDATE cosigned SET at = 'never'", "UPDATE cosigned SET note = 1",
])  # fmt: skip
def test_a_witness_whose_memory_was_edited_does_not_go_on_with_it(path: Path, statement: str) -> None:
    store = AuditStore.open(path)
    store.append_many([], [cosigned(5)])
    store.close()
    edit(path, statement)
    store = AuditStore.open(path)
    with pytest.raises(StateDamaged, match="has cosigned"):
        store.cosigned()
    store.close()


@pytest.mark.parametrize("statement", [
    "UPDATE checkpoints SET note = x'00'", "UPDATE checkpoints SET edge = x'00'", "UPDATE checkpoints SET edge = 'a'",
    "UPDATE checkpoints SET log_id = x'00'",
])  # fmt: skip
def test_a_checkpoint_that_was_edited_is_left_out(path: Path, statement: str) -> None:
    store = AuditStore.open(path)
    store.append_many([append_of(LOG)], [kept(5)])
    store.close()
    edit(path, statement)
    store = AuditStore.open_readonly(path)
    assert store.checkpoints(LOG.log_id) == store.checkpoints(b"\0") == []
    assert store.tree_at(LOG.log_id, 7).size == 7
    store.close()


def test_a_store_of_the_version_before_is_read_as_it_is_and_gets_the_tables_when_a_node_opens_it(path: Path) -> None:
    stored_logs(path, LOG)
    connection = sqlite3.connect(path)
    for what in ("TABLE checkpoints", "TABLE cosigned", "TABLE forks", "INDEX entries_with_witnesses"):
        connection.execute(f"DROP {what}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    old = AuditStore.open_readonly(path)
    assert (old.checkpoints(LOG.log_id), old.cosigned(), old.with_witnesses()) == ([], [], [])
    assert old.tree_at(LOG.log_id, 9) == state_after(LOG).tree
    old.close()
    assert verify_store(path, MESH.root).holds
    new = AuditStore.open(path)
    new.append_many([], [kept(5), cosigned(5)])
    assert len(new.checkpoints(LOG.log_id)) == len(new.cosigned()) == 1
    new.close()


def test_the_lines_of_several_notes_come_together_once_each() -> None:
    assert BOB.witness is not None
    one, other = (checkpoint(5).cosign(BOB.node_id, key, 7) for key in (BOB.witness, BOB.message))
    author = kept(5).note
    found = with_lines(author, [author.with_signatures(one), author.with_signatures(one, other), kept(6, one).note])
    assert found.signatures == (*author.signatures, one, other)
    changed = replace(one, signature=bytes(72))
    assert with_lines(author.with_signatures(one), [author.with_signatures(changed)]).signatures == (*author.signatures, one)
