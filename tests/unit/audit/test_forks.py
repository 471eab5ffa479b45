"""Fork proofs: what proves that a node has told two stories, and what proves nothing."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from audit.bodies import Former, LogOpen
from audit.entry import sign_entry
from audit.fork_sides import Side
from audit.forks import FORK_PROOF_MAX, UnverifiedFork, make_fork, parse_fork
from overlay.core.merkle import Tree
from overlay.core.wire import decode, encode, make_map
from overlay.errors import Refused
from overlay.registry import GENESIS, EntryType, ForkKind, Reason
from tests.unit.audit.audit_kit import Writer, some_log
from tests.unit.audit.fork_kit import (
    Forker,
    another_start,
    check,
    entry_side,
    head_of,
    head_side,
    leaf_side,
    note_of,
)
from tests.unit.core.authority_kit import DAY, make_member, make_mesh

MESH = make_mesh()
EVE = Forker.after(3, mesh=MESH)
BOB = Forker.after(3, mesh=MESH, name="bob")


def second_log(k: int = 1, *, start: int = 2, size: int = 3) -> Writer:
    """Another log of eve's."""
    member = another_start(MESH, start=start)
    former = Former(log_id=bytes(16), size=size, root=Tree().root, last=GENESIS, reason="damaged")
    writer = Writer.begin(MESH, member, LogOpen(k=k, credentials=member.credentials, former=former))
    writer.open()
    return writer


def refusal(question: Callable[[], object]) -> Reason:
    with pytest.raises(Refused) as refused:
        question()
    return refused.value.reason


PROOFS = {
    ForkKind.ENTRIES: EVE.proof(),
    ForkKind.OPENINGS: make_fork(ForkKind.OPENINGS, entry_side(second_log(), 0), entry_side(second_log(start=3), 0)),
    ForkKind.HEADS: make_fork(ForkKind.HEADS, head_side(EVE.left, 5), head_side(EVE.right, 5)),
    ForkKind.LEAVES: make_fork(ForkKind.LEAVES, leaf_side(EVE.left, 5, 3), leaf_side(EVE.right, 4, 3)),
    ForkKind.ENTRY_AND_LEAF: make_fork(ForkKind.ENTRY_AND_LEAF, entry_side(EVE.left, 4), leaf_side(EVE.right, 5, 4)),
}


# --- what proves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PROOFS)
def test_each_kind_is_proven_by_the_mesh_root_alone(kind: ForkKind) -> None:
    found = check(PROOFS[kind], MESH)
    assert (found.kind, found.node_id, found.name) == (kind, EVE.member.node_id, "eve")
    assert found.until == EVE.member.peer.certificate.not_after
    assert parse_fork(PROOFS[kind]).accused == EVE.member.node_id


def test_what_was_done_is_said_in_words() -> None:
    log = EVE.left.log_id.hex()
    assert check(PROOFS[ForkKind.ENTRIES], MESH).detail == f"two entries number 3 in log {log}"
    assert check(PROOFS[ForkKind.HEADS], MESH).detail == f"two roots of log {log} at size 5"
    leaves = f"two entries number 3 under heads of log {log}, of sizes "
    assert check(PROOFS[ForkKind.LEAVES], MESH).detail in {f"{leaves}5 and 4", f"{leaves}4 and 5"}
    entry = f"an entry number 4 in log {log}, and another one under its head of size 5"
    assert check(PROOFS[ForkKind.ENTRY_AND_LEAF], MESH).detail == entry
    assert check(PROOFS[ForkKind.OPENINGS], MESH).detail.startswith("two logs with number 1: ")


def test_two_sides_that_are_alike_in_form_make_one_proof() -> None:
    for make in (lambda log: entry_side(log, 3), lambda log: head_side(log, 5), lambda log: leaf_side(log, 5, 3)):
        one, other = make(EVE.left), make(EVE.right)
        assert make_fork(ForkKind.ENTRIES, one, other) == make_fork(ForkKind.ENTRIES, other, one)


def test_an_entry_signed_twice_with_other_bytes_is_a_fork() -> None:
    """One key can sign one payload in two valid ways; honest nodes sign once."""
    writer = some_log(2, name="eve", mesh=MESH)
    twin = some_log(2, name="eve", mesh=MESH)
    twin.entries[1] = twin.sign(EntryType.APPLICATION, {0: "test", 1: b'"other"'}, seq=1, prev=twin.entries[0].hash)
    assert check(make_fork(ForkKind.ENTRIES, entry_side(writer, 1), entry_side(twin, 1)), MESH).kind is ForkKind.ENTRIES


def test_two_starts_of_one_node_can_fork_one_log() -> None:
    later = another_start(MESH)
    fork = sign_entry(
        replace(EVE.left.place, seq=4), EntryType.APPLICATION, {0: "x", 1: b"1"}, signer=later.message, kid=later.kid,
        mesh_id=MESH.mesh_id,
    )
    raw = make_fork(ForkKind.ENTRIES, entry_side(EVE.left, 4), Side.of_entry(fork.raw, later.credentials))
    assert check(raw, MESH).node_id == EVE.member.node_id


# --- what proves nothing ----------------------------------------------------------------------------------------------


def test_the_same_entry_twice_is_no_fork() -> None:
    side = entry_side(EVE.left, 3)
    assert refusal(lambda: check(make_fork(ForkKind.ENTRIES, side, side), MESH)) is Reason.BAD_FORK_PROOF


def test_two_entries_of_different_numbers_are_no_fork() -> None:
    raw = make_fork(ForkKind.ENTRIES, entry_side(EVE.left, 3), entry_side(EVE.right, 4))
    assert refusal(lambda: check(raw, MESH)) is Reason.BAD_FORK_PROOF


def test_two_entries_of_different_logs_are_no_fork() -> None:
    raw = make_fork(ForkKind.ENTRIES, entry_side(EVE.left, 0), entry_side(second_log(), 0))
    assert refusal(lambda: check(raw, MESH)) is Reason.BAD_FORK_PROOF


def test_two_entries_of_two_nodes_are_no_fork() -> None:
    """Bob gives an entry of his own the name of eve's log, and its number."""
    bobs = sign_entry(
        replace(EVE.left.place, seq=3, node_id=BOB.member.node_id), EntryType.APPLICATION, {0: "x", 1: b"1"},
        signer=BOB.member.message, kid=BOB.member.kid, mesh_id=MESH.mesh_id,
    )
    raw = make_fork(ForkKind.ENTRIES, entry_side(EVE.left, 3), Side.of_entry(bobs.raw, BOB.member.credentials))
    assert refusal(lambda: check(raw, MESH)) is Reason.BAD_FORK_PROOF


def test_nobody_proves_a_fork_of_another_node_with_its_own_key() -> None:
    """Eve signs an entry that names bob, beside a true one of bob's."""
    forged = sign_entry(
        replace(BOB.left.place, seq=3, node_id=BOB.member.node_id), EntryType.APPLICATION, {0: "x", 1: b"1"},
        signer=EVE.member.message, kid=EVE.member.kid, mesh_id=MESH.mesh_id,
    )
    raw = make_fork(ForkKind.ENTRIES, entry_side(BOB.left, 3), Side.of_entry(forged.raw, EVE.member.credentials))
    assert refusal(lambda: check(raw, MESH)) is Reason.WRONG_AUTHOR


def test_an_entry_counts_under_the_endorsement_that_it_names_only() -> None:
    other = another_start(MESH)
    raw = make_fork(ForkKind.ENTRIES, entry_side(EVE.left, 3, member=other), entry_side(EVE.right, 3))
    assert refusal(lambda: check(raw, MESH)) is Reason.BAD_ENDORSEMENT


def test_an_entry_with_a_forged_signature_proves_nothing() -> None:
    forged = sign_entry(
        replace(EVE.left.place, seq=3), EntryType.APPLICATION, {0: "x", 1: b"1"}, signer=BOB.member.message,
        kid=EVE.member.kid, mesh_id=MESH.mesh_id,
    )
    raw = make_fork(ForkKind.ENTRIES, Side.of_entry(forged.raw, EVE.member.credentials), entry_side(EVE.left, 3))
    assert refusal(lambda: check(raw, MESH)) is Reason.BAD_SIGNATURE


def test_credentials_of_another_mesh_prove_nothing() -> None:
    other = make_mesh("other")
    assert refusal(lambda: check(PROOFS[ForkKind.ENTRIES], other, MESH.at)) is Reason.OTHER_MESH


def test_a_fork_under_an_endorsement_that_has_ended_proves_nothing() -> None:
    """Whoever finds an old key years later cannot accuse anybody."""
    late = MESH.at + DAY + timedelta(minutes=10)
    found = refusal(lambda: check(PROOFS[ForkKind.ENTRIES], MESH, late))
    assert found in {Reason.CERTIFICATE_EXPIRED, Reason.ENDORSEMENT_EXPIRED}
    short = make_member(MESH, "eve", start=5, endorsement_life=timedelta(hours=1))
    one, other = some_log(1, name="eve", mesh=MESH), some_log(1, name="eve", mesh=MESH)
    one.change_to(short)
    other.change_to(short, seq=1, prev=other.entries[0].hash, hlc=one.entries[1].hlc + 1)
    raw = make_fork(ForkKind.ENTRIES, entry_side(one, 1), entry_side(other, 1))
    assert check(raw, MESH).node_id == short.node_id
    assert refusal(lambda: check(raw, MESH, MESH.at + timedelta(hours=2))) is Reason.ENDORSEMENT_EXPIRED


def test_both_sides_need_an_endorsement_in_force() -> None:
    short = make_member(MESH, "eve", start=5, endorsement_life=timedelta(hours=1))
    fork = sign_entry(
        replace(EVE.left.place, seq=3), EntryType.APPLICATION, {0: "x", 1: b"1"}, signer=short.message, kid=short.kid,
        mesh_id=MESH.mesh_id,
    )
    raw = make_fork(ForkKind.ENTRIES, entry_side(EVE.left, 3), Side.of_entry(fork.raw, short.credentials))
    assert check(raw, MESH)
    assert refusal(lambda: check(raw, MESH, MESH.at + timedelta(hours=2))) is Reason.ENDORSEMENT_EXPIRED


@pytest.mark.parametrize("kind", [kind for kind in PROOFS if kind is not ForkKind.ENTRIES])
def test_a_proof_of_one_kind_is_none_of_another(kind: ForkKind) -> None:
    for other in PROOFS.keys() - {kind}:
        fields = decode(PROOFS[kind], limit=FORK_PROOF_MAX) | {1: int(other)}
        raw = encode(fields)
        assert refusal(lambda raw=raw: check(raw, MESH)) in {Reason.BAD_FORK_PROOF, Reason.MALFORMED}


def test_openings_of_different_numbers_are_no_fork() -> None:
    raw = make_fork(ForkKind.OPENINGS, entry_side(second_log(1), 0), entry_side(second_log(2, start=3), 0))
    assert refusal(lambda: check(raw, MESH)) is Reason.BAD_FORK_PROOF


def test_entries_that_open_no_log_are_no_two_openings() -> None:
    raw = make_fork(ForkKind.OPENINGS, entry_side(second_log(), 0), entry_side(EVE.left, 1))
    assert refusal(lambda: check(raw, MESH)) is Reason.BAD_FORK_PROOF


def test_one_root_twice_and_heads_of_different_sizes_are_no_fork() -> None:
    for one, other in ((head_side(EVE.left, 5), head_side(EVE.left, 5)), (head_side(EVE.left, 4), head_side(EVE.right, 5))):
        raw = make_fork(ForkKind.HEADS, one, other)
        assert refusal(lambda raw=raw: check(raw, MESH)) is Reason.BAD_FORK_PROOF


def test_an_entry_called_a_head_is_none() -> None:
    raw = make_fork(ForkKind.HEADS, head_side(EVE.left, 5), entry_side(EVE.right, 3))
    assert refusal(lambda: check(raw, MESH)) is Reason.BAD_FORK_PROOF


def test_heads_of_two_logs_are_no_fork() -> None:
    raw = make_fork(ForkKind.HEADS, head_side(EVE.left, 1), head_side(second_log(), 1))
    assert refusal(lambda: check(raw, MESH)) is Reason.BAD_FORK_PROOF


def test_one_leaf_twice_and_leaves_at_two_places_are_no_fork() -> None:
    for other in (leaf_side(EVE.left, 4, 3), leaf_side(EVE.right, 5, 4)):
        raw = make_fork(ForkKind.LEAVES, leaf_side(EVE.left, 5, 3), other)
        assert refusal(lambda raw=raw: check(raw, MESH)) is Reason.BAD_FORK_PROOF


def test_an_entry_and_its_own_leaf_are_no_fork() -> None:
    for size, index in ((5, 4), (5, 3)):
        raw = make_fork(ForkKind.ENTRY_AND_LEAF, entry_side(EVE.left, 4), leaf_side(EVE.left, size, index))
        assert refusal(lambda raw=raw: check(raw, MESH)) is Reason.BAD_FORK_PROOF


def test_a_head_by_another_key_proves_nothing() -> None:
    """Bob signs a head of eve's log."""
    forged = Side.of_head(note_of(EVE.right, 5, member=BOB.member), EVE.member.credentials)
    raw = make_fork(ForkKind.HEADS, head_side(EVE.left, 5), forged)
    assert refusal(lambda: check(raw, MESH)) is Reason.BAD_SIGNATURE
    own = Side.of_head(note_of(EVE.right, 5, member=BOB.member), BOB.member.credentials)
    assert refusal(lambda: check(make_fork(ForkKind.HEADS, head_side(EVE.left, 5), own), MESH)) is Reason.WRONG_AUTHOR


def test_a_head_of_another_mesh_proves_nothing() -> None:
    head = replace(head_of(EVE.right, 5), mesh_id=make_mesh("other").mesh_id)
    forged = Side.of_head(head.sign(EVE.member.message).raw, EVE.member.credentials)
    assert refusal(lambda: check(make_fork(ForkKind.HEADS, head_side(EVE.left, 5), forged), MESH)) is Reason.OTHER_MESH


def test_a_leaf_that_does_not_stand_there_proves_nothing() -> None:
    """The head is true, the path leads elsewhere."""
    true = leaf_side(EVE.right, 5, 3)
    for side in (replace(true, leaf=bytes(32)), replace(true, index=2), replace(true, path=true.path[:-1])):
        raw = make_fork(ForkKind.LEAVES, leaf_side(EVE.left, 5, 3), side)
        assert refusal(lambda raw=raw: check(raw, MESH)) is Reason.CHAIN_BROKEN


# --- form -------------------------------------------------------------------------------------------------------------


def test_sides_out_of_order_are_refused() -> None:
    for kind in PROOFS.keys() - {ForkKind.ENTRY_AND_LEAF}:
        fields = decode(PROOFS[kind], limit=FORK_PROOF_MAX)
        swapped = encode(fields | {2: fields[3], 3: fields[2]})
        assert refusal(lambda raw=swapped: parse_fork(raw)) is Reason.MALFORMED


def test_lines_of_others_under_a_head_are_refused() -> None:
    head = head_of(EVE.left, 5)
    note = head.sign(EVE.member.message)
    with_witness = note.with_signatures(head.cosign(BOB.member.node_id, BOB.member.message, 5)).raw
    assert Side.of_head(with_witness, EVE.member.credentials).head == head_side(EVE.left, 5).head
    fields = head_side(EVE.left, 5).fields() | {3: with_witness}
    assert refusal(lambda: Side.read(fields)) is Reason.MALFORMED
    unsigned = type(note)(note.text, (head.cosign(BOB.member.node_id, BOB.member.message, 5),)).raw
    assert refusal(lambda: Side.of_head(unsigned, EVE.member.credentials)) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("left_out", [4, 5, 6])
def test_a_leaf_has_index_hash_and_path(left_out: int) -> None:
    fields = leaf_side(EVE.left, 5, 3).fields()
    del fields[left_out]
    assert refusal(lambda: Side.read(fields)) is Reason.MALFORMED


def test_a_side_is_an_entry_or_a_head_and_never_both_or_nothing() -> None:
    entry, head = entry_side(EVE.left, 3).fields(), head_side(EVE.left, 5).fields()
    assert refusal(lambda: Side.read(entry | head)) is Reason.MALFORMED
    assert refusal(lambda: Side.read({0: 1, 1: entry[1]})) is Reason.MALFORMED
    empty = Side(credentials=EVE.member.credentials)
    assert refusal(lambda: empty.verify(MESH.root, MESH.at)) is Reason.MALFORMED
    assert refusal(lambda: UnverifiedFork(ForkKind.HEADS, empty, empty, b"").accused) is Reason.MALFORMED


def test_other_kinds_and_too_many_bytes_are_refused() -> None:
    fields = decode(PROOFS[ForkKind.ENTRIES], limit=FORK_PROOF_MAX)
    assert refusal(lambda: parse_fork(encode(fields | {1: 99}))) is Reason.UNSUPPORTED
    assert refusal(lambda: parse_fork(bytes(FORK_PROOF_MAX + 1))) is Reason.TOO_LARGE
    assert refusal(lambda: parse_fork(make_map(1, 2, 3))) is Reason.MALFORMED
