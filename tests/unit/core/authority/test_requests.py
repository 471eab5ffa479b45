"""Requests to the mesh key: one encoding each, and the bytes that follow from them and from nothing else."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.authority.contents import founding_contents
from overlay.core.authority.objects import to_be_signed
from overlay.core.authority.record_requests import AuthorityObjectRequest, AuthorityTest, PolicyRequest, Roster
from overlay.core.authority.recovery_keys import RecoveryKeys
from overlay.core.authority.request_kinds import RequestKind
from overlay.core.authority.requests import Request, pack_request, seal, unpack_request
from overlay.core.authority.roots import NextRoot
from overlay.core.authority.x509_requests import AUTHORITY_LIFE_MAX, CrossCertificate, IssueLeaf, RevocationList
from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificate_request import verify_request
from overlay.core.certificates import verify_leaf
from overlay.core.keys import Ed25519Signer, IdentityKey, NodeId
from overlay.core.policy import verify_policy
from overlay.core.revocation_profile import ListFacts, Mark, RevocationReason, Revocations
from overlay.core.revocations import verify_revocation_list
from overlay.core.wire import encode, make_map, u64
from overlay.errors import Refused
from overlay.registry import Label, Reason
from tests.unit.core.authority.signing_kit import INVITE, ISSUER, MESH, leaf, policy, renewal
from tests.unit.core.authority_kit import DAY, HOUR, NOW, P256Signer, make_mesh, seed

KEY = Ed25519Signer(seed("next root"))
FOUNDER = IdentityKey.parse(Ed25519Signer(seed("founder")).spki)
OBJECT = founding_contents(MESH.root, FOUNDER, RecoveryKeys()).pack()
MARK = Mark(NOW - DAY, NOW - HOUR, RevocationReason.KEY_COMPROMISE)
LIST = ListFacts(
    number=4, this_update=NOW, next_update=NOW + DAY,
    revocations=Revocations(nodes={bytes(32): MARK}, serials={b"\x40" + bytes(19): MARK}),
)  # fmt: skip
CROSS = CrossCertificate(number=1, spki=KEY.spki, not_before=NOW, not_after=NOW + 1000 * DAY)
OLD, SERIAL = NodeId(seed("old")), b"\x41" + bytes(19)
ALL: dict[str, Request] = {
    "leaf": leaf(instead_of=OLD),
    "renewal": renewal(SERIAL),
    "list": RevocationList(LIST),
    "object": AuthorityObjectRequest(OBJECT),
    "cross": CROSS,
    "policy": PolicyRequest(policy(2), (bytes(32),)),
    "roster": Roster(20_000, bytes(32)),
    "test": AuthorityTest(bytes(32)),
}


def signed(request: Request) -> bytes:
    """As if t signers had been asked: the group's key is the founding key."""
    message = request.derive(ISSUER)
    return seal(request, message, MESH.authority.key.sign(message))


def refusal(request: Request | bytes, **options: Any) -> Reason:
    with pytest.raises(Refused) as refused:
        unpack_request(request) if isinstance(request, bytes) else request.derive(ISSUER)
    return refused.value.reason


@pytest.mark.parametrize("request_", ALL.values(), ids=ALL)
def test_a_request_travels_as_it_is(request_: Request) -> None:
    packed = pack_request(request_)
    assert unpack_request(packed) == request_
    assert unpack_request(packed).derive(ISSUER) == request_.derive(ISSUER)


@pytest.mark.parametrize("request_", ALL.values(), ids=ALL)
def test_what_is_derived_is_bound_to_the_mesh(request_: Request) -> None:
    other = make_mesh("other").root.issuer
    if isinstance(request_, AuthorityObjectRequest):
        with pytest.raises(Refused, match="another mesh"):
            request_.derive(other)
    else:
        assert request_.derive(ISSUER) != request_.derive(other)


def test_no_two_kinds_begin_alike() -> None:
    beginnings = {
        "leaf": b"\x30", "list": b"\x30", "object": Label.AUTHORITY_OBJECT, "policy": b"\x84\x6aSignature1",
        "roster": b"overlay/1 roster\0", "test": Label.AUTHORITY_TEST,
    }  # fmt: skip
    for name, beginning in beginnings.items():
        assert ALL[name].derive(ISSUER).startswith(beginning)
    assert ALL["leaf"].derive(ISSUER)[4:9] == bytes.fromhex("a003020102")  # version 3; a list has none in that place
    assert ALL["list"].derive(ISSUER)[4:7] == bytes.fromhex("020101")


def test_a_certificate_says_what_the_request_says() -> None:
    found = verify_leaf(signed(leaf(facts=LeafFacts(roles=("worker",)))), (), MESH.root, NOW)
    assert (found.name, found.roles, found.not_before, found.not_after) == ("alice", ("worker",), NOW, NOW + DAY)
    assert found.node_id == verify_request(leaf().csr).node_id


def test_a_list_says_what_the_request_says() -> None:
    assert verify_revocation_list(signed(RevocationList(LIST)), [MESH.root]).facts == LIST


def test_a_policy_is_what_verifiers_accept() -> None:
    assert verify_policy(signed(PolicyRequest(policy(9))), MESH.root).policy.version == 9


def test_an_object_is_signed_under_its_label() -> None:
    assert AuthorityObjectRequest(OBJECT).derive(ISSUER) == to_be_signed(MESH.mesh_id, OBJECT)
    assert AuthorityObjectRequest(OBJECT).number == 0


def test_the_certificates_of_a_root_are_those_of_roots() -> None:
    wanted = NextRoot.of(MESH.root, KEY.public_key, CROSS.not_before, CROSS.not_after)
    assert CROSS.derive(ISSUER) == wanted.cross_to_be_signed
    assert CROSS.derive(replace(ISSUER, spki=KEY.spki)) == wanted.root_to_be_signed


def test_a_roster_names_its_day() -> None:
    assert Roster(7, b"h" * 32).derive(ISSUER) == b"overlay/1 roster\0" + MESH.mesh_id + u64(7) + b"h" * 32


@pytest.mark.parametrize("request_", [
    leaf("Not a name", asks_for="alice"), leaf(not_after=NOW + 8 * DAY), leaf(not_after=NOW), leaf(csr=b"no request"),
    replace(CROSS, not_after=NOW + AUTHORITY_LIFE_MAX + timedelta(days=1)), replace(CROSS, not_after=NOW - DAY),
    replace(CROSS, spki=P256Signer(seed("tpm")).spki),
    replace(CROSS, spki=KEY.spki[:12] + b"\x01" + bytes(31)),
], ids=["name", "long", "no life", "csr", "root too long", "root no life", "root on P-256", "root of small order"])  # fmt: skip
def test_a_certificate_that_nobody_would_accept_is_not_derived(request_: Request) -> None:
    assert refusal(request_) is Reason.BAD_CERTIFICATE


def test_a_csr_that_was_changed_is_refused() -> None:
    csr = bytearray(leaf().csr)
    csr[-1] ^= 1
    assert refusal(leaf(csr=bytes(csr))) is Reason.BAD_CERTIFICATE


def test_a_list_that_is_too_large_is_not_derived() -> None:
    many = {number.to_bytes(32, "big"): MARK for number in range(25_000)}
    large = replace(LIST, revocations=Revocations(nodes=many))
    assert refusal(RevocationList(large)) is Reason.BAD_REVOCATION_LIST


@pytest.mark.parametrize("payload", [encode([1]), make_map(7, 1), make_map(bytes(32), True), make_map(bytes(32))])
def test_an_object_without_mesh_or_number_is_refused(payload: bytes) -> None:
    assert refusal(AuthorityObjectRequest(payload)) is Reason.MALFORMED


def test_a_policy_that_is_packed_otherwise_is_refused() -> None:
    assert refusal(PolicyRequest(make_map(2, 1, None, 0, 0, [], []))) is Reason.BAD_POLICY


@pytest.mark.parametrize("changes", [
    {"invite_id": None}, {"use": None}, {"renews": SERIAL}, {"invite_id": None, "use": None},
    {"invite_id": None, "use": 0, "renews": SERIAL},
], ids=["use alone", "invite alone", "both", "neither", "renewal with a use"])  # fmt: skip
def test_a_certificate_is_for_a_use_of_an_invite_or_renews_another(changes: dict[str, Any]) -> None:
    assert refusal(pack_request(replace(leaf(), **changes))) is Reason.MALFORMED


def test_times_that_no_list_has_are_refused() -> None:
    backwards = make_map(1, 5, 4, Revocations().pack(), [])
    assert refusal(make_map(int(RequestKind.REVOCATION_LIST), backwards)) is Reason.BAD_REVOCATION_LIST


def test_serials_in_another_order_are_another_encoding() -> None:
    rows = [[b"\x42" + bytes(19), 1, 2, 1], [b"\x41" + bytes(19), 1, 2, 1]]
    fields = make_map(1, 10, 20, Revocations().pack(), rows)
    assert refusal(make_map(int(RequestKind.REVOCATION_LIST), fields)) is Reason.MALFORMED


def test_an_unknown_kind_is_refused() -> None:
    assert refusal(make_map(99, make_map(b"sign this"))) is Reason.UNSUPPORTED


@given(st.sampled_from(list(ALL)), st.integers(0, 2000), st.integers(1, 255))
def test_a_changed_request_is_refused_or_is_another_request(name: str, place: int, by: int) -> None:
    packed = bytearray(pack_request(ALL[name]))
    packed[place % len(packed)] ^= by
    try:
        found = unpack_request(bytes(packed))
        assert pack_request(found) == bytes(packed)
        found.derive(ISSUER)
    except Refused:
        pass


def test_invites_have_their_own_ids() -> None:
    assert isinstance(ALL["leaf"], IssueLeaf)
    assert ALL["leaf"].invite_id == INVITE
