"""Refresh and resharing: the key stays, the shares are new, and until all have certified nothing has happened."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from overlay.core.authority.cocktail_primitives import SealKey, random_scalar, sha512
from overlay.core.authority.dealing import Deal, Opening, Plan, combine_deals, group_hash
from overlay.core.authority.group import BASE, Scalar
from overlay.core.authority.resharing import Resharing
from overlay.core.authority.run_events import Failed, FailedElsewhere, Finished, Ignored
from overlay.core.authority.runs import ROUND_TIMEOUT
from overlay.core.authority.sharing import Share
from overlay.core.keys import NodeId
from overlay.errors import Refused
from overlay.registry import Reason, RoundKind
from tests.unit.core.authority.runs_kit import (
    SESSION,
    Sent,
    Wire,
    bytes_to_id,
    check_shares,
    generated,
    ids,
    plan,
    resharing,
    said_otherwise,
    secret_of,
    signer_of,
)  # fmt: skip
from tests.unit.core.session_kit import SeededChance

OLD = ids(5)
ALICE, BOB, CAROL, DAVE, ERIN = OLD
SHARES = generated(5, 4)
GROUP = SHARES[ALICE].group
DAY = 24 * 3600.0


def refresh_plan(**more: object) -> Plan:
    return plan(SHARES, OLD, 4, **more)


def new_shares(wire: Wire) -> list[Share]:
    results = [machine.result for machine in wire.machines.values()]
    return [result.share for result in results if result is not None and result.share is not None]


def failures(wire: Wire, member: NodeId) -> list[Failed]:
    return [event for event in wire.events[member] if isinstance(event, Failed)]


def nothing_has_happened(wire: Wire, *, but: Mapping[NodeId, object] | tuple[NodeId, ...] = ()) -> None:
    for member, machine in wire.machines.items():
        if member not in but:
            assert machine.result is None
            assert not any(isinstance(event, Finished) for event in wire.events[member])


def until(wire: Wire, kind: RoundKind) -> None:
    """Deliver until only messages of that kind, or later ones, are on the wire."""
    while any(sent[2] < kind for sent in wire.queue):
        wire.deliver(wire.queue.pop(next(at for at, sent in enumerate(wire.queue) if sent[2] < kind)))


# --- It works ---


def test_a_refresh_gives_new_shares_of_the_same_key() -> None:
    wire = resharing(SHARES, refresh_plan())
    wire.run()
    assert all(events == [Finished()] for events in wire.events.values())
    found = new_shares(wire)
    assert len(found) == 5
    assert {share.generation for share in found} == {1}
    assert found[0].group.public == GROUP.public
    assert found[0].group.shares != GROUP.shares
    check_shares(found, found[0].group)
    assert not {share.secret.encode() for share in found} & {share.secret.encode() for share in SHARES.values()}


def test_five_of_seven_take_over_without_the_dead_one() -> None:
    members = tuple(sorted({ALICE, BOB, CAROL, DAVE, *ids(3, 5)}))
    wire = resharing(SHARES, plan(SHARES, members, 5, dealers=(ALICE, BOB, CAROL, DAVE)))
    assert ERIN not in wire.machines
    wire.run()
    found = new_shares(wire)
    assert len(found) == 7
    assert (found[0].group.threshold, found[0].group.public) == (5, GROUP.public)
    check_shares(found, found[0].group)


def test_a_dealer_that_is_no_member_any_more_finishes_without_a_share() -> None:
    wire = resharing(SHARES, plan(SHARES, ids(3, 10), 2))
    wire.run()
    assert all(events == [Finished()] for events in wire.events.values())
    assert wire.machines[ALICE].result.share is None
    assert len(new_shares(wire)) == 3


def test_shares_of_two_generations_do_not_make_the_key() -> None:
    wire = resharing(SHARES, refresh_plan())
    wire.run()
    mixed = [SHARES[ALICE], *new_shares(wire)[1:4]]
    assert (BASE * secret_of(mixed)).encode() != GROUP.public


def test_every_certificate_is_of_the_same_outcome() -> None:
    wire = resharing(SHARES, refresh_plan())
    wire.run()
    result = wire.machines[BOB].result
    assert {statement.content for statement in result.certificates} == {result.transcript_hash}
    assert [statement.author for statement in result.certificates] == list(OLD)
    assert {machine.result.transcript_hash for machine in wire.machines.values()} == {result.transcript_hash}


def test_the_same_message_twice_is_harmless() -> None:
    wire = resharing(SHARES, refresh_plan())
    wire.run(change=lambda sent: [sent, sent])
    assert all(events == [Finished()] for events in wire.events.values())


def test_after_a_lost_link_everything_is_sent_again() -> None:
    wire = resharing(SHARES, refresh_plan())
    wire.run(change=lambda sent: [] if sent[:2] == (ALICE, BOB) else [sent])
    nothing_has_happened(wire)
    wire.queue += [(ALICE, *message) for message in wire.machines[ALICE].messages_again(BOB)]
    wire.run()
    assert all(events == [Finished()] for events in wire.events.values())


def test_a_certificate_that_was_lost_comes_with_those_of_the_others() -> None:
    wire = resharing(SHARES, refresh_plan())
    wire.run(change=lambda sent: [] if sent[:3] == (ALICE, BOB, RoundKind.RESHARE_CERTIFICATE) else [sent])
    assert wire.events[BOB] == [Finished()]


def test_what_has_no_place_in_the_run_is_ignored() -> None:
    machine = resharing(SHARES, refresh_plan()).machines[ALICE]
    stranger = bytes_to_id(99)
    assert machine.receive(stranger, RoundKind.RESHARE_BEGIN, b"", 0.0) == [Ignored(stranger, Reason.NOT_A_SIGNER)]
    assert machine.receive(BOB, RoundKind.KEY_ROUND_1, b"", 0.0) == [Ignored(BOB, Reason.UNEXPECTED_FRAME)]


def test_secrets_do_not_show() -> None:
    wire = resharing(SHARES, refresh_plan())
    until(wire, RoundKind.RESHARE_CERTIFICATE)
    machine = wire.machines[ALICE]
    hidden = [machine._static, machine._outcome.share.secret, machine._share.secret]
    shown = repr(machine) + repr(machine._outcome) + repr(machine._plan)
    wire.run()
    shown += repr(machine.result)
    assert not any(secret.encode().hex() in shown or repr(secret.encode()) in shown for secret in hidden)


# --- Plans and shares that do not fit ---


@pytest.mark.parametrize(
    "change",
    [
        {"new_members": (BOB, ALICE)}, {"new_members": (ALICE, ALICE)}, {"dealers": OLD[:3]}, {"dealers": ids(5, 1)},
        {"old_members": OLD[:4], "dealers": OLD[:4]}, {"threshold": 1}, {"threshold": 6},
    ],
)  # fmt: skip
def test_a_plan_that_makes_no_sense_is_our_own_error(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        refresh_plan(**change)


def start(member: NodeId, share: Share | None, the_plan: Plan, **more: float) -> Resharing:
    return Resharing(the_plan, member, share, SeededChance(1), 0.0, signer=signer_of(member), **more)


def test_a_share_of_another_generation_is_not_dealt_from() -> None:
    other = generated(5, 4, seed=3)[ALICE]
    for share in (replace(SHARES[ALICE], generation=1), other):
        with pytest.raises(Refused) as refused:
            start(ALICE, share, refresh_plan())
        assert refused.value.reason is Reason.WRONG_GENERATION


def test_who_takes_no_part_or_has_no_share_to_deal_is_our_own_error() -> None:
    with pytest.raises(ValueError, match="dealer"):
        start(ALICE, None, refresh_plan())
    with pytest.raises(ValueError, match="takes part"):
        start(bytes_to_id(99), None, refresh_plan())
    with pytest.raises(ValueError, match="resharing"):
        start(ALICE, SHARES[ALICE], plan(SHARES, ids(3, 10), 2), patience=DAY)


@pytest.mark.parametrize("change", ["generation", "key"])
def test_a_member_of_another_generation_ends_the_run_and_is_named(change: str) -> None:
    the_plan = refresh_plan()
    wire = resharing(SHARES, the_plan)
    opening = Opening(BASE, 5 if change == "generation" else 0, bytes(32) if change == "key" else group_hash(GROUP))
    body = said_otherwise(the_plan.terms(), DAVE, RoundKind.RESHARE_BEGIN, opening.pack())
    wire.run(change=lambda sent: [(*sent[:3], body)] if (sent[0], sent[2]) == (DAVE, RoundKind.RESHARE_BEGIN) else [sent])
    (failed,) = failures(wire, ALICE)
    assert (failed.reason, failed.named) == (Reason.WRONG_GENERATION, (DAVE,))
    nothing_has_happened(wire)


# --- Silence ---


def test_before_its_time_nothing_is_due() -> None:
    machine = resharing(SHARES, refresh_plan()).machines[ALICE]
    assert machine.tick(ROUND_TIMEOUT - 0.1) == []
    assert machine.deadline == ROUND_TIMEOUT


@pytest.mark.parametrize(
    "kind",
    [RoundKind.RESHARE_BEGIN, RoundKind.RESHARE_DEAL, RoundKind.RESHARE_ECHO, RoundKind.RESHARE_CERTIFICATE],
)  # fmt: skip
def test_without_patience_a_silent_member_ends_the_run(kind: RoundKind) -> None:
    wire = resharing(SHARES, refresh_plan())
    wire.remove(DAVE) if kind is RoundKind.RESHARE_BEGIN else None
    wire.run(change=lambda sent: [] if sent[0] == DAVE and sent[2] >= kind else [sent])
    wire.tick_all(ROUND_TIMEOUT)
    (failed,) = failures(wire, ALICE)
    assert (failed.reason, failed.named) == (Reason.TIMEOUT, (DAVE,))
    nothing_has_happened(wire, but=(DAVE,))
    assert wire.machines[ALICE].deadline == math.inf
    assert (wire.machines[ALICE]._static, wire.machines[ALICE]._outcome) == (None, None)


def test_a_refresh_goes_on_without_one_that_never_began_after_24_hours() -> None:
    the_plan = refresh_plan(dealers=(ALICE, BOB, CAROL, DAVE))
    wire = resharing(SHARES, the_plan, without=[ERIN], patience=DAY)
    wire.run()
    wire.tick_all(ROUND_TIMEOUT)
    assert {machine.deadline for machine in wire.machines.values()} == {DAY}
    nothing_has_happened(wire)
    wire.tick_all(DAY - 1)
    nothing_has_happened(wire)
    wire.tick_all(DAY)
    wire.run()
    assert all(wire.events[member] == [Finished(missing=(ERIN,))] for member in OLD[:4])
    check_shares(new_shares(wire), wire.machines[ALICE].result.group)
    assert wire.machines[ALICE].result.group.public == GROUP.public
    assert wire.machines[ALICE].result.missing == (ERIN,)


@pytest.mark.parametrize("kind", [RoundKind.RESHARE_ECHO, RoundKind.RESHARE_CERTIFICATE])
def test_a_refresh_goes_on_without_one_that_died_after_dealing(kind: RoundKind) -> None:
    wire = resharing(SHARES, refresh_plan(), patience=DAY)
    until(wire, kind)
    wire.remove(ERIN)
    wire.run()
    nothing_has_happened(wire)
    for now in (ROUND_TIMEOUT, DAY, DAY + ROUND_TIMEOUT):
        wire.tick_all(now)
        wire.run()
    assert all(wire.events[member] == [Finished(missing=(ERIN,))] for member in OLD[:4])
    check_shares(new_shares(wire), wire.machines[ALICE].result.group)


def test_a_refresh_does_not_go_on_without_two() -> None:
    wire = resharing(SHARES, refresh_plan(dealers=OLD[:4]), patience=DAY)
    until(wire, RoundKind.RESHARE_CERTIFICATE)
    wire.remove(DAVE)
    wire.remove(ERIN)
    wire.run()
    for now in (ROUND_TIMEOUT, DAY, 2 * DAY):
        wire.tick_all(now)
        wire.run()
    (failed,) = failures(wire, ALICE)
    assert (failed.reason, failed.named) == (Reason.TIMEOUT, (DAVE, ERIN))
    nothing_has_happened(wire)


def test_a_refresh_does_not_go_on_without_a_dealer() -> None:
    for kind in (RoundKind.RESHARE_BEGIN, RoundKind.RESHARE_DEAL):
        wire = resharing(SHARES, refresh_plan(), patience=DAY)
        until(wire, kind)
        wire.remove(ERIN)
        wire.run()
        wire.tick_all(ROUND_TIMEOUT)
        (failed,) = failures(wire, ALICE)
        assert (failed.reason, failed.named) == (Reason.TIMEOUT, (ERIN,))


def test_one_that_comes_too_late_is_left_out_and_does_not_stop_the_others() -> None:
    wire = resharing(SHARES, refresh_plan(dealers=OLD[:4]), patience=DAY)
    held = [sent for sent in wire.queue if sent[0] == ERIN]
    wire.queue = [sent for sent in wire.queue if sent[0] != ERIN]
    wire.run()
    for member in OLD[:4]:
        wire.machines[member].tick(ROUND_TIMEOUT)
        wire.events[member] += wire.machines[member].tick(DAY)
    wire.now = DAY
    wire.collect()
    said: list[Sent] = []

    def listen(sent: Sent) -> list[Sent]:
        said.append(sent)
        return [sent]

    wire.run(change=listen)
    assert [event.named for event in failures(wire, ERIN)] == [(ERIN,)]
    assert not any(sent[2] is RoundKind.RESHARE_FAILED for sent in said)
    assert all(wire.events[member] == [Finished(missing=(ERIN,))] for member in OLD[:4])
    wire.queue = held
    wire.run()
    assert all(wire.events[member] == [Finished(missing=(ERIN,))] for member in OLD[:4])


def test_a_failure_of_the_one_that_was_left_behind_stops_nobody() -> None:
    wire = resharing(SHARES, refresh_plan(), patience=DAY)
    until(wire, RoundKind.RESHARE_ECHO)
    wire.run(change=lambda sent: [] if sent[0] == ERIN else [sent])
    for member in OLD[:4]:
        wire.machines[member].tick(ROUND_TIMEOUT)
        wire.events[member] += wire.machines[member].tick(DAY)
    erin = wire.machines[ERIN]
    erin._room.failed, erin.result = None, None
    erin.tick(ROUND_TIMEOUT)
    erin.messages_to_send()
    erin._fail(Failed(Reason.INTERNAL, ()))
    failed = [(ERIN, *message) for message in erin.messages_to_send()]
    for sent in failed:
        assert wire.machines[sent[1]].receive(sent[0], sent[2], sent[3], DAY) == []
    wire.collect()
    wire.run()
    assert all(wire.events[member] == [Finished(missing=(ERIN,))] for member in OLD[:4])


def test_who_had_finished_hears_that_another_failed() -> None:
    wire = resharing(SHARES, refresh_plan())
    until(wire, RoundKind.RESHARE_CERTIFICATE)
    wire.queue = [sent for sent in wire.queue if sent[1] == ALICE]
    for sent in wire.queue:
        wire.machines[ALICE].receive(sent[0], sent[2], sent[3], 0.0)
    assert wire.machines[ALICE].result is not None
    bob = wire.machines[BOB]
    bob.messages_to_send()
    bob.tick(ROUND_TIMEOUT)
    (body,) = [body for to, _, body in bob.messages_to_send() if to == ALICE]
    events = wire.machines[ALICE].receive(BOB, RoundKind.RESHARE_FAILED, body, ROUND_TIMEOUT)
    assert events == [FailedElsewhere(BOB, Reason.TIMEOUT)]


# --- Lies ---


def deal_of(wire: Wire, the_plan: Plan, dealer: NodeId) -> Deal:
    until(wire, RoundKind.RESHARE_DEAL)
    (said,) = wire.machines[dealer]._room.board.contents(RoundKind.RESHARE_DEAL, [dealer])
    return Deal.parse(said, the_plan, dealer)


def dave_says(wire: Wire, the_plan: Plan, kind: RoundKind, content: bytes, *, to: NodeId | None = None) -> Failed:
    """Dave says that instead of what his machine says; how it ends for Alice."""
    body = said_otherwise(the_plan.terms(), DAVE, kind, content)

    def change(sent: Sent) -> list[Sent]:
        his = (sent[0], sent[2]) == (DAVE, kind) and to in (None, sent[1])
        return [(*sent[:3], body)] if his else [sent]

    wire.run(change=change)
    (failed,) = failures(wire, ALICE)
    assert failed.named == (DAVE,)
    nothing_has_happened(wire, but=(DAVE,))
    assert (wire.machines[ALICE]._static, wire.machines[ALICE]._share, wire.machines[ALICE]._outcome) == (None, None, None)
    return failed


def test_a_dealer_that_deals_another_secret_is_named() -> None:
    """The mesh key would change."""
    the_plan = refresh_plan()
    wire = resharing(SHARES, the_plan)
    deal = deal_of(wire, the_plan, DAVE)
    other = Deal((BASE * Scalar.of(5), *deal.commitment[1:]), deal.ephemeral, deal.ciphertexts)
    assert dave_says(wire, the_plan, RoundKind.RESHARE_DEAL, other.pack()).reason is Reason.BAD_SHARE


def test_a_bad_share_is_named() -> None:
    the_plan = refresh_plan()
    wire = resharing(SHARES, the_plan)
    deal = deal_of(wire, the_plan, DAVE)
    dave = wire.machines[DAVE]
    alice = Opening.parse(dave._room.board.contents(RoundKind.RESHARE_BEGIN, [ALICE])[0]).key
    ephemeral = random_scalar(SeededChance(5))
    seal = SealKey.of_sender(the_plan.terms().run, dave._static, ephemeral, alice)
    other = Deal(deal.commitment, BASE * ephemeral, (seal.seal(Scalar.of(5)), *deal.ciphertexts[1:]))
    assert dave_says(wire, the_plan, RoundKind.RESHARE_DEAL, other.pack()).reason is Reason.BAD_SHARE


def test_a_deal_of_another_threshold_or_size_is_refused() -> None:
    the_plan = refresh_plan()
    for more in (1, -1):
        wire = resharing(SHARES, the_plan)
        deal = deal_of(wire, the_plan, DAVE)
        points = (*deal.commitment, deal.ephemeral)[: len(deal.commitment) + more]
        other = Deal(points, deal.ephemeral, deal.ciphertexts)
        assert dave_says(wire, the_plan, RoundKind.RESHARE_DEAL, other.pack()).reason is Reason.MALFORMED


def test_a_dealer_that_leaves_a_member_out_is_named() -> None:
    the_plan = refresh_plan()
    for patience in (None, DAY):
        wire = resharing(SHARES, the_plan, patience=patience)
        deal = deal_of(wire, the_plan, DAVE)
        other = Deal(deal.commitment, deal.ephemeral, (*deal.ciphertexts[:4], b""))
        assert dave_says(wire, the_plan, RoundKind.RESHARE_DEAL, other.pack()).reason is Reason.BAD_SHARE


def test_two_deals_by_one_dealer_are_seen_in_the_echo_and_proven() -> None:
    the_plan = refresh_plan()
    wire = resharing(SHARES, the_plan)
    deal = deal_of(wire, the_plan, DAVE)
    other = Deal(deal.commitment, deal.ephemeral, (bytes(48), *deal.ciphertexts[1:]))
    failed = dave_says(wire, the_plan, RoundKind.RESHARE_DEAL, other.pack(), to=CAROL)
    assert failed.reason is Reason.EQUIVOCATION
    assert failed.proof is not None
    failed.proof.verify(the_plan.terms())


def test_a_certificate_of_another_outcome_is_refused() -> None:
    the_plan = refresh_plan()
    wire = resharing(SHARES, the_plan)
    failed = dave_says(wire, the_plan, RoundKind.RESHARE_CERTIFICATE, bytes(32))
    assert failed.reason is Reason.KEY_GENERATION_FAILED


def test_deals_that_would_change_the_key_are_never_combined() -> None:
    the_plan = refresh_plan()
    wire = resharing(SHARES, the_plan)
    deals = {dealer: deal_of(wire, the_plan, dealer) for dealer in OLD}
    other = Scalar.reduce(sha512(b"other"))
    deals[DAVE] = Deal((BASE * other, *deals[DAVE].commitment[1:]), deals[DAVE].ephemeral, deals[DAVE].ciphertexts)
    with pytest.raises(ValueError, match="mesh key"):
        combine_deals(the_plan, deals)


# --- Two at once ---


def test_of_two_resharings_at_once_the_lower_survives() -> None:
    first = resharing(SHARES, refresh_plan(order_number=7))
    second = resharing(SHARES, refresh_plan(order_number=6, session=b"t" * 16))
    for member in OLD:
        (failed,) = first.machines[member].meet(6, b"t" * 16)
        assert failed.reason is Reason.SUPERSEDED
        assert second.machines[member].meet(7, SESSION) == []
    first.collect()
    first.run()
    second.run()
    nothing_has_happened(first)
    assert all(events == [Finished()] for events in second.events.values())


def test_of_one_order_the_lower_session_survives() -> None:
    machine = resharing(SHARES, refresh_plan()).machines[ALICE]
    assert machine.meet(7, SESSION) == []
    assert machine.meet(7, b"t" * 16) == []
    (failed,) = machine.meet(7, b"a" * 16)
    assert failed.reason is Reason.SUPERSEDED
    assert machine.meet(1, b"a" * 16) == []


def test_after_certifying_a_member_stays_with_its_run() -> None:
    wire = resharing(SHARES, refresh_plan())
    until(wire, RoundKind.RESHARE_CERTIFICATE)
    assert wire.machines[ALICE].meet(1, SESSION) == []
    wire.run()
    assert wire.machines[ALICE].meet(1, SESSION) == []
    assert all(events == [Finished()] for events in wire.events.values())


def test_whatever_order_two_runs_interleave_in_at_most_one_is_finished() -> None:
    """Every member meets the other run at another moment."""
    for moment in range(0, 60, 7):
        first = resharing(SHARES, refresh_plan(order_number=7))
        for _ in range(moment):
            if first.queue:
                first.deliver(first.queue.pop(0))
        given_up = [member for member in OLD if first.machines[member].meet(6, b"t" * 16)]
        first.collect()
        first.run()
        finished = [member for member in OLD if first.machines[member].result is not None]
        assert finished in ([], list(OLD))
        assert not (given_up and finished)
