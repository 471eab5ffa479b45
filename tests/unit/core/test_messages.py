"""Signed calls and replies: what is covered, and that no kind of signed thing passes for another."""

import math
from collections.abc import Callable
from contextlib import suppress
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.evidence import Claims
from attest.software import SoftwareProver, check_software
from audit.bodies import application
from audit.entry import Place, make_log_id, parse_entry, sign_entry
from overlay.core import limits
from overlay.core.authority.objects import make_object_zero, verify_object_zero
from overlay.core.endorsement import verify_endorsement
from overlay.core.evidence import Binding, Evidence
from overlay.core.keys import Ed25519Signer, NodeId
from overlay.core.mesh.chains import hlc_of
from overlay.core.mesh.topics import Author, sign_publication, topic_log_id, verify_publication
from overlay.core.messages import (
    FAILURE_KIND_MAX,
    FAILURE_TEXT_MAX,
    METHOD_MAX,
    NO_DEADLINE,
    Call,
    deadline_of,
    pack_cancel,
    pack_credit,
    pack_failure,
    seconds_left,
    sign_call,
    sign_reply,
    unpack_cancel,
    unpack_credit,
    unpack_failure,
    verify_call,
    verify_reply,
)
from overlay.core.policy import verify_policy
from overlay.core.telemetry.batch import Head, parse_batch, sign_batch
from overlay.core.wire import make_map, parse_sign1, sha256, sign1
from overlay.core.work import signing
from overlay.core.work.envelopes import SignedPlacement, SignedResult, SignedWorkload
from overlay.core.work.result import WorkResult
from overlay.core.work.workload import Artifact, Workload
from overlay.errors import Refused
from overlay.registry import (
    GENESIS,
    ArtifactType,
    EntryType,
    EvidenceKind,
    Label,
    Reason,
    ReplyStatus,
    Role,
    WorkState,
)
from tests.unit.core.authority_kit import HOUR, NOW, Member, make_member, seed
from tests.unit.core.session_kit import ALICE, BOB, LAB, OTHER_LAB, local

H1 = b"h" * 32
CALL_ID = b"i" * 16
CALL_HASH = b"c" * 32


def call(member: Member = ALICE, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "to": BOB.node_id, "call_id": CALL_ID, "first_h": H1, "method": "shout", "deadline": 7, "body": b"hi"
    }  # fmt: skip
    return sign_call(local(member), LAB.mesh_id, **(fields | changes))


def reply(member: Member = ALICE, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "to": BOB.node_id, "call_hash": CALL_HASH, "index": 0, "final": True, "status": ReplyStatus.OK, "body": b"HI"
    }  # fmt: skip
    return sign_reply(local(member), LAB.mesh_id, **(fields | changes))


def read_call(raw: bytes, member: Member = ALICE) -> Call:
    """What Bob makes of it on his link with this member."""
    return verify_call(raw, own_id=BOB.node_id, mesh_id=LAB.mesh_id, first_h=H1, peer=member.peer)


def read_reply(raw: bytes, member: Member = ALICE) -> Any:
    return verify_reply(raw, own_id=BOB.node_id, mesh_id=LAB.mesh_id, peer=member.peer)


def reason_of(read: Callable[[bytes], object], raw: bytes) -> Reason:
    with pytest.raises(Refused) as caught:
        read(raw)
    return caught.value.reason


BOTH = pytest.mark.parametrize(("make", "read"), [(call, read_call), (reply, read_reply)], ids=["call", "reply"])


# --- what goes well -------------------------------------------------------------------------------------------------


@given(st.text(st.characters(codec="ascii"), max_size=METHOD_MAX), st.binary(max_size=100), st.integers(0, 2**64 - 1))
def test_a_call_is_read_as_it_was_signed(method: str, body: bytes, deadline: int) -> None:
    raw = call(method=method, body=body, deadline=deadline)
    assert read_call(raw) == Call(
        caller=ALICE.node_id, call_id=CALL_ID, method=method, deadline=deadline, body=body, hash=sha256(raw)
    )


@pytest.mark.parametrize("status", ReplyStatus)
def test_a_reply_is_read_as_it_was_signed(status: ReplyStatus) -> None:
    body = pack_failure("ValueError", "no")
    found = read_reply(reply(status=status, body=body))
    assert (found.sender, found.call_hash, found.index, found.final) == (ALICE.node_id, CALL_HASH, 0, True)
    assert (found.status, found.body) == (status, body)


def test_a_body_of_one_mebibyte_fits() -> None:
    assert len(read_call(call(body=bytes(limits.BODY_MAX))).body) == limits.BODY_MAX
    assert reason_of(read_call, call(body=bytes(limits.BODY_MAX + 1))) is Reason.MALFORMED
    assert reason_of(read_reply, reply(body=bytes(limits.BODY_MAX + 1))) is Reason.MALFORMED


# --- author, recipient, link ----------------------------------------------------------------------------------------


@BOTH
def test_a_message_of_somebody_else_is_refused(make: Any, read: Any) -> None:
    carol = make_member(LAB, "carol")
    assert reason_of(read, make(carol)) is Reason.WRONG_AUTHOR


@BOTH
def test_a_message_under_an_older_endorsement_is_refused(make: Any, read: Any) -> None:
    later = make_member(LAB, "alice", start=2)
    assert reason_of(lambda raw: read(raw, later), make(ALICE)) is Reason.WRONG_AUTHOR


@BOTH
def test_a_message_for_somebody_else_is_refused(make: Any, read: Any) -> None:
    assert reason_of(read, make(to=make_member(LAB, "carol").node_id)) is Reason.WRONG_RECIPIENT


def test_a_call_made_on_another_link_is_refused() -> None:
    assert reason_of(read_call, call(first_h=b"H" * 32)) is Reason.WRONG_LINK


def in_name_of(author: NodeId) -> list[tuple[bytes, Any]]:
    """Alice signs, under her own kid, as if she were this node."""
    own = local(ALICE)
    payloads = [
        (make_map(author, BOB.node_id, CALL_ID, H1, "shout", 7, b"hi"), Label.CALL, read_call),
        (make_map(author, BOB.node_id, CALL_HASH, 0, True, 0, b"HI"), Label.REPLY, read_reply),
    ]
    return [
        (sign1(payload, signer=own.message, aad=label + LAB.mesh_id, kid=own.kid), read) for payload, label, read in payloads
    ]


def test_an_author_other_than_the_endorsed_node_is_refused() -> None:
    for raw, read in in_name_of(ALICE.node_id):
        read(raw)
    for raw, read in in_name_of(make_member(LAB, "carol").node_id):
        assert reason_of(read, raw) is Reason.WRONG_AUTHOR


# --- signature ------------------------------------------------------------------------------------------------------


@BOTH
def test_one_flipped_bit_in_any_byte_is_refused(make: Any, read: Any) -> None:
    raw = make()
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << place % 8
        assert reason_of(read, bytes(damaged)) in (Reason.BAD_SIGNATURE, Reason.MALFORMED, Reason.WRONG_AUTHOR)


@BOTH
def test_a_flipped_bit_in_payload_or_signature_is_a_bad_signature(make: Any, read: Any) -> None:
    raw = bytearray(make())
    raw[-1] ^= 1
    assert reason_of(read, bytes(raw)) is Reason.BAD_SIGNATURE


@BOTH
def test_a_key_that_is_not_the_endorsed_one_is_refused(make: Any, read: Any) -> None:
    message = parse_sign1(make(), limit=10_000)
    thief = Ed25519Signer(seed("thief"))
    label = Label.CALL if make is call else Label.REPLY
    forged = sign1(message.payload, signer=thief, aad=label + LAB.mesh_id, kid=ALICE.kid)
    assert reason_of(read, forged) is Reason.BAD_SIGNATURE


@BOTH
def test_a_message_of_another_mesh_is_refused(make: Any, read: Any) -> None:
    message = parse_sign1(make(), limit=10_000)
    label = Label.CALL if make is call else Label.REPLY
    other = sign1(message.payload, signer=ALICE.message, aad=label + OTHER_LAB.mesh_id, kid=ALICE.kid)
    assert reason_of(read, other) is Reason.BAD_SIGNATURE


# --- form -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "label", "fields"),
    [
        (read_call, Label.CALL, (ALICE.node_id, BOB.node_id, CALL_ID[:-1], H1, "m", 7, b"")),
        (read_call, Label.CALL, (ALICE.node_id, BOB.node_id, CALL_ID, H1, "m" * 129, 7, b"")),
        (read_call, Label.CALL, (ALICE.node_id, BOB.node_id, CALL_ID, H1, b"m", 7, b"")),
        (read_call, Label.CALL, (ALICE.node_id, BOB.node_id, CALL_ID, H1, "m", 7, b"", 1)),
        (read_reply, Label.REPLY, (ALICE.node_id, BOB.node_id, CALL_HASH, 0, 1, 0, b"")),
        (read_reply, Label.REPLY, (ALICE.node_id, BOB.node_id, CALL_HASH, 0, True, 8, b"")),
        (read_reply, Label.REPLY, (ALICE.node_id, BOB.node_id, CALL_HASH, 0, True, 1, b"ValueError")),
        (read_reply, Label.REPLY, (ALICE.node_id, BOB.node_id, CALL_HASH, 0, True, 256, b"")),
        (read_reply, Label.REPLY, (ALICE.node_id, BOB.node_id, CALL_HASH, 0, True, 0)),
    ],
)  # fmt: skip
def test_a_signed_payload_of_another_form_is_refused(read: Any, label: bytes, fields: tuple[object, ...]) -> None:
    raw = sign1(make_map(*fields), signer=ALICE.message, aad=label + LAB.mesh_id, kid=ALICE.kid)
    assert reason_of(read, raw) is Reason.MALFORMED


@BOTH
def test_a_message_above_its_limit_is_refused_unread(make: Any, read: Any) -> None:
    del make
    assert reason_of(read, b"\xd2" + bytes(limits.MESSAGE_MAX)) is Reason.TOO_LARGE


# --- failures, cancellations, credit, deadlines -----------------------------------------------------------------------


@given(st.text(max_size=200), st.text(max_size=5000))
def test_a_failure_is_cut_to_its_limits_and_read_again(kind: str, text: str) -> None:
    found_kind, found_text = unpack_failure(pack_failure(kind, text))
    assert kind.startswith(found_kind) and text.startswith(found_text)
    assert min(len(kind.encode()), FAILURE_KIND_MAX - 3) <= len(found_kind.encode()) <= FAILURE_KIND_MAX
    assert min(len(text.encode()), FAILURE_TEXT_MAX - 3) <= len(found_text.encode()) <= FAILURE_TEXT_MAX


def test_a_failure_whose_text_is_not_unicode_can_be_told_too() -> None:
    assert unpack_failure(pack_failure("OSError", "\ud800/etc")) == ("OSError", "?/etc")


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1))
def test_a_cancellation_and_credit_are_read_as_they_were_packed(token: bytes, credit: int) -> None:
    assert unpack_cancel(pack_cancel(token)) == token
    assert unpack_credit(pack_credit(token, credit)) == (token, credit)


@pytest.mark.parametrize("read", [unpack_cancel, unpack_credit, unpack_failure])
@given(st.binary(max_size=100))
def test_any_bytes_instead_are_refused_at_most(read: Callable[[bytes], object], body: bytes) -> None:
    with suppress(Refused):
        read(body)


@pytest.mark.parametrize("token", [b"", bytes(31), bytes(33)])
def test_a_cancellation_or_credit_of_something_that_is_no_hash_is_refused(token: bytes) -> None:
    assert reason_of(unpack_cancel, pack_cancel(token)) is Reason.MALFORMED
    assert reason_of(unpack_credit, pack_credit(token, 1)) is Reason.MALFORMED


@pytest.mark.parametrize(
    ("timeout", "deadline", "left"),
    [(30.0, 1_030_000, 30.0), (0.0, 1_000_000, 0.0), (math.inf, NO_DEADLINE, math.inf), (1e300, NO_DEADLINE, math.inf)],
)
def test_a_deadline_is_read_by_the_calendar_and_may_be_none(timeout: float, deadline: int, left: float) -> None:
    assert deadline_of(1000.0, timeout) == deadline
    assert seconds_left(deadline, 1000.0) == left


# --- every kind to the parser of every other kind -----------------------------------------------------------------------

CLAIMS = Claims(software_version="1", policy_version=1, kind=EvidenceKind.SOFTWARE, pcr_bitmap=0, manifest=bytes(32))
BINDING = Binding(
    mesh_id=LAB.mesh_id, h=H1, role=Role.OPENER, attester_leaf=ALICE.peer.certificate.hash,
    verifier_leaf=BOB.peer.certificate.hash, nonce=bytes(32), epoch=1,
)  # fmt: skip
AUTHOR = Author(
    node_id=ALICE.node_id, name="alice", message_public=ALICE.message.public_key, not_before=ALICE.peer.endorsement.not_before,
    not_after=ALICE.peer.endorsement.not_after, logs=(bytes(16),),
)  # fmt: skip
LOG_ID = make_log_id(LAB.mesh_id, ALICE.node_id, 0, GENESIS, ALICE.start_id)
EVIDENCE = SoftwareProver(signer=ALICE.message, kid=ALICE.kid, mesh_id=LAB.mesh_id, claims=CLAIMS).prove([BINDING])[0]

WORKLOAD = signing.sign_workload(
    Workload(
        originator=ALICE.node_id, id=bytes(16), name="job", not_before=NOW, not_after=NOW + HOUR,
        artifact=Artifact(bytes(32), 1, ArtifactType.PROGRAM),
    ), own=local(ALICE), mesh_id=LAB.mesh_id,
)  # fmt: skip
PLACEMENT = signing.place(WORKLOAD, run=1, worker=BOB.node_id, own=local(ALICE), mesh_id=LAB.mesh_id, at=NOW, nonce=bytes(16))
RESULT = signing.sign_result(
    WorkResult(
        worker=ALICE.node_id, placement=PLACEMENT.hash, workload=WORKLOAD.hash, run=1, state=WorkState.TIMED_OUT, started=NOW,
        ended=NOW,
    ), own=local(ALICE), mesh_id=LAB.mesh_id,
)  # fmt: skip

HEAD = Head(
    author=ALICE.node_id, name="host", stream=bytes(16), seq=0, prev=GENESIS, at=0, count=0, dropped=0, root=bytes(32)
)
TELEMETRY, _ = sign_batch(HEAD, [], own=local(ALICE), mesh_id=LAB.mesh_id)


def publication() -> bytes:
    log_id = topic_log_id(LAB.mesh_id, ALICE.node_id, bytes(16), "news")
    return sign_publication(
        local(ALICE), LAB.mesh_id, topic="news", log_id=log_id, seq=0, prev=GENESIS, hlc=hlc_of(NOW), body=b"x"
    )


def entry() -> bytes:
    place = Place(node_id=ALICE.node_id, log_id=LOG_ID, seq=1, prev=GENESIS, hlc=hlc_of(NOW))
    return sign_entry(
        place, EntryType.APPLICATION, application("test", "note"), signer=ALICE.message, kid=ALICE.kid, mesh_id=LAB.mesh_id
    ).raw


def read_evidence(raw: bytes) -> None:
    evidence = Evidence(
        count=EVIDENCE.count, index=EVIDENCE.index, path=EVIDENCE.path, claims=EVIDENCE.claims, ak_public=b"", quote=raw,
        signature=b"",
    )  # fmt: skip
    check_software(evidence, BINDING, ALICE.peer)


# kind: (one of it, who reads it, the label it is signed under)
KINDS: dict[str, tuple[bytes, Callable[[bytes], object], bytes]] = {
    "call": (call(), read_call, Label.CALL),
    "reply": (reply(), read_reply, Label.REPLY),
    "publish": (
        publication(), lambda raw: verify_publication(raw, mesh_id=LAB.mesh_id, author_of=lambda _: AUTHOR), Label.PUBLISH
    ),
    "audit": (entry(), lambda raw: parse_entry(raw).verify(ALICE.message.public_key, LAB.mesh_id), Label.AUDIT),
    "evidence": (EVIDENCE.quote, read_evidence, Label.SOFTWARE_EVIDENCE),
    "endorsement": (
        ALICE.credentials.endorsement,
        lambda raw: verify_endorsement(raw, ALICE.peer.certificate, LAB.mesh_id, NOW),
        Label.ENDORSE,
    ),
    "policy": (LAB.trust.policy.raw, lambda raw: verify_policy(raw, LAB.root), Label.POLICY),
    "authority": (
        make_object_zero(LAB.root, Ed25519Signer(seed("root", "lab")), ALICE.signer),
        lambda raw: verify_object_zero(raw, LAB.root),
        Label.AUTHORITY_OBJECT,
    ),
    "workload": (
        WORKLOAD.raw,
        lambda raw: SignedWorkload.read(raw, [ALICE.credentials]).check_signature(0, ALICE.peer, LAB.mesh_id),
        Label.WORKLOAD,
    ),
    "placement": (
        PLACEMENT.raw,
        lambda raw: SignedPlacement.read(raw, ALICE.credentials).check_signature(ALICE.peer, LAB.mesh_id),
        Label.PLACEMENT,
    ),
    "work result": (
        RESULT.raw,
        lambda raw: SignedResult.read(raw, ALICE.credentials).check_signature(ALICE.peer, LAB.mesh_id),
        Label.WORK_RESULT,
    ),
    "telemetry": (
        parse_batch(TELEMETRY).signed.raw,
        lambda raw: parse_batch(make_map(raw, [])).verify(ALICE.node_id, ALICE.message.public_key, LAB.mesh_id),
        Label.TELEMETRY,
    ),
}  # fmt: skip
BY_MESSAGE_KEY = ("call", "reply", "publish", "audit", "evidence", "workload", "placement", "work result", "telemetry")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_read_by_its_own_parser(kind: str) -> None:
    raw, read, _ = KINDS[kind]
    read(raw)


@pytest.mark.parametrize(("kind", "other"), list(permutations(KINDS, 2)))
def test_no_kind_passes_for_another(kind: str, other: str) -> None:
    with pytest.raises(Refused):
        KINDS[other][1](KINDS[kind][0])


@pytest.mark.parametrize(("label_of", "payload_of"), list(permutations(BY_MESSAGE_KEY, 2)))
def test_a_payload_signed_under_the_label_of_another_kind_is_refused(label_of: str, payload_of: str) -> None:
    raw, read, _ = KINDS[payload_of]
    payload = parse_sign1(raw, limit=10_000).payload
    relabelled = sign1(payload, signer=ALICE.message, aad=KINDS[label_of][2] + LAB.mesh_id, kid=ALICE.kid)
    assert reason_of(read, relabelled) in (Reason.BAD_SIGNATURE, Reason.EVIDENCE_SIGNATURE)
