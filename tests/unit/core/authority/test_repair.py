"""Repair: t others give a member its share back, none of them learns it, and who lies is named."""

import math
from dataclasses import replace
from typing import Any

import pytest

from overlay.core.authority.cocktail_primitives import sha512
from overlay.core.authority.dealing import group_hash
from overlay.core.authority.group import BASE, Scalar
from overlay.core.authority.repair import Repair, RepairPlan
from overlay.core.authority.run_events import Failed, FailedElsewhere, Finished, Ignored
from overlay.core.authority.runs import ROUND_TIMEOUT
from overlay.core.authority.sharing import Share
from overlay.core.authority.statements import Board
from overlay.core.keys import NodeId
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import Reason, RoundKind
from tests.unit.core.authority.runs_kit import (
    Sent,
    Wire,
    bytes_to_id,
    generated,
    ids,
    repair_plan,
    repairing,
    said_otherwise,
    signer_of,
)
from tests.unit.core.session_kit import SeededChance

MEMBERS = ids(5)
ALICE, BOB, CAROL, DAVE, ERIN = MEMBERS
SHARES = generated(5, 3)
PLAN = repair_plan(SHARES, ERIN, MEMBERS)  # Alice, Bob and Carol help
HELPERS = (ALICE, BOB, CAROL)


def mending() -> Wire:
    return repairing(SHARES, PLAN)


def failures(wire: Wire, member: NodeId) -> list[Failed]:
    return [event for event in wire.events[member] if isinstance(event, Failed)]


def failed_for(wire: Wire, member: NodeId) -> Failed:
    (failed,) = failures(wire, member)
    assert wire.machines[member].result is None
    assert (wire.machines[member]._share, wire.machines[member]._parts) == (None, {})
    assert wire.machines[member].deadline == math.inf
    return failed


@pytest.mark.parametrize("lost", MEMBERS)
def test_whoever_lost_its_share_has_it_again(lost: NodeId) -> None:
    wire = repairing(SHARES, repair_plan(SHARES, lost, MEMBERS))
    wire.run()
    assert all(events == [Finished()] for events in wire.events.values())
    assert wire.machines[lost].result == SHARES[lost]
    assert all(machine.result is None for member, machine in wire.machines.items() if member != lost)


def test_no_message_holds_a_share() -> None:
    bodies: list[bytes] = []

    def look(sent: Sent) -> list[Sent]:
        bodies.append(sent[3])
        return [sent]

    wire = mending()
    wire.run(change=look)
    secrets = [share.secret.encode() for share in SHARES.values()]
    assert wire.machines[ERIN].result == SHARES[ERIN]
    assert not any(secret in body for secret in secrets for body in bodies)


def test_the_same_message_twice_is_harmless() -> None:
    wire = mending()
    wire.run(change=lambda sent: [sent, sent])
    assert wire.machines[ERIN].result == SHARES[ERIN]


def test_a_lost_link_is_made_up_for() -> None:
    wire = mending()
    wire.run(change=lambda sent: [] if sent[:2] == (ALICE, BOB) else [sent])
    assert wire.machines[ERIN].result is None
    wire.queue += [(ALICE, *message) for message in wire.machines[ALICE].messages_again(BOB)]
    wire.run()
    assert wire.machines[ERIN].result == SHARES[ERIN]


@pytest.mark.parametrize(
    "change",
    [
        {"helpers": (ALICE, BOB)}, {"helpers": (*HELPERS, DAVE)}, {"helpers": (BOB, ALICE, CAROL)}, {"lost": ALICE},
        {"helpers": (ALICE, BOB, bytes_to_id(99))}, {"members": MEMBERS[:4], "lost": DAVE}, {"members": (*MEMBERS[:4], DAVE)},
    ],
)  # fmt: skip
def test_a_plan_that_makes_no_sense_is_our_own_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(PLAN, **change)


def start(member: NodeId, share: Share | None) -> Repair:
    return Repair(PLAN, member, share, SeededChance(1), 0.0, signer=signer_of(member))


def test_a_share_of_another_generation_helps_nobody() -> None:
    for share in (replace(SHARES[ALICE], generation=1), generated(5, 3, seed=4)[ALICE]):
        with pytest.raises(Refused) as refused:
            start(ALICE, share)
        assert refused.value.reason is Reason.WRONG_GENERATION


def test_who_takes_no_part_or_has_nothing_to_help_with_is_our_own_error() -> None:
    for member, share in ((ALICE, None), (ERIN, SHARES[ERIN]), (DAVE, SHARES[DAVE])):
        with pytest.raises(ValueError, match="helper"):
            start(member, share)


def test_what_has_no_place_is_ignored() -> None:
    wire = mending()
    for member, sender, kind in (
        (ALICE, DAVE, RoundKind.REPAIR_DELTA), (ALICE, BOB, RoundKind.REPAIR_REQUEST), (ALICE, BOB, RoundKind.REPAIR_SUM),
        (ALICE, ERIN, RoundKind.REPAIR_DELTA), (ALICE, BOB, RoundKind.KEY_ECHO),
    ):  # fmt: skip
        (event,) = wire.machines[member].receive(sender, kind, b"", 0.0)
        assert isinstance(event, Ignored)
    wire.run()
    assert wire.machines[ERIN].result == SHARES[ERIN]


@pytest.mark.parametrize("change", ["generation", "key"])
def test_a_request_for_another_generation_is_not_answered(change: str) -> None:
    content = make_map(1 if change == "generation" else 0, bytes(32) if change == "key" else group_hash(PLAN.group))
    body = said_otherwise(PLAN.terms(), ERIN, RoundKind.REPAIR_REQUEST, content)
    wire = mending()
    wire.run(change=lambda sent: [(*sent[:3], body)] if sent[2] is RoundKind.REPAIR_REQUEST else [sent])
    for helper in HELPERS:
        failed = failed_for(wire, helper)
        assert failed.reason is Reason.WRONG_GENERATION
    assert wire.machines[ERIN].result is None


# --- Silence and lies ---


def test_before_its_time_nothing_is_due() -> None:
    machine = mending().machines[ALICE]
    assert machine.tick(ROUND_TIMEOUT - 0.1) == []
    assert machine.deadline == ROUND_TIMEOUT


@pytest.mark.parametrize("kind", [RoundKind.REPAIR_DELTA, RoundKind.REPAIR_SUM])
def test_a_silent_helper_is_named(kind: RoundKind) -> None:
    wire = mending()
    wire.run(change=lambda sent: [] if sent[0] == CAROL and sent[2] >= kind else [sent])
    wire.remove(CAROL)
    wire.tick_all(ROUND_TIMEOUT - 1)
    assert failures(wire, ERIN) == []
    wire.tick_all(ROUND_TIMEOUT)
    failed = failed_for(wire, ERIN)
    assert (failed.reason, failed.named[-1]) == (Reason.TIMEOUT, CAROL)
    if kind is RoundKind.REPAIR_DELTA:
        assert failed_for(wire, ALICE).named == (CAROL,)


def test_a_helper_that_is_never_asked_gives_up_and_names_the_loser() -> None:
    machine = mending().machines[ALICE]
    (failed,) = machine.tick(ROUND_TIMEOUT)
    assert (failed.reason, failed.named) == (Reason.TIMEOUT, (ERIN,))


def carols_parts() -> list[Scalar]:
    """Parts that add up to what they should."""
    first, second = (Scalar.reduce(sha512(bytes([number]))) for number in (1, 2))
    return [first, second, PLAN.factor(CAROL) * SHARES[CAROL].secret - first - second]


def carol_deals(wire: Wire, parts: list[Scalar], given: list[Scalar], *, to: NodeId | None = None) -> None:
    """Carol commits to `parts` and hands out `given`, instead of what her machine does."""
    content = make_map([(BASE * part).encode() for part in parts])
    statement = Board(PLAN.terms(), CAROL, signer_of(CAROL)).say(RoundKind.REPAIR_DELTA, content)

    def change(sent: Sent) -> list[Sent]:
        if sent[:1] != (CAROL,) or sent[2] is not RoundKind.REPAIR_DELTA or to not in (None, sent[1]):
            return [sent]
        extra = None if sent[1] == ERIN else given[HELPERS.index(sent[1])].encode()
        return [(*sent[:3], statement.pack(extra))]

    wire.run(change=change)


def test_a_part_that_does_not_fit_its_commitment_is_named() -> None:
    wire = mending()
    parts = carols_parts()
    carol_deals(wire, parts, [Scalar.of(5), *parts[1:]])
    failed = failed_for(wire, ALICE)
    assert (failed.reason, failed.named) == (Reason.BAD_SHARE, (CAROL,))
    assert wire.machines[ERIN].result is None


def test_parts_that_are_not_of_the_helpers_share_are_named() -> None:
    wire = mending()
    parts = [Scalar.of(5), *carols_parts()[1:]]
    carol_deals(wire, parts, parts)
    for member in (ALICE, BOB, ERIN):
        failed = failures(wire, member)[0]
        assert (failed.reason, failed.named) == (Reason.BAD_SHARE, (CAROL,))


def test_other_commitments_for_one_are_seen_by_the_loser_and_proven() -> None:
    """Each set is good by itself; Bob's sum would look wrong, and Bob would be blamed."""
    wire = mending()
    parts = carols_parts()
    carol_deals(wire, parts, parts, to=BOB)
    failed = failed_for(wire, ERIN)
    assert (failed.reason, failed.named) == (Reason.EQUIVOCATION, (CAROL,))
    assert failed.proof is not None
    failed.proof.verify(PLAN.terms())


def test_a_wrong_sum_is_named() -> None:
    wire = mending()

    def change(sent: Sent) -> list[Sent]:
        if (sent[0], sent[2]) != (CAROL, RoundKind.REPAIR_SUM):
            return [sent]
        (said,) = wire.machines[CAROL]._room.board.statements(RoundKind.REPAIR_SUM, [CAROL])
        return [(*sent[:3], said.pack(Scalar.of(5).encode()))]

    wire.run(change=change)
    failed = failed_for(wire, ERIN)
    assert (failed.reason, failed.named) == (Reason.BAD_SHARE, (CAROL,))


@pytest.mark.parametrize("extra", [None, b"short", b"\xff" * 32])
def test_a_part_that_is_no_scalar_is_named(extra: bytes | None) -> None:
    content = make_map([(BASE * part).encode() for part in carols_parts()])
    statement = Board(PLAN.terms(), CAROL, signer_of(CAROL)).say(RoundKind.REPAIR_DELTA, content)
    (failed,) = mending().machines[ALICE].receive(CAROL, RoundKind.REPAIR_DELTA, statement.pack(extra), 0.0)
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.named) == (Reason.MALFORMED, (CAROL,))


def test_another_number_of_parts_is_refused() -> None:
    body = said_otherwise(PLAN.terms(), CAROL, RoundKind.REPAIR_DELTA, make_map([BASE.encode()] * 2))
    (failed,) = mending().machines[ERIN].receive(CAROL, RoundKind.REPAIR_DELTA, body, 0.0)
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.named) == (Reason.MALFORMED, (CAROL,))


def test_a_helper_that_was_done_hears_that_the_loser_failed() -> None:
    wire = mending()
    wire.run(change=lambda sent: [] if sent[2] is RoundKind.REPAIR_SUM else [sent])
    assert wire.events[ALICE] == [Finished()]
    wire.tick_all(ROUND_TIMEOUT)
    wire.run()
    assert wire.events[ALICE] == [Finished(), FailedElsewhere(ERIN, Reason.TIMEOUT)]


def test_secrets_do_not_show() -> None:
    wire = mending()
    wire.run(change=lambda sent: [] if sent[2] is RoundKind.REPAIR_SUM else [sent])
    machine = mending().machines[ALICE]
    assert SHARES[ALICE].secret.encode().hex() not in repr(machine) + repr(machine._share) + repr(PLAN)
    assert isinstance(PLAN, RepairPlan)
