"""One signature over many messages: each check once, with the batch or the proof that breaks it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from overlay.core.batches import (
    ProvenMessage,
    SignedBatch,
    leaves_of,
    parse_batch,
    parse_proof,
    sign_batch,
    size_of,
)
from overlay.core.limits import BATCH_COUNT_MAX, BATCH_HEAD_MAX, BATCH_MAX, BATCH_MESSAGES_MAX
from overlay.core.merkle import root_of
from overlay.core.wire import make_map, sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason
from tests.unit.core.authority_kit import Member, make_member, make_mesh
from tests.unit.core.session_kit import local

MESH = make_mesh()
ALICE, BOB = make_member(MESH, "alice"), make_member(MESH, "bob")
KIND = Label.TRANSIENT
MESSAGES = [b"one", b"two", b"three"]


def batch(messages: list[bytes] = MESSAGES, *, member: Member = ALICE, mesh_id: bytes = MESH.mesh_id) -> SignedBatch:
    return sign_batch(local(member), mesh_id, kind=KIND, hlc=7, messages=messages)


def verified(raw: bytes, *, kind: bytes = KIND) -> SignedBatch:
    return parse_batch(raw).verify(ALICE.message.public_key, mesh_id=MESH.mesh_id, kind=kind)


def proven(raw: bytes, *, kind: bytes = KIND) -> ProvenMessage:
    return parse_proof(raw).verify(ALICE.message.public_key, mesh_id=MESH.mesh_id, kind=kind)


def both(signed: SignedBatch) -> list[Callable[[], object]]:
    """Verify it whole, and one message of it alone."""
    return [lambda: verified(signed.encode()), lambda: proven(signed.proof(0))]


def forged(*, label: bytes = Label.BATCH, member: Member = ALICE, **changes: Any) -> SignedBatch:
    """Signed, with another head than its messages ask for."""
    root = root_of(leaves_of(MESSAGES))
    fields = {"author": ALICE.node_id, "kind": KIND, "hlc": 7, "count": 3, "root": root} | changes
    raw = sign1(make_map(*fields.values()), signer=member.message, aad=label + MESH.mesh_id, kid=ALICE.kid)
    genuine = batch()
    return replace(genuine, head=replace(genuine.head, raw=raw))


def refused(work: Callable[[], object]) -> Reason:
    with pytest.raises(Refused) as caught:
        work()
    return caught.value.reason


# --- what holds -------------------------------------------------------------------------------------------------------


def test_a_batch_says_what_its_author_said() -> None:
    found = verified(batch().encode())
    assert (found.head.author, found.head.hlc, found.head.count, found.messages) == (ALICE.node_id, 7, 3, MESSAGES)


def test_a_message_is_proven_without_the_others() -> None:
    found = proven(batch().proof(1))
    assert (found.head.author, found.index, found.message) == (ALICE.node_id, 1, b"two")
    assert b"three" not in batch().proof(1)


def test_a_batch_that_came_gives_the_same_proofs_as_the_one_that_was_sent() -> None:
    found = verified(batch().encode())
    assert [found.proof(index) for index in range(3)] == [batch().proof(index) for index in range(3)]


def test_a_batch_says_under_which_endorsement_it_is() -> None:
    assert parse_batch(batch().encode()).kid == parse_proof(batch().proof(0)).kid == ALICE.kid


def test_the_largest_batch_fits_its_frame() -> None:
    message = bytes(BATCH_MESSAGES_MAX // 3 - size_of(b""))
    signed = batch([message] * 3)
    assert BATCH_MAX - BATCH_HEAD_MAX < len(signed.encode()) <= BATCH_MAX
    assert signed.size <= BATCH_MAX
    assert verified(signed.encode()).head.count == 3
    assert proven(batch([bytes(BATCH_MESSAGES_MAX - size_of(b""))]).proof(0)).index == 0


@pytest.mark.parametrize(
    "messages", [[], [b""] * (BATCH_COUNT_MAX + 1), [bytes(BATCH_MESSAGES_MAX)], [bytes(BATCH_MESSAGES_MAX // 2)] * 2]
)
def test_what_does_not_fit_is_not_signed(messages: list[bytes]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        batch(messages)


def test_a_message_that_is_not_there_has_no_proof() -> None:
    with pytest.raises(IndexError):
        batch().proof(3)


# --- what does not ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("signed", [
    batch(member=BOB), batch(mesh_id=make_mesh("other").mesh_id), forged(label=Label.PUBLISH), forged(member=BOB),
])  # fmt: skip
def test_the_signature_of_another_key_mesh_or_kind_of_message_is_refused(signed: SignedBatch, which: int) -> None:
    assert refused(both(signed)[which]) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("which", [0, 1])
def test_a_batch_of_another_kind_is_refused(which: int) -> None:
    assert refused(both(forged(kind=Label.REPLY))[which]) is Reason.MALFORMED


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("changes", [
    {"author": b"short"}, {"kind": b""}, {"hlc": 2**63 - 1}, {"count": BATCH_COUNT_MAX + 1}, {"root": bytes(31)}, {"extra": 0},
])  # fmt: skip
def test_a_head_of_another_form_is_refused(changes: dict[str, Any], which: int) -> None:
    assert refused(both(forged(**changes))[which]) is Reason.MALFORMED


@pytest.mark.parametrize("which", [0, 1])
def test_messages_that_lead_to_another_root_are_refused(which: int) -> None:
    assert refused(both(forged(root=bytes(32)))[which]) is Reason.CHAIN_BROKEN


@pytest.mark.parametrize("count", [0, 2, 4])
def test_another_number_of_messages_than_was_signed_is_refused(count: int) -> None:
    assert refused(lambda: verified(forged(count=count).encode())) is Reason.CHAIN_BROKEN


@pytest.mark.parametrize("messages", [
    [], [b"one"], [b"one", b"two"], [*MESSAGES, b"four"], [*MESSAGES, b"three"], [b"two", b"one", b"three"],
    [b"one", b"two", b"thre"],
])  # fmt: skip
def test_other_messages_than_those_that_were_signed_are_refused(messages: list[bytes]) -> None:
    raw = make_map(batch().head.raw, messages)
    assert refused(lambda: verified(raw)) is Reason.CHAIN_BROKEN


def test_an_inner_node_is_no_message() -> None:
    first, second, third = leaves_of(MESSAGES)
    raw = make_map(batch().head.raw, 0, [third], b"\1" + first + second)
    assert refused(lambda: proven(raw)) is Reason.CHAIN_BROKEN


@pytest.mark.parametrize(("message", "leaf"), [
    (b"", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
    (b"\0", "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"),
])  # fmt: skip
def test_leaves_are_those_of_certificate_transparency(message: bytes, leaf: str) -> None:
    assert leaves_of([message]) == [bytes.fromhex(leaf)]  # known answers of its reference implementation


@pytest.mark.parametrize("index", [0, 2, 3])
def test_a_proof_of_another_place_is_refused(index: int) -> None:
    proof = parse_proof(batch().proof(1))
    raw = make_map(proof.signed.raw, index, proof.path, proof.message)
    assert refused(lambda: proven(raw)) is Reason.CHAIN_BROKEN


def test_a_proof_of_another_batch_is_refused() -> None:
    proof = parse_proof(batch([b"one", b"two", b"four"]).proof(1))
    raw = make_map(batch().head.raw, 1, proof.path, b"two")
    assert refused(lambda: proven(raw)) is Reason.CHAIN_BROKEN


def test_a_batch_is_no_proof_and_a_proof_no_batch() -> None:
    assert refused(lambda: parse_proof(batch().encode())) is Reason.MALFORMED
    assert refused(lambda: parse_batch(batch().proof(0))) is Reason.MALFORMED


@pytest.mark.parametrize("messages", [[b""] * (BATCH_COUNT_MAX + 1), [7], b"text", [[b"one"]]])
def test_a_list_of_anything_else_than_so_many_byte_strings_is_refused(messages: Any) -> None:
    raw = make_map(batch().head.raw, messages)
    assert refused(lambda: parse_batch(raw)) is Reason.MALFORMED


def test_a_path_that_is_longer_than_any_is_refused() -> None:
    raw = make_map(batch().head.raw, 0, [bytes(32)] * 12, b"one")
    assert refused(lambda: parse_proof(raw)) is Reason.MALFORMED


def test_a_batch_or_a_proof_that_is_too_large_is_not_even_read() -> None:
    large = bytes(BATCH_MAX + 1)
    assert refused(lambda: parse_batch(large)) is refused(lambda: parse_proof(large)) is Reason.TOO_LARGE


def test_a_head_that_is_too_large_is_not_even_read() -> None:
    raw = make_map(bytes(BATCH_HEAD_MAX + 1), [b"one"])
    assert refused(lambda: parse_batch(raw)) is Reason.MALFORMED
