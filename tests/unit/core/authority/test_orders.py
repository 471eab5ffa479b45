"""Orders: their bytes, who signed them, and that they can be checked at any time by anyone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from overlay.core.authority.group_orders import Distribute, Recover, Refresh, Reshare
from overlay.core.authority.order_bodies import (
    Body,
    GrantRoles,
    Invite,
    PolicyOrder,
    Quarantine,
    Replace,
    Revoke,
    WithdrawInvite,
    open_body,
)
from overlay.core.authority.order_payload import Order
from overlay.core.authority.order_signatures import OrderSignature
from overlay.core.authority.orders import SignedOrder, countersign, parse_order, sign_order
from overlay.core.certificate_profile import LeafFacts
from overlay.core.keys import NodeId
from overlay.core.revocation_profile import LogEnd, RevocationReason
from overlay.core.trust import Quarantine as InForce
from overlay.core.wire import make_map, parse_sign1, sign1
from overlay.errors import Refused, UsageError
from overlay.registry import Label, OrderKind, Reason
from tests.unit.core.authority.order_kit import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    ERIN,
    MESH,
    agree,
    make_invite,
    make_order,
    operator,
    quarantine,
    sign,
)
from tests.unit.core.authority_kit import DAY, HOUR, NOW, make_member, make_mesh, seed

THREE = tuple(sorted([ALICE.node_id, BOB.node_id, CAROL.node_id]))
BODIES: list[Body] = [
    make_invite(),
    make_invite(roles=(), name="worker-7"),
    make_invite(uses=1024),
    Revoke(nodes=(DAVE,), reason=RevocationReason.KEY_COMPROMISE, since=NOW - DAY),
    Revoke(
        nodes=tuple(sorted([DAVE, ERIN])), reason=RevocationReason.CESSATION, since=NOW,
        ends={(DAVE, bytes(16)): LogEnd(7, seed("last"))},
    ),
    Quarantine(DAVE),
    Replace(old=DAVE, new=ERIN),
    GrantRoles(node=DAVE, roles=("signer", "worker")),
    GrantRoles(node=DAVE, roles=(), person="Dave"),
    PolicyOrder(seed("policy")),
    Distribute(members=THREE, threshold=2),
    Refresh(),
    Reshare(members=THREE, threshold=3),
    Recover(after=seed("object"), members=THREE, threshold=2),
    WithdrawInvite(bytes(16)),
]  # fmt: skip


def reason_of(call: object, *arguments: object) -> Reason:
    assert callable(call)
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value.reason


@pytest.mark.parametrize("body", BODIES)
def test_every_kind_of_order_comes_back_as_it_was(body: Body) -> None:
    signed = sign(make_order(body))
    assert SignedOrder.unpack(signed.pack()) == signed
    assert parse_order(signed.cose).with_credentials(ALICE.credentials) == signed
    found = signed.verify(MESH.trust)
    assert found.order.body == body
    assert found.signers == (ALICE.node_id,)
    assert found.hash == signed.hash == found.order.hash
    assert found.order.session == found.hash[:16]


def test_all_kinds_of_the_registry_have_a_body() -> None:
    assert {body.kind for body in BODIES} == set(OrderKind)


def test_the_order_written_out_field_by_field_is_the_same() -> None:
    order = make_order(quarantine(), number=7)
    payload = make_map(ALICE.node_id, 3, 7, 1772366400, 1772370000, make_map(DAVE))
    aad = b"overlay/1 order\0" + MESH.mesh_id
    by_hand = sign1(payload, signer=ALICE.message, aad=aad, kid=ALICE.kid)
    signed = sign(order)
    assert signed.cose == by_hand
    shown = ALICE.credentials
    assert signed.pack() == make_map(payload, [by_hand[-64:], shown.endorsement, shown.leaf, []])


# --- what is no order -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (OrderKind.INVITE, make_map(bytes(15), ALICE.message.public_key, [], None, 1)),
        (OrderKind.INVITE, make_map(bytes(16), bytes(32), [], None, 1)),
        (OrderKind.INVITE, make_map(bytes(16), ALICE.message.public_key, ["b", "a"], None, 1)),
        (OrderKind.INVITE, make_map(bytes(16), ALICE.message.public_key, ["a", "a"], None, 1)),
        (OrderKind.INVITE, make_map(bytes(16), ALICE.message.public_key, ["A"], None, 1)),
        (OrderKind.INVITE, make_map(bytes(16), ALICE.message.public_key, [], "No Name", 1)),
        (OrderKind.INVITE, make_map(bytes(16), ALICE.message.public_key, [], None, 0)),
        (OrderKind.INVITE, make_map(bytes(16), ALICE.message.public_key, [], None, 1025)),
        (OrderKind.INVITE, make_map(bytes(16), ALICE.message.public_key, [], "dave", 2)),
        (OrderKind.REVOKE, make_map([], 1, 0, [])),
        (OrderKind.REVOKE, make_map([DAVE, DAVE], 1, 0, [])),
        (OrderKind.REVOKE, make_map(sorted([DAVE, ERIN], reverse=True), 1, 0, [])),
        (OrderKind.REVOKE, make_map([DAVE], 6, 0, [])),
        (OrderKind.REVOKE, make_map([DAVE], 1, 2**34 + 1, [])),
        (OrderKind.REVOKE, make_map([DAVE], 1, 0, [[ERIN, bytes(16), 1, bytes(32)]])),
        (OrderKind.REVOKE, make_map([DAVE], 1, 0, [[DAVE, bytes(16), 1, bytes(32)]] * 2)),
        (OrderKind.QUARANTINE, make_map(bytes(31))),
        (OrderKind.REPLACE, make_map(DAVE, DAVE)),
        (OrderKind.ROLES, make_map(DAVE, ["worker", "signer"], None)),
        (OrderKind.ROLES, make_map(DAVE, [], "")),
        (OrderKind.POLICY, make_map(bytes(31))),
        (OrderKind.DISTRIBUTE, make_map([ALICE.node_id], 1)),
        (OrderKind.DISTRIBUTE, make_map(list(THREE), 1)),
        (OrderKind.DISTRIBUTE, make_map(list(THREE), 4)),
        (OrderKind.RESHARE, make_map(sorted([*THREE, DAVE]), 2)),
        (OrderKind.RECOVER, make_map(bytes(32), list(reversed(THREE)), 2)),
        (OrderKind.REFRESH, make_map(1)),
        (OrderKind.WITHDRAW, make_map(bytes(17))),
        (OrderKind.QUARANTINE, make_map(DAVE) + b"\0"),
        (OrderKind.QUARANTINE, bytes(9000)),
    ],
)
def test_what_cannot_be_meant_is_no_order(kind: OrderKind, body: bytes) -> None:
    assert reason_of(open_body, kind, body) in {Reason.MALFORMED, Reason.TOO_LARGE}


def test_a_kind_of_a_later_version_is_refused() -> None:
    assert reason_of(open_body, 200, make_map()) is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("kind", "life"),
    [(quarantine(), DAY), (make_invite(), timedelta(days=30)), (Refresh(), timedelta(days=7))],
)
def test_an_order_that_lives_too_long_is_none(kind: Body, life: timedelta) -> None:
    sign(make_order(kind, life=life))
    for wrong in (life + timedelta(seconds=1), timedelta(), -HOUR):
        with pytest.raises(UsageError, match="this cannot be an order"):
            sign(make_order(kind, life=wrong))


def test_an_order_without_a_number_is_none() -> None:
    with pytest.raises(UsageError, match="numbered from 1"):
        sign(make_order(quarantine(), number=0))


def test_an_order_with_parts_of_a_second_or_wild_values_is_our_own_mistake() -> None:
    with pytest.raises(UsageError, match="whole seconds"):
        sign(make_order(quarantine(), begin=timedelta(milliseconds=1)))
    with pytest.raises(UsageError):
        sign(make_order(quarantine(), number=-1))


# --- who signed it --------------------------------------------------------------------------------------------------


def test_an_order_by_a_node_that_is_no_operator_is_refused() -> None:
    signed = sign(make_order(quarantine(), by=CAROL), CAROL)
    assert reason_of(signed.verify, MESH.trust) is Reason.NOT_ALLOWED


def test_an_order_in_the_name_of_another_operator_is_refused() -> None:
    signed = sign(make_order(quarantine(), by=BOB), ALICE)
    assert reason_of(signed.verify, MESH.trust) is Reason.WRONG_AUTHOR


def test_an_order_signed_by_another_key_is_refused() -> None:
    good = sign(make_order(quarantine()))
    raw = sign1(good.says.pack(), signer=BOB.message, aad=Label.ORDER + MESH.mesh_id, kid=ALICE.kid)
    forged = parse_order(raw).with_credentials(ALICE.credentials)
    assert reason_of(forged.verify, MESH.trust) is Reason.BAD_SIGNATURE


def test_an_order_of_another_mesh_is_refused() -> None:
    other = make_mesh("other")
    stranger = make_member(other, "alice", facts=LeafFacts(roles=("operator",)))
    order = make_order(quarantine(), by=stranger)
    signed = sign_order(order, signer=stranger.message, credentials=stranger.credentials, mesh_id=other.mesh_id)
    signed.verify(other.trust)
    assert reason_of(signed.verify, MESH.trust) is Reason.OTHER_MESH
    for_other = sign_order(
        make_order(quarantine()), signer=ALICE.message, credentials=ALICE.credentials, mesh_id=other.mesh_id
    )
    assert reason_of(for_other.verify, MESH.trust) is Reason.BAD_SIGNATURE


def test_a_bare_order_is_verified_under_the_endorsement_that_it_names_only() -> None:
    bare = parse_order(sign(make_order(quarantine())).cose)
    assert bare.kid == ALICE.kid
    assert reason_of(bare.with_credentials, BOB.credentials) is Reason.WRONG_AUTHOR
    assert reason_of(bare.with_credentials, operator("alice", start=2).credentials) is Reason.WRONG_AUTHOR


def test_another_signed_thing_of_an_operator_is_no_order() -> None:
    raw = sign1(make_order(quarantine()).pack(), signer=ALICE.message, aad=Label.CALL + MESH.mesh_id, kid=ALICE.kid)
    signed = parse_order(raw).with_credentials(ALICE.credentials)
    assert reason_of(signed.verify, MESH.trust) is Reason.BAD_SIGNATURE


# --- countersignatures ----------------------------------------------------------------------------------------------


def test_a_second_operator_agrees() -> None:
    signed = agree(sign(make_order(quarantine())))
    assert SignedOrder.unpack(signed.pack()) == signed
    assert signed.verify(MESH.trust).signers == (ALICE.node_id, BOB.node_id)
    assert signed.hash == sign(make_order(quarantine())).hash


def test_a_countersignature_by_a_node_that_is_no_operator_is_refused() -> None:
    assert reason_of(agree(sign(make_order(quarantine())), CAROL).verify, MESH.trust) is Reason.NOT_ALLOWED


def test_one_operator_with_two_starts_has_not_signed_twice() -> None:
    signed = agree(sign(make_order(quarantine())), operator("alice", start=2))
    assert reason_of(signed.verify, MESH.trust) is Reason.BAD_ORDER


def test_a_countersignature_under_another_order_is_refused() -> None:
    other = agree(sign(make_order(quarantine("erin"), number=1))).countersignatures
    signed = replace(sign(make_order(quarantine())), countersignatures=other)
    assert reason_of(signed.verify, MESH.trust) is Reason.BAD_SIGNATURE


def test_the_time_of_a_countersignature_is_signed() -> None:
    signed = agree(sign(make_order(quarantine())))
    (one,) = signed.countersignatures
    later = replace(signed, countersignatures=(replace(one, made_at=one.made_at + timedelta(seconds=1)),))
    assert reason_of(later.verify, MESH.trust) is Reason.BAD_SIGNATURE


def test_a_countersignature_is_not_an_order_of_its_own_and_no_order_a_countersignature() -> None:
    order = make_order(quarantine(), by=ALICE)
    signed = agree(sign(order))
    (theirs,) = signed.countersignatures
    alone = SignedOrder(order, theirs)
    assert reason_of(alone.verify, MESH.trust) is Reason.BAD_SIGNATURE
    bobs = sign(order, BOB).signature
    swapped = replace(sign(order), countersignatures=(bobs,))
    assert reason_of(swapped.verify, MESH.trust) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("at", [NOW - timedelta(minutes=6), NOW + HOUR + timedelta(minutes=6)])
def test_a_countersignature_from_outside_the_life_of_the_order_is_refused(at: datetime) -> None:
    signed = sign(make_order(quarantine()))
    late = countersign(signed, signer=BOB.message, credentials=BOB.credentials, mesh_id=MESH.mesh_id, at=at)
    assert reason_of(late.verify, MESH.trust) is Reason.BAD_ORDER


def test_whoever_started_after_the_order_can_agree_to_it() -> None:
    signed = sign(make_order(quarantine(), life=DAY))
    late = make_member(MESH, "late", facts=LeafFacts(roles=("operator",)), not_before=NOW + HOUR)
    both = countersign(
        signed, signer=late.message, credentials=late.credentials, mesh_id=MESH.mesh_id, at=NOW + 2 * HOUR
    )
    assert both.verify(MESH.trust).signers == (ALICE.node_id, late.node_id)


def test_signing_again_and_without_end_is_our_own_mistake() -> None:
    signed = agree(sign(make_order(quarantine())))
    with pytest.raises(UsageError):
        agree(signed)
    for name in ("x", "y"):
        signed = agree(signed, operator(name))
    with pytest.raises(UsageError):
        agree(signed, operator("z"))


def test_countersignatures_are_sorted_and_different() -> None:
    signed = agree(agree(sign(make_order(quarantine()))), operator("x"))
    one, two = signed.countersignatures
    for wrong in ((two, one), (one, one)):
        assert reason_of(SignedOrder.unpack, replace(signed, countersignatures=wrong).pack()) is Reason.MALFORMED
    payload, first = signed.says.pack(), signed.signature.row()
    assert reason_of(SignedOrder.unpack, make_map(payload, first, [])) is Reason.MALFORMED


# --- when -----------------------------------------------------------------------------------------------------------


def test_an_order_can_be_checked_years_later_by_who_never_met_the_operator() -> None:
    raw = agree(sign(make_order(quarantine()))).pack()
    assert SignedOrder.unpack(raw).verify(MESH.trust).order.body == quarantine()  # no clock takes part


def test_an_order_made_before_its_keys_were_in_force_is_refused() -> None:
    early = sign(make_order(quarantine(), begin=-HOUR))
    assert reason_of(early.verify, MESH.trust) is Reason.CERTIFICATE_NOT_YET_VALID


def test_an_order_made_after_its_keys_had_ended_is_refused() -> None:
    late = sign(make_order(quarantine(), begin=DAY + HOUR))
    assert reason_of(late.verify, MESH.trust) is Reason.CERTIFICATE_EXPIRED


def test_an_order_is_acted_on_while_it_is_in_force_give_or_take_five_minutes() -> None:
    signed = sign(make_order(quarantine()))
    minute = timedelta(minutes=1)
    for at in (NOW - 5 * minute, NOW, NOW + HOUR + 5 * minute):
        signed.verify_now(MESH.trust, at)
    assert reason_of(signed.verify_now, MESH.trust, NOW - 6 * minute) is Reason.CLOCK
    assert reason_of(signed.verify_now, MESH.trust, NOW + HOUR + 6 * minute) is Reason.BAD_ORDER


def test_who_found_old_keys_of_an_operator_cannot_date_an_order_back() -> None:
    signed = sign(make_order(make_invite(), life=timedelta(days=30)))
    signed.verify_now(MESH.trust, NOW + DAY)
    assert reason_of(signed.verify_now, MESH.trust, NOW + DAY + HOUR) is Reason.ENDORSEMENT_EXPIRED


def test_an_operator_in_quarantine_orders_nothing() -> None:
    for barred in (ALICE, BOB):
        trust = MESH.trust.with_quarantine(InForce(barred.node_id, NOW + HOUR, bytes(32)))
        signed = agree(sign(make_order(quarantine())))
        assert reason_of(signed.verify, trust) is Reason.QUARANTINED
        assert reason_of(signed.verify_now, trust, NOW) is Reason.QUARANTINED


def test_nothing_of_a_signature_shows_in_a_log() -> None:
    signed = sign(make_order(make_invite()))
    assert signed.signature.signature.hex()[:16] not in repr(signed)
    assert isinstance(signed.signature, OrderSignature)
    assert repr(parse_order(signed.cose)).count("b'") <= 2  # the invite's id, and no key
    assert isinstance(signed.says.body, Invite)


def test_one_flipped_bit_in_any_byte_is_refused() -> None:
    signed = agree(sign(make_order(quarantine())))
    raw = signed.pack()
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(Refused):
            SignedOrder.unpack(bytes(damaged)).verify(MESH.trust)


def test_one_flipped_bit_in_a_bare_order_is_refused() -> None:
    raw = sign(make_order(make_invite())).cose
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(Refused):
            parse_order(bytes(damaged)).with_credentials(ALICE.credentials).verify(MESH.trust)


def test_what_is_too_long_is_refused_before_it_is_read() -> None:
    assert reason_of(SignedOrder.unpack, bytes(100_000)) is Reason.TOO_LARGE
    assert reason_of(parse_order, b"\xd2" + bytes(20_000)) is Reason.TOO_LARGE
    assert reason_of(Order.unpack, bytes(20_000)) is Reason.TOO_LARGE


def test_the_largest_orders_fit() -> None:
    nodes = tuple(sorted(NodeId(seed("n", str(number))) for number in range(64)))
    ends = {(bytes(node), bytes(16)): LogEnd(2**63, bytes(32)) for node in nodes}
    body = Revoke(nodes=nodes, reason=RevocationReason.CESSATION, since=datetime(2026, 1, 1, tzinfo=UTC), ends=ends)
    signed = sign(make_order(body))
    assert parse_sign1(signed.cose, limit=16_384).payload == signed.says.pack()
    assert signed.verify(MESH.trust).order.body == body
