"""What is bound stays bound: names, uses of invites, serials, numbers of lists, objects and policies."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.authority.bindings import Binding, Bindings, Bound, check_time
from overlay.core.authority.record_requests import AuthorityObjectRequest, AuthorityTest, PolicyRequest, Roster
from overlay.core.authority.requests import Request
from overlay.core.authority.x509_requests import CrossCertificate, RevocationList
from overlay.core.certificate_profile import Issuer, LeafFacts
from overlay.core.keys import Ed25519Signer
from overlay.core.policy import Attestation
from overlay.core.revocation_profile import ListFacts, Revocations
from overlay.core.wire import encode, make_map, sha256, u64
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority.signing_kit import INVITE, ISSUER, MESH, leaf, policy, renewal
from tests.unit.core.authority_kit import DAY, NOW, seed

SERIAL = b"\x41" + bytes(19)
NEXT = Issuer(ISSUER.mesh_id, ISSUER.name, Ed25519Signer(seed("next root")).spki)
TODAY = int(NOW.timestamp()) // 86_400


def bound(*requests: Request, to: Bindings = Bindings(), issuer: Issuer = ISSUER) -> Bindings:  # noqa: B008 - immutable
    for request in requests:
        to = to.bind(request, issuer, request.derive(issuer))
    return to


def refusal(*requests: Request, issuer: Issuer = ISSUER) -> Reason:
    before = bound(*requests[:-1])
    with pytest.raises(Refused) as refused:
        bound(requests[-1], to=before, issuer=issuer)
    return refused.value.reason


def revocations(number: int, days: int = 1) -> RevocationList:
    return RevocationList(
        ListFacts(number=number, this_update=NOW, next_update=NOW + days * DAY, revocations=Revocations())
    )


def obj(number: int, text: bytes = b"") -> AuthorityObjectRequest:
    return AuthorityObjectRequest(make_map(bytes(MESH.mesh_id), number, text))


@pytest.mark.parametrize("request_", [
    leaf(), renewal(SERIAL), revocations(1), obj(1), PolicyRequest(policy(2)), Roster(TODAY, bytes(32)),
    CrossCertificate(number=1, spki=NEXT.spki, not_before=NOW, not_after=NOW + DAY),
], ids=lambda request: type(request).__name__)  # fmt: skip
def test_a_retry_binds_nothing_more(request_: Request) -> None:
    once = bound(request_)
    assert once.rows
    assert once.missing(request_, ISSUER, request_.derive(ISSUER)) == ()
    assert bound(request_, to=once) == once


def test_a_test_binds_nothing() -> None:
    assert bound(AuthorityTest(bytes(32))) == Bindings()


def test_a_name_is_given_once() -> None:
    assert refusal(leaf(), leaf(key="mallory", use=1)) is Reason.BOUND_OTHERWISE


def test_a_use_of_an_invite_is_one_node() -> None:
    assert refusal(leaf(), leaf("bob")) is Reason.BOUND_OTHERWISE


def test_another_use_and_another_invite_are_free() -> None:
    found = bound(leaf(), leaf("bob", use=1), leaf("carol", invite_id=b"j" * 16))
    assert [found.holder(name) for name in ("alice", "bob", "carol", "dave")] == [
        leaf().node_id, leaf("bob").node_id, leaf("carol").node_id, None,
    ]  # fmt: skip


def test_a_serial_says_one_thing() -> None:
    assert refusal(leaf(), leaf(facts=LeafFacts(level=3))) is Reason.BOUND_OTHERWISE


def test_the_same_serial_under_another_root_is_another_certificate() -> None:
    assert bound(leaf(), to=bound(leaf()), issuer=NEXT) != bound(leaf())


def test_a_serial_is_renewed_once() -> None:
    second = renewal(SERIAL, not_before=NOW + timedelta(seconds=1))
    assert refusal(renewal(SERIAL), second) is Reason.CLONED_IDENTITY


def test_a_list_number_is_used_once() -> None:
    assert refusal(revocations(3), revocations(3, days=2)) is Reason.BOUND_OTHERWISE


def test_lists_do_not_go_backwards() -> None:
    assert refusal(revocations(300), revocations(3)) is Reason.BAD_REVOCATION_LIST
    assert bound(revocations(3), revocations(300), revocations(3)).rows


def test_another_root_counts_its_lists_anew() -> None:
    assert bound(revocations(3), to=bound(revocations(300)), issuer=NEXT).rows


def test_there_is_one_object_of_a_number() -> None:
    assert refusal(obj(2), obj(2, b"another")) is Reason.BOUND_OTHERWISE


def test_objects_do_not_go_backwards() -> None:
    assert refusal(obj(2), obj(1)) is Reason.BAD_AUTHORITY_OBJECT


def test_a_new_root_that_was_given_up_binds_nobody() -> None:
    assert bound(obj(2, b"another"), to=bound(obj(2), issuer=NEXT)).rows


def test_a_policy_version_is_one_policy() -> None:
    other = PolicyRequest(policy(2, attestation=Attestation.OFF))
    assert refusal(PolicyRequest(policy(2)), other) is Reason.BOUND_OTHERWISE
    assert refusal(PolicyRequest(policy(3)), other) is Reason.BAD_POLICY


def test_a_day_has_one_roster() -> None:
    assert refusal(Roster(TODAY, bytes(32)), Roster(TODAY, b"x" * 32)) is Reason.BOUND_OTHERWISE


def test_a_root_certificate_of_a_serial_says_one_thing() -> None:
    cross = CrossCertificate(number=1, spki=NEXT.spki, not_before=NOW, not_after=NOW + DAY)
    assert refusal(cross, replace(cross, not_after=NOW + 2 * DAY)) is Reason.BOUND_OTHERWISE


# --- names that move --------------------------------------------------------------------------------------------------

NEW = leaf(key="new machine", use=1, instead_of=leaf().node_id)
NEWER = leaf(key="newer machine", use=2, instead_of=NEW.node_id)


def test_a_name_moves_from_a_replaced_node_to_the_next() -> None:
    assert bound(leaf(), NEW).holder("alice") == NEW.node_id
    assert bound(leaf(), NEW, NEWER).holder("alice") == NEWER.node_id
    assert bound(leaf(), NEW, NEW, replace(NEW, instead_of=None)) == bound(leaf(), NEW)


def test_a_signer_that_knew_neither_learns_both() -> None:
    assert bound(NEW).holder("alice") == NEW.node_id


def test_a_replaced_node_has_its_name_no_more() -> None:
    assert refusal(NEW, leaf()) is Reason.BOUND_OTHERWISE


def test_a_node_is_replaced_by_one_other_only() -> None:
    assert refusal(leaf(), NEW, leaf(key="mallory", use=2, instead_of=leaf().node_id)) is Reason.BOUND_OTHERWISE


def test_the_name_of_a_third_node_does_not_move() -> None:
    assert refusal(leaf(key="another"), NEW) is Reason.BOUND_OTHERWISE


def test_a_name_does_not_come_back_to_a_node_that_was_replaced() -> None:
    assert refusal(leaf(), NEW, leaf(use=2, instead_of=NEW.node_id)) is Reason.BOUND_OTHERWISE


def test_a_node_does_not_replace_itself() -> None:
    assert refusal(leaf(instead_of=leaf().node_id)) is Reason.BOUND_OTHERWISE


# --- uses -------------------------------------------------------------------------------------------------------------


def test_a_node_keeps_its_use_and_a_new_one_gets_the_first_that_is_free() -> None:
    found = bound(leaf(), leaf("bob", use=1))
    assert found.use_for(INVITE, leaf("bob").node_id, 3) == 1
    assert found.use_for(INVITE, leaf("carol").node_id, 3) == 2
    assert found.use_for(INVITE, leaf("carol").node_id, 2) is None


# --- storage and time -------------------------------------------------------------------------------------------------


def test_bindings_are_stored_and_read_as_they_are() -> None:
    found = bound(leaf(), renewal(SERIAL, "bob"), revocations(1), obj(4), PolicyRequest(policy(2)), Roster(TODAY, bytes(32)))
    assert Bindings.unpack(found.pack()) == found
    assert Bindings.unpack(Bindings().pack()) == Bindings()


@pytest.mark.parametrize("rows", [
    [[99, b"k", bytes(32), 0]], [[1, b"k", bytes(32), 0], [1, b"k", bytes(32), 0]],
    [[1, b"l", bytes(32), 0], [1, b"k", bytes(32), 0]], [[1, b"k", bytes(31), 0]], [[1, b"", bytes(32), 0]],
], ids=["kind", "twice", "order", "value", "key"])  # fmt: skip
def test_damaged_bindings_are_refused(rows: list[object]) -> None:
    with pytest.raises(Refused, match="malformed"):
        Bindings.unpack(encode({0: 1, 1: rows}))


def test_rows_that_contradict_are_refused() -> None:
    row = Binding(Bound.NAME, b"alice", bytes(32))
    assert Bindings().adding([row, row]).get(Bound.NAME, b"alice") == bytes(32)
    with pytest.raises(Refused, match="bound otherwise"):
        Bindings().adding([row, replace(row, value=b"x" * 32)])


def test_what_may_be_forgotten_is_refused_by_time() -> None:
    request = leaf(not_after=NOW + 7 * DAY)
    kept, over = bound(request), NOW + 8 * DAY
    assert kept.without(over - DAY).get(Bound.SERIAL, next(iter(kept.rows[Bound.SERIAL]))) is not None
    forgotten = kept.without(over)
    assert Bound.SERIAL not in forgotten.rows
    assert forgotten.holder("alice") == request.node_id
    with pytest.raises(Refused, match="certificate expired"):
        check_time(request, over)


@pytest.mark.parametrize(("request_", "at", "reason"), [
    (leaf(), NOW + DAY, Reason.CERTIFICATE_EXPIRED),
    (leaf(), NOW - timedelta(minutes=6), Reason.CERTIFICATE_NOT_YET_VALID),
    (Roster(TODAY - 2, bytes(32)), NOW, Reason.CLOCK),
    (Roster(TODAY + 2, bytes(32)), NOW, Reason.CLOCK),
])  # fmt: skip
def test_what_is_for_another_time_is_refused(request_: Request, at: datetime, reason: Reason) -> None:
    with pytest.raises(Refused) as refused:
        check_time(request_, at)
    assert refused.value.reason is reason


@pytest.mark.parametrize("request_", [leaf(), Roster(TODAY - 1, bytes(32)), revocations(1)])
def test_four_minutes_between_clocks_are_no_matter(request_: Request) -> None:
    check_time(request_, NOW - timedelta(minutes=4))


CHOICES = [
    leaf(), leaf(key="mallory", use=1), leaf("bob"), leaf("bob", use=1), NEW, NEWER, renewal(SERIAL), revocations(1),
    revocations(1, days=2), revocations(2), obj(1), obj(1, b"x"), PolicyRequest(policy(2)), PolicyRequest(policy(3)),
]  # fmt: skip


@given(st.lists(st.sampled_from(CHOICES), max_size=20))
def test_in_whatever_order_requests_come_no_binding_ever_changes(requests: list[Request]) -> None:
    found = Bindings()
    for request in requests:
        before = {row for rows in found.rows.values() for row in rows.values()}
        try:
            found = bound(request, to=found)
        except Refused:
            continue
        assert before <= {row for rows in found.rows.values() for row in rows.values()}
        assert Bindings.unpack(found.pack()) == found


def test_rows_that_go_round_in_a_circle_are_no_endless_loop() -> None:
    one, two = both = (seed("one"), seed("two"))
    circle = Bindings().adding([
        Binding(Bound.NAME, b"bob", one),
        *(Binding(Bound.REPLACED, sha256(old, b"bob"), new) for old, new in zip(both, (two, one), strict=True)),
    ])  # fmt: skip
    assert circle.bearers("bob") == [one, two]


def test_the_highest_number_of_a_list_is_one_of_the_same_root() -> None:
    def row(issuer: Issuer, number: int) -> Binding:
        return Binding(Bound.LIST, sha256(issuer.spki) + u64(number), seed("list"))

    found = Bindings().adding([row(ISSUER, 3), row(ISSUER, 256), row(NEXT, 70_000)])
    assert (found.highest_list(ISSUER), found.highest_list(NEXT), Bindings().highest_list(ISSUER)) == (256, 70_000, 0)
