"""Who has the mesh's id and a proof knows who wrote an entry and who saw it; nothing else in the file is believed."""

import base64
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.chain import verify_key
from audit.checkpoint import UnverifiedCheckpoint
from audit.notes import Note
from audit.proofs import CheckedProof, Extra, check_proof
from audit.prover import prove
from audit.tlog_proof import TlogProof, parse_tlog_proof
from overlay.core.merkle import inclusion_proof, root_of
from overlay.errors import Refused, UsageError
from overlay.registry import Reason
from tests.unit.audit.audit_kit import some_log
from tests.unit.audit.proof_kit import Witnessed, witnessed_store
from tests.unit.core.authority_kit import make_mesh


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Witnessed:
    path = tmp_path_factory.mktemp("proofs") / "audit.sqlite3"
    return witnessed_store(path, checkpoints=((6, ("bob", "carol")), (9, ("bob",))))


def proof_of(world: Witnessed, seq: int) -> TlogProof:
    store = world.store()
    try:
        return prove(store, world.mesh.root, world.alice.log_id, seq)
    finally:
        store.close()


def refusal(proof: TlogProof, world: Witnessed) -> Reason:
    with pytest.raises(Refused) as caught:
        check_proof(proof, world.mesh.mesh_id)
    return caught.value.reason


def with_extra(proof: TlogProof, **changes: object) -> TlogProof:
    return replace(proof, extra=replace(Extra.unpack(proof.extra), **changes).pack())  # type: ignore[arg-type]


# --- what holds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", range(6))
def test_a_proof_holds_by_the_id_of_the_mesh_alone(world: Witnessed, seq: int) -> None:
    found = check_proof(parse_tlog_proof(proof_of(world, seq).raw), world.mesh.mesh_id)
    assert (found.entry, found.name, found.checkpoint.size) == (world.alice.entries[seq], "alice", 6)
    assert set(found.cosigned) == {world.logs[name].member.node_id for name in ("bob", "carol")}
    assert found.timely
    assert found.line.startswith(f"entry {seq} of alice, log ")
    assert "2 of 2, tolerates 0 liars" in found.line


def test_a_proof_holds_by_the_root_too(world: Witnessed) -> None:
    assert check_proof(proof_of(world, 3), world.mesh.root) == check_proof(proof_of(world, 3), world.mesh.mesh_id)


def test_where_too_few_have_cosigned_it_says_so(world: Witnessed) -> None:
    found = check_proof(proof_of(world, 7), world.mesh.mesh_id)
    assert (found.checkpoint.size, found.witnessed_at, found.timely) == (9, None, False)
    assert "witnessed by too few: 1 of 2" in found.line


def test_alone_a_log_has_proofs_that_nobody_has_witnessed(tmp_path: Path) -> None:
    world = witnessed_store(tmp_path / "audit.sqlite3", named=(), checkpoints=((6, ()),))
    found = check_proof(proof_of(world, 3), world.mesh.mesh_id)
    assert (found.witnesses.nodes, found.timely) == ((), False)
    assert "nobody has witnessed it" in found.line


def test_an_entry_that_was_witnessed_after_the_end_of_its_key_is_not_timely(tmp_path: Path) -> None:
    world = witnessed_store(tmp_path / "audit.sqlite3", checkpoints=())
    found = check_proof(proof_with(world, world.kept(6).note), world.mesh.mesh_id)
    assert found.timely
    late = replace(found, not_after=found.not_after.replace(year=2020))
    assert not late.timely
    assert "too late" in late.line


def proof_with(world: Witnessed, note: Note) -> TlogProof:
    """A proof of entry 3 under a checkpoint of size 6 with these lines."""
    found = world.checkpoint(6)
    hashes = [entry.hash for entry in world.alice.entries[:6]]
    extra = Extra(
        root=world.mesh.root.der, entry=world.alice.entries[3].raw,
        keys=tuple(log.entries[0].raw for log in world.logs.values()),
        witnesses=world.alice.entries[1].raw, witnesses_path=inclusion_proof(hashes, 1),
    )
    return TlogProof(
        index=3, path=inclusion_proof(hashes, 3), checkpoint=UnverifiedCheckpoint(found, note), extra=extra.pack()
    )


def test_an_entry_that_no_checkpoint_covers_has_no_proof_yet(world: Witnessed) -> None:
    with pytest.raises(UsageError, match="no checkpoint covers"):
        proof_of(world, 10)
    with pytest.raises(UsageError, match="no entry 99"):
        proof_of(world, 99)


# --- others can check it ----------------------------------------------------------------------------------------------


def test_the_bytes_are_those_of_the_specification(world: Witnessed) -> None:
    proof = proof_of(world, 3)
    lines = proof.raw.decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1].startswith("extra ")
    assert lines[2] == "index 3"
    end = lines.index("")
    path = [base64.b64decode(line) for line in lines[3:end]]
    assert path == list(inclusion_proof([entry.hash for entry in world.alice.entries[:6]], 3))
    note = world.kept(6).note
    assert "\n".join(lines[end + 1 :]).startswith(note.text + "\n" + note.signatures[0].line)
    assert set(lines[end + 6 : -1]) == {line.line.rstrip() for line in note.signatures[1:]}
    assert parse_tlog_proof(proof.raw) == proof


def test_the_path_is_checked_as_rfc_6962_says_with_nothing_of_ours(world: Witnessed) -> None:
    proof = proof_of(world, 3)
    node, index, last = sha256(b"\0" + world.alice.raws[3]).digest(), 3, 5
    for sibling in proof.path:
        if index & 1 or index == last:
            node = sha256(b"\1" + sibling + node).digest()
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = sha256(b"\1" + node + sibling).digest()
        index, last = index >> 1, last >> 1
    assert node == proof.checkpoint.says.root


# --- what does not hold -----------------------------------------------------------------------------------------------


def test_the_proof_of_another_mesh_is_refused(world: Witnessed) -> None:
    with pytest.raises(Refused) as caught:
        check_proof(proof_of(world, 3), make_mesh("other").mesh_id)
    assert caught.value.reason is Reason.OTHER_MESH
    with pytest.raises(Refused):
        check_proof(proof_of(world, 3), make_mesh("other").root)


def test_another_entry_is_refused(world: Witnessed) -> None:
    other = with_extra(proof_of(world, 3), entry=world.alice.raws[4])
    assert refusal(other, world) is Reason.CHAIN_BROKEN
    assert refusal(replace(proof_of(world, 3), index=2), world) is Reason.CHAIN_BROKEN
    assert refusal(with_extra(proof_of(world, 3), entry=world.logs["bob"].raws[0]), world) is Reason.BAD_ENDORSEMENT


def test_an_entry_of_the_right_place_that_is_not_in_the_tree_is_refused(world: Witnessed) -> None:
    fork = world.cut(3)
    fork.note("another story")
    assert refusal(with_extra(proof_of(world, 3), entry=fork.raws[3]), world) is Reason.CHAIN_BROKEN


def test_an_entry_of_another_log_under_this_ones_checkpoint_is_refused(world: Witnessed) -> None:
    other = some_log(4, mesh=world.mesh, start=2)
    hashes = [entry.hash for entry in world.alice.entries[:6]]
    hashes[3] = other.entries[2].hash
    head = replace(world.checkpoint(6), root=root_of(hashes))
    proof = with_extra(
        proof_of(world, 3), entry=other.raws[2], keys=(world.alice.raws[0], other.raws[0]), witnesses=None, witnesses_path=()
    )
    signed = UnverifiedCheckpoint(head, head.sign(world.alice.member.message))
    lie = replace(proof, path=inclusion_proof(hashes, 3), checkpoint=signed)
    assert refusal(lie, world) is Reason.CHAIN_BROKEN


def test_a_checkpoint_that_its_author_has_not_signed_is_refused(world: Witnessed) -> None:
    proof = proof_of(world, 3)
    note = proof.checkpoint.note
    for lines in (note.signatures[1:], (replace(note.signatures[0], signature=bytes(64)), *note.signatures[1:])):
        other = replace(proof.checkpoint, note=Note(note.text, lines))
        assert refusal(replace(proof, checkpoint=other), world) is Reason.BAD_SIGNATURE


def test_a_cosignature_of_who_is_not_named_does_not_count(tmp_path: Path) -> None:
    world = witnessed_store(tmp_path / "audit.sqlite3", named=("bob",), checkpoints=())
    found = check_proof(proof_with(world, world.kept(6).note), world.mesh.mesh_id)
    assert set(found.cosigned) == {world.logs["bob"].member.node_id}


def test_a_cosignature_of_another_time_than_its_key_does_not_count(tmp_path: Path) -> None:
    world = witnessed_store(tmp_path / "audit.sqlite3", checkpoints=())
    late = int(world.mesh.at.timestamp()) + 90_000
    assert check_proof(proof_with(world, world.kept(6, at=late).note), world.mesh.mesh_id).cosigned == {}


def test_a_forged_cosignature_is_refused(tmp_path: Path) -> None:
    world = witnessed_store(tmp_path / "audit.sqlite3", checkpoints=())
    note = world.kept(6).note
    bad = replace(note.signatures[1], signature=note.signatures[1].signature[:-1] + b"\0")
    assert refusal(proof_with(world, Note(note.text, (note.signatures[0], bad))), world) is Reason.BAD_SIGNATURE


def test_witnesses_that_the_log_does_not_name_do_not_count(world: Witnessed) -> None:
    proof = proof_of(world, 3)
    other = world.alice.sign(world.alice.entries[1].type, {0: 1, 1: []}, seq=1, prev=world.alice.entries[0].hash)
    assert refusal(with_extra(proof, witnesses=other.raw), world) is Reason.CHAIN_BROKEN
    assert refusal(with_extra(proof, witnesses=world.alice.raws[2]), world) is Reason.MALFORMED
    assert check_proof(with_extra(proof, witnesses=None, witnesses_path=()), world.mesh.mesh_id).witnesses.nodes == ()


def test_a_key_is_believed_only_as_its_log_shows_it(world: Witnessed) -> None:
    proof = proof_of(world, 3)
    keys = Extra.unpack(proof.extra).keys
    assert refusal(with_extra(proof, keys=keys[1:]), world) is Reason.BAD_ENDORSEMENT
    assert refusal(with_extra(proof, keys=(world.alice.raws[2],)), world) is Reason.MALFORMED
    forged = bytearray(keys[0])
    forged[-1] ^= 1
    assert refusal(with_extra(proof, keys=(bytes(forged), *keys[1:])), world) is Reason.BAD_SIGNATURE
    other = make_mesh("other")
    with pytest.raises(Refused):
        verify_key(world.alice.entries[0], other.root)


@pytest.fixture(scope="module")
def sample(world: Witnessed) -> tuple[bytes, CheckedProof]:
    proof = proof_of(world, 3)
    return proof.raw, check_proof(proof, world.mesh.mesh_id)


@given(st.data())
def test_whatever_is_changed_in_a_proof_it_says_the_same_or_is_refused(
    world: Witnessed, sample: tuple[bytes, CheckedProof], data: st.DataObject
) -> None:
    raw, right = sample
    changed = bytearray(raw)
    start = data.draw(st.integers(0, len(raw) - 1))
    changed[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        found = check_proof(parse_tlog_proof(bytes(changed)), world.mesh.mesh_id)
    except Refused:
        return
    assert found.entry == right.entry
    assert found.checkpoint == right.checkpoint
    assert set(found.cosigned) <= set(right.cosigned)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    for raw in (data, b"c2sp.org/tlog-proof@v1\n" + data, b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + data):
        with pytest.raises(Refused):
            parse_tlog_proof(raw)
    with pytest.raises(Refused):
        Extra.unpack(data)
