"""What orders revoke, and which lists a signer signs: everything that was ordered, and nothing else."""

from dataclasses import replace
from datetime import timedelta

import pytest

from overlay.core.authority.order_bodies import Quarantine, Replace, Revoke
from overlay.core.authority.order_payload import Order
from overlay.core.authority.revoking import AHEAD_MAX, check_list, next_list, ordered
from overlay.core.keys import NodeId
from overlay.core.members import Members
from overlay.core.revocation_profile import (
    LIST_LIFE,
    ListFacts,
    LogEnd,
    LogName,
    Mark,
    RevocationReason,
    Revocations,
    serial_bytes,
)
from overlay.core.trust import TrustSet
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority.order_kit import ALICE, CAROL, DAVE, ERIN, MESH, make_order
from tests.unit.core.authority_kit import DAY, HOUR, NOW, make_member, seed
from tests.unit.core.revocation_kit import make_list

BODY = Revoke(nodes=(CAROL.node_id,), reason=RevocationReason.KEY_COMPROMISE, since=NOW - HOUR)
GIVEN = NOW - HOUR / 2
ORDER = make_order(BODY, begin=-HOUR / 2)
SERIAL = serial_bytes(CAROL.peer.certificate.serial)
MEMBERS = Members().with_certificate(ALICE.peer.certificate).with_certificate(CAROL.peer.certificate)


def due(*orders: Order, trust: TrustSet = MESH.trust) -> ListFacts:
    found = next_list(trust, orders, MEMBERS, NOW)
    assert found is not None
    return found


def refusal(facts: ListFacts, *orders: Order, trust: TrustSet = MESH.trust, members: Members = MEMBERS) -> Reason:
    with pytest.raises(Refused) as refused:
        check_list(facts, trust, orders, members, NOW)
    return refused.value.reason


def with_node(facts: ListFacts, node: NodeId) -> ListFacts:
    mark = Mark(GIVEN, GIVEN, RevocationReason.SUPERSEDED)
    return replace(facts, revocations=facts.revocations.merged(Revocations(nodes={node: mark})))


def test_a_revoked_node_is_named_by_id_and_by_the_serial_of_its_certificate() -> None:
    found = due(ORDER)
    assert found.number == 1
    assert (found.this_update, found.next_update) == (GIVEN, GIVEN + LIST_LIFE)
    assert found.revocations.nodes == {CAROL.node_id: Mark(NOW - HOUR, GIVEN, RevocationReason.KEY_COMPROMISE)}
    assert set(found.revocations.serials) == {SERIAL}


def test_nothing_is_due_once_all_that_is_ordered_is_revoked() -> None:
    facts = due(ORDER)
    trust = MESH.trust.with_list(make_list(MESH, facts.revocations, number=facts.number))
    assert next_list(trust, [ORDER], MEMBERS, NOW) is None
    assert next_list(MESH.trust, [], MEMBERS, NOW) is None


def test_the_next_list_has_a_higher_number_and_keeps_what_was_revoked() -> None:
    first = due(ORDER)
    trust = MESH.trust.with_list(make_list(MESH, first.revocations, number=7))
    second = due(make_order(Replace(old=DAVE, new=ERIN), number=2), trust=trust)
    assert second.number == 8
    assert second.revocations.covers(first.revocations)
    assert set(second.revocations.nodes) == {CAROL.node_id, DAVE}


def test_a_replaced_node_is_revoked_as_superseded() -> None:
    found = ordered([make_order(Replace(old=DAVE, new=ERIN))])
    assert found.nodes == {DAVE: Mark(NOW, NOW, RevocationReason.SUPERSEDED)}


def test_no_revocation_says_that_a_key_went_bad_after_the_order() -> None:
    found = ordered([make_order(replace(BODY, since=NOW + DAY))])
    assert found.nodes[CAROL.node_id] == Mark(NOW, NOW, RevocationReason.KEY_COMPROMISE)


def test_a_quarantine_revokes_nobody() -> None:
    assert ordered([make_order(Quarantine(CAROL.node_id))]) == Revocations()


def test_where_the_logs_of_a_revoked_node_end_stands_in_the_list() -> None:
    ends: dict[LogName, LogEnd] = {(CAROL.node_id, bytes(16)): LogEnd(5, seed("last"))}
    assert due(make_order(replace(BODY, ends=ends))).revocations.ends == ends


def test_an_operator_whose_clock_is_ahead_revokes_none_the_less() -> None:
    ahead = make_order(BODY, begin=timedelta(minutes=4))
    facts = due(ahead)
    assert facts.this_update == NOW + timedelta(minutes=4)
    check_list(facts, MESH.trust, [ahead], MEMBERS, NOW)


def test_a_certificate_that_has_ended_needs_no_entry() -> None:
    found = next_list(MESH.trust, [ORDER], MEMBERS, NOW + 2 * DAY)
    assert found is not None and not found.revocations.serials


def test_the_list_that_is_due_is_signed() -> None:
    check_list(due(ORDER), MESH.trust, [ORDER], MEMBERS, NOW)


def test_a_signer_that_has_not_seen_the_certificate_signs_a_list_without_its_serial() -> None:
    check_list(replace(due(ORDER), revocations=ordered([ORDER])), MESH.trust, [ORDER], MEMBERS, NOW)


@pytest.mark.parametrize("number", [1, 6, 7])
def test_a_number_that_goes_back_is_not_signed(number: int) -> None:
    facts = due(ORDER)
    trust = MESH.trust.with_list(make_list(MESH, ordered([ORDER]), number=7))  # without the serial, so there is news
    assert refusal(replace(facts, number=number), ORDER, trust=trust) is Reason.BAD_REVOCATION_LIST


@pytest.mark.parametrize("ahead", [AHEAD_MAX + 1, 2**63 - 1])
def test_a_number_after_which_there_could_be_no_other_is_not_signed(ahead: int) -> None:
    assert refusal(replace(due(ORDER), number=ahead), ORDER) is Reason.BAD_REVOCATION_LIST
    check_list(replace(due(ORDER), number=AHEAD_MAX), MESH.trust, [ORDER], MEMBERS, NOW)


def test_a_number_that_somebody_had_us_bind_and_never_used_is_no_end_of_revoking() -> None:
    facts = replace(due(ORDER), number=AHEAD_MAX + 1)
    check_list(facts, MESH.trust, [ORDER], MEMBERS, NOW, bound=AHEAD_MAX)


def test_a_list_that_says_nothing_new_is_not_signed() -> None:
    facts = due(ORDER)
    assert refusal(replace(facts, revocations=Revocations())) is Reason.BAD_REVOCATION_LIST
    trust = MESH.trust.with_list(make_list(MESH, facts.revocations))
    assert refusal(replace(facts, number=2), ORDER, trust=trust) is Reason.BAD_REVOCATION_LIST


def test_a_list_that_leaves_out_what_is_revoked_is_not_signed() -> None:
    trust = MESH.trust.with_list(make_list(MESH, due(ORDER).revocations))
    other = make_order(Replace(old=DAVE, new=ERIN), number=2, begin=-HOUR / 2)
    facts = replace(due(ORDER), number=2, revocations=ordered([other]))
    assert refusal(facts, ORDER, other, trust=trust) is Reason.BAD_REVOCATION_LIST


def test_a_list_with_a_node_that_nobody_ordered_is_not_signed() -> None:
    assert refusal(with_node(due(ORDER), ALICE.node_id), ORDER) is Reason.BAD_REVOCATION_LIST


def test_a_list_with_a_serial_of_somebody_else_is_not_signed() -> None:
    facts, mark = due(ORDER), Mark(NOW - HOUR, GIVEN, RevocationReason.KEY_COMPROMISE)
    more = Revocations(serials={serial_bytes(ALICE.peer.certificate.serial): mark})
    assert refusal(replace(facts, revocations=facts.revocations.merged(more)), ORDER) is Reason.BAD_REVOCATION_LIST


def test_a_list_without_any_order_is_not_signed() -> None:
    assert refusal(due(ORDER)) is Reason.BAD_REVOCATION_LIST


def test_a_list_that_ends_a_log_that_nobody_ended_is_not_signed() -> None:
    more = Revocations(ends={(ALICE.node_id, bytes(16)): LogEnd(1, seed("last"))})
    facts = due(ORDER)
    assert refusal(replace(facts, revocations=facts.revocations.merged(more)), ORDER) is Reason.BAD_REVOCATION_LIST


def of_time(minutes: int) -> ListFacts:
    begin = NOW + timedelta(minutes=minutes)
    return replace(due(ORDER), this_update=begin, next_update=begin + LIST_LIFE)


def test_a_list_of_a_time_that_is_still_to_come_is_not_signed() -> None:
    assert refusal(of_time(6), ORDER) is Reason.CLOCK


def test_clocks_that_are_four_minutes_apart_do_not_matter() -> None:
    check_list(of_time(4), MESH.trust, [ORDER], MEMBERS, NOW)


def test_signers_that_hold_the_same_orders_propose_the_same_list_whatever_their_clocks_say() -> None:
    assert next_list(MESH.trust, [ORDER], MEMBERS, NOW + timedelta(minutes=3)) == due(ORDER)


def test_a_number_that_is_bound_otherwise_is_passed_over_in_the_next_attempt() -> None:
    facts = next_list(MESH.trust, [ORDER], MEMBERS, NOW, 2)
    assert facts is not None and facts.number == 3
    check_list(facts, MESH.trust, [ORDER], MEMBERS, NOW)


def test_a_list_that_lives_longer_than_lists_do_is_not_signed() -> None:
    assert refusal(replace(due(ORDER), next_update=GIVEN + LIST_LIFE + DAY), ORDER) is Reason.CLOCK


def test_older_serials_of_a_revoked_node_may_stand_in_a_list_of_a_signer_that_knows_less() -> None:
    older = make_member(MESH, "carol", not_before=NOW - HOUR)
    members = Members().with_certificate(older.peer.certificate).with_certificate(CAROL.peer.certificate)
    facts = next_list(MESH.trust, [ORDER], Members().with_certificate(older.peer.certificate), NOW)
    assert facts is not None
    check_list(facts, MESH.trust, [ORDER], members, NOW)
