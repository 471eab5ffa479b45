"""Who may order what: one operator, two where there are two, and one person is one operator."""

from dataclasses import replace

import pytest

from overlay.core.authority.group_orders import Distribute, Recover, Refresh, Reshare
from overlay.core.authority.order_bodies import Body, GrantRoles, PolicyOrder, Replace, Revoke, WithdrawInvite
from overlay.core.authority.order_rules import Standing, judge
from overlay.core.authority.orders import VerifiedOrder
from overlay.core.authority.policy_strictness import is_looser
from overlay.core.policy import Attestation, Mode, Policy
from overlay.core.revocation_profile import RevocationReason
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority.order_kit import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    ERIN,
    make_invite,
    operator,
    quarantine,
    standing,
    verified,
)
from tests.unit.core.authority_kit import NOW, Member, seed

MEMBERS = tuple(sorted([ALICE.node_id, BOB.node_id, CAROL.node_id]))
BOTH = standing(ALICE, BOB)
ALONE = standing(ALICE)


def revoke(*nodes: Member) -> Revoke:
    return Revoke(nodes=tuple(sorted(one.node_id for one in nodes)), reason=RevocationReason.CESSATION, since=NOW)


def refusal(order: VerifiedOrder, known: Standing, proposed: Policy | None = None) -> Reason:
    with pytest.raises(Refused) as caught:
        judge(order, known, proposed)
    return caught.value.reason


GRAVE: list[Body] = [
    Distribute(members=MEMBERS, threshold=2),
    Reshare(members=MEMBERS, threshold=2),
    Recover(after=bytes(32), members=MEMBERS, threshold=2),
    revoke(BOB),
    revoke(BOB, CAROL),
    revoke(ALICE),
    GrantRoles(node=BOB.node_id, roles=("worker",)),
    GrantRoles(node=CAROL.node_id, roles=("signer", "worker")),
    GrantRoles(node=CAROL.node_id, roles=("scheduler",)),
    GrantRoles(node=CAROL.node_id, roles=("submit",)),
    GrantRoles(node=CAROL.node_id, roles=("operator",)),
    make_invite(roles=("signer",)),
    make_invite(roles=("operator",)),
    make_invite(roles=("scheduler",)),
    make_invite(roles=("submit",)),
    Replace(old=BOB.node_id, new=ERIN),
    Replace(old=DAVE, new=ERIN),  # a signer
    Replace(old=ERIN, new=DAVE),  # nobody knows what erin is
]

EVERYDAY: list[Body] = [
    make_invite(),
    make_invite(roles=()),
    revoke(CAROL),
    quarantine(),
    Replace(old=CAROL.node_id, new=ERIN),
    GrantRoles(node=CAROL.node_id, roles=("worker",)),
    GrantRoles(node=CAROL.node_id, roles=()),
    Refresh(),
    WithdrawInvite(bytes(16)),
]


@pytest.mark.parametrize("body", GRAVE)
def test_what_could_take_the_mesh_away_takes_two_operators_where_there_are_two(body: Body) -> None:
    assert refusal(verified(body), BOTH) is Reason.NOT_ALLOWED
    judge(verified(body, BOB), BOTH)
    judge(verified(body), ALONE)


@pytest.mark.parametrize("body", EVERYDAY)
def test_one_operator_is_enough_for_everything_else(body: Body) -> None:
    judge(verified(body), BOTH)


def test_a_node_that_is_no_operator_leaves_by_its_own_order_and_takes_nobody_along() -> None:
    judge(verified(revoke(CAROL), by=CAROL), BOTH)
    with pytest.raises(Refused) as caught:
        verified(revoke(CAROL, BOB), by=CAROL)
    assert caught.value.reason is Reason.NOT_ALLOWED


def test_one_operator_quarantines_another_alone() -> None:
    judge(verified(type(quarantine())(BOB.node_id)), BOTH)


def test_an_operator_in_quarantine_still_counts_as_one_of_two() -> None:
    known = standing(ALICE, BOB, barred=(BOB,))
    assert refusal(verified(revoke(BOB)), known) is Reason.NOT_ALLOWED


def test_whoever_is_no_operator_any_more_orders_nothing() -> None:
    assert refusal(verified(quarantine()), standing(BOB)) is Reason.NOT_ALLOWED
    assert refusal(verified(revoke(CAROL), BOB), ALONE) is Reason.NOT_ALLOWED


def test_whoever_is_revoked_or_in_quarantine_orders_nothing() -> None:
    assert refusal(verified(quarantine()), standing(ALICE, BOB, barred=(ALICE,))) is Reason.NOT_ALLOWED
    assert refusal(verified(revoke(BOB), BOB), standing(ALICE, BOB, barred=(BOB,))) is Reason.NOT_ALLOWED


# --- persons --------------------------------------------------------------------------------------------------------


def test_one_person_with_two_certificates_is_one_operator() -> None:
    desk, laptop, other = operator("desk", "Ann"), operator("laptop", "Ann"), operator("other", "Ben")
    body = revoke(other)
    known = standing(desk, laptop, other)
    assert refusal(verified(body, laptop, by=desk), known) is Reason.NOT_ALLOWED
    judge(verified(body, other, by=desk), known)


def test_two_nodes_of_the_only_person_are_not_two_operators() -> None:
    desk, laptop = operator("desk", "Ann"), operator("laptop", "Ann")
    judge(verified(revoke(laptop), by=desk), standing(desk, laptop))


def test_two_nodes_that_name_nobody_are_two_operators() -> None:
    judge(verified(revoke(BOB), BOB), BOTH)


def test_where_operators_are_named_no_nameless_one_is_made() -> None:
    desk, other = operator("desk", "Ann"), operator("other", "Ben")
    known = standing(desk, other)
    for body in (make_invite(roles=("operator",)), GrantRoles(node=CAROL.node_id, roles=("operator",))):
        assert refusal(verified(body, other, by=desk), known) is Reason.NOT_ALLOWED
    judge(verified(GrantRoles(node=CAROL.node_id, roles=("operator",), person="Cem"), other, by=desk), known)
    judge(verified(make_invite(roles=("signer",)), other, by=desk), known)


# --- policies -------------------------------------------------------------------------------------------------------

CURRENT = Policy(
    version=3, attestation=Attestation.REQUIRE, mode=Mode.ENFORCE, minimum_level=2, pcr_bitmap=0b11, pcr_digests=(bytes(32),)
)
UNDER_CURRENT = standing(ALICE, BOB, policy=CURRENT)


def policy(**fields: object) -> Policy:
    return replace(CURRENT, **({"version": 4} | fields))  # type: ignore[arg-type]


def about(proposed: Policy) -> PolicyOrder:
    return PolicyOrder(sha256(proposed.pack()))


STRICTER = [policy(), policy(minimum_level=3), policy(pcr_bitmap=0b111), policy(pcr_digests=(seed("x"), seed("y")))]
LOOSER = [
    policy(minimum_level=1),
    policy(attestation=Attestation.OFF),
    policy(attestation=Attestation.PREFER),
    policy(mode=Mode.WARN),
    policy(mode=Mode.LEARN),
    policy(pcr_bitmap=0b101),
]


@pytest.mark.parametrize("proposed", STRICTER)
def test_one_operator_orders_a_policy_that_is_as_strict(proposed: Policy) -> None:
    assert not is_looser(proposed, CURRENT)
    judge(verified(about(proposed)), UNDER_CURRENT, proposed)


@pytest.mark.parametrize("proposed", LOOSER)
def test_a_looser_policy_takes_two(proposed: Policy) -> None:
    assert refusal(verified(about(proposed)), UNDER_CURRENT, proposed) is Reason.NOT_ALLOWED
    judge(verified(about(proposed), BOB), UNDER_CURRENT, proposed)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_policy_with_a_version_that_is_not_higher_is_refused(version: int) -> None:
    proposed = policy(version=version)
    assert refusal(verified(about(proposed), BOB), UNDER_CURRENT, proposed) is Reason.BAD_POLICY


def test_a_policy_that_the_order_does_not_name_is_refused() -> None:
    order = verified(about(policy()), BOB)
    assert refusal(order, UNDER_CURRENT, policy(minimum_level=5)) is Reason.BAD_ORDER
    assert refusal(order, UNDER_CURRENT) is Reason.BAD_ORDER
