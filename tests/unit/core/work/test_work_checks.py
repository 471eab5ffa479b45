"""What a worker checks before anything runs: each check broken alone, and the order in which they are asked."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.members import Members
from overlay.core.wire import make_map, sha256, sign1
from overlay.core.work.artifact import ExpectedBytes
from overlay.core.work.checks import Run, check_assignment, check_result, check_still, check_workload
from overlay.core.work.cose_sign import assemble_sign
from overlay.core.work.envelopes import Assignment, SignedPlacement, SignedWorkload
from overlay.core.work.records import Memory, RunRecord
from overlay.core.work.signing import sign_workload
from overlay.core.work.view import WorkerView
from overlay.core.work.workload import Allowed
from overlay.errors import HINTS, Refused
from overlay.registry import Label, Reason
from tests.unit.core.authority_kit import DAY, HOUR, NOW, Member, make_member, make_mesh
from tests.unit.core.session_kit import local
from tests.unit.core.work.work_kit import (
    ARTIFACT,
    MESH,
    MINUTE,
    OTHER_WORKER,
    SCHEDULER,
    SECOND,
    SUBMITTER,
    WORKER,
    Levels,
    assign,
    make_workload,
    member,
    needing,
    put,
    quarantining,
    report,
    sign,
    sign_both,
    view,
    without,
)

PAST = 6 * MINUTE  # more than the five that clocks may differ


def check(assignment: Assignment | bytes, seen: WorkerView | None = None, memory: Memory | None = None, at: Any = NOW) -> Run:
    raw = assignment if isinstance(assignment, bytes) else assignment.pack()
    return check_assignment(raw, seen or view(), memory or Memory(), at)


def refused(*args: Any, **values: Any) -> Reason:
    with pytest.raises(Refused) as caught:
        check(*args, **values)
    return caught.value.reason


# --- what goes well ---------------------------------------------------------------------------------------------------


def test_signed_and_placed_work_is_accepted() -> None:
    given_out = assign()
    run = check(given_out)
    assert run == Run(given_out, SCHEDULER.peer, (SUBMITTER.peer,), given_out.placement.hash)
    assert (run.workload, run.placement) == (given_out.workload.says, given_out.placement.says)


def test_work_that_two_persons_have_signed_is_accepted() -> None:
    assert check(assign(sign_both()), view(dual_control=True)).originators == (SUBMITTER.peer, SECOND.peer)


def test_nodes_that_are_named_are_accepted() -> None:
    by_name = make_workload(schedulers=Allowed(names=("sched",)), workers=Allowed(names=("worker",)))
    by_id = make_workload(schedulers=Allowed(nodes=(SCHEDULER.node_id,)), workers=Allowed(nodes=(WORKER.node_id,)))
    assert check(assign(sign(by_name))) and check(assign(sign(by_id)))


def test_a_worker_that_is_its_own_scheduler_needs_no_link_to_itself() -> None:
    both = member("both", "scheduler", "worker")
    levels = Levels()
    levels.shown[both.node_id] = None
    assert check(assign(by=both, worker=both.node_id), view(levels, both))


# --- 2: the placement -------------------------------------------------------------------------------------------------


def placed(signer: Member, *, scheduler: Member = SCHEDULER, label: bytes = Label.PLACEMENT, mesh: Any = MESH) -> Assignment:
    """A placement in the name of one node, signed by the key of another, under its credentials."""
    says = replace(put().says, scheduler=scheduler.node_id)
    raw = sign1(says.pack(), signer=signer.message, aad=label + mesh.mesh_id, kid=signer.kid)
    return Assignment(sign(), SignedPlacement.read(raw, signer.credentials))


def test_a_placement_in_the_name_of_another_scheduler_is_refused() -> None:
    assert refused(placed(member("thief", "scheduler"))) is Reason.SCHEDULER_SIGNATURE


def test_a_placement_that_was_changed_is_refused() -> None:
    good = put()
    raw = sign1(replace(good.says, run=2).pack(), signer=SCHEDULER.message, aad=b"", kid=SCHEDULER.kid)
    assert refused(Assignment(sign(make_workload(runs=2)), SignedPlacement.read(raw, good.credentials))) is (
        Reason.SCHEDULER_SIGNATURE
    )


def test_a_placement_by_a_key_that_nobody_endorsed_is_refused() -> None:
    later = member("sched", "scheduler", start=2)
    raw = sign1(put().says.pack(), signer=later.message, aad=Label.PLACEMENT + MESH.mesh_id, kid=SCHEDULER.kid)
    assert refused(Assignment(sign(), SignedPlacement.read(raw, SCHEDULER.credentials))) is Reason.SCHEDULER_SIGNATURE


def test_a_placement_shown_with_other_credentials_of_its_scheduler_is_refused() -> None:
    for later in (member("sched", "scheduler", start=2), member("sched", "scheduler", noise_key="other")):
        shown = SignedPlacement.read(put().raw, later.credentials)  # the second has the same key for messages
        assert refused(Assignment(sign(), shown)) is Reason.SCHEDULER_SIGNATURE


@pytest.mark.parametrize("label", [Label.WORKLOAD, Label.WORK_RESULT, Label.CALL, b""])
def test_a_signature_of_another_kind_is_no_placement(label: bytes) -> None:
    assert refused(placed(SCHEDULER, label=label)) is Reason.SCHEDULER_SIGNATURE


def test_a_placement_of_another_mesh_is_refused() -> None:
    other = make_mesh("other")
    assert refused(placed(SCHEDULER, mesh=other)) is Reason.SCHEDULER_SIGNATURE
    stranger = make_member(other, "sched", facts=SCHEDULER.peer.certificate.facts)
    assert refused(placed(stranger, scheduler=stranger)) in (Reason.BAD_CERTIFICATE, Reason.OTHER_MESH)


def test_a_scheduler_whose_certificate_has_ended_is_refused() -> None:
    old = member("sched", "scheduler", not_before=NOW - DAY - HOUR)
    assert refused(assign(by=old, at=NOW - HOUR), at=NOW) is Reason.CERTIFICATE_EXPIRED


def test_a_scheduler_whose_keys_have_ended_is_refused() -> None:
    old = member("sched", "scheduler", endorsement_life=HOUR)
    assert refused(assign(by=old), at=NOW + HOUR + PAST) is Reason.ENDORSEMENT_EXPIRED


def test_a_placement_by_a_node_without_the_role_is_refused() -> None:
    assert refused(assign(by=OTHER_WORKER)) is Reason.SCHEDULER_ROLE


def test_a_scheduler_that_has_lost_its_role_since_is_refused() -> None:
    later = member("sched", not_before=NOW)
    seen = Members().with_certificate(later.peer.certificate)
    assert refused(assign(), view(members=seen)) is Reason.SCHEDULER_ROLE
    earlier = member("sched", not_before=NOW - HOUR)
    assert check(assign(), view(members=Members().with_certificate(earlier.peer.certificate)))


@pytest.mark.parametrize("trust", [without, quarantining])
def test_a_placement_by_a_revoked_scheduler_is_refused(trust: Callable[[Member], Any]) -> None:
    assert refused(assign(), view(trust=trust(SCHEDULER))) is Reason.SCHEDULER_REVOKED


# --- 3: the workload it names -----------------------------------------------------------------------------------------


def test_a_placement_of_another_workload_is_refused() -> None:
    other = sign(make_workload(arguments=("--evil",)))
    assert refused(Assignment(other, put(sign()))) is Reason.WORKLOAD_MISMATCH


def test_a_workload_that_was_encoded_anew_is_refused() -> None:
    again = sign_workload(sign().says, own=local(member("alice", "submit", person="Alice", start=2)), mesh_id=MESH.mesh_id)
    assert again.says == sign().says
    assert refused(Assignment(again, put(sign()))) is Reason.WORKLOAD_MISMATCH


# --- 4: who signed it -------------------------------------------------------------------------------------------------


def signed(signer: Member, *, label: bytes = Label.WORKLOAD, payload: bytes | None = None) -> SignedWorkload:
    raw = sign1(payload or make_workload().pack(), signer=signer.message, aad=label + MESH.mesh_id, kid=signer.kid)
    return SignedWorkload.read(raw, [signer.credentials])


def test_a_workload_in_the_name_of_another_originator_is_refused() -> None:
    assert refused(assign(signed(member("thief", "submit")))) is Reason.ORIGINATOR_SIGNATURE


def test_a_workload_that_was_changed_is_refused() -> None:
    raw = bytearray(sign().raw)
    place = raw.index(b"-v")
    raw[place : place + 2] = b"-x"
    changed = SignedWorkload.read(bytes(raw), [SUBMITTER.credentials])
    assert refused(assign(changed)) is Reason.ORIGINATOR_SIGNATURE


@pytest.mark.parametrize("label", [Label.PLACEMENT, Label.WORK_RESULT, Label.CALL, b""])
def test_a_signature_of_another_kind_is_no_workload(label: bytes) -> None:
    assert refused(assign(signed(SUBMITTER, label=label))) is Reason.ORIGINATOR_SIGNATURE


def test_a_workload_by_a_node_without_the_role_is_refused() -> None:
    plain = member("plain")
    assert refused(assign(sign(make_workload(originator=plain.node_id), plain))) is Reason.ORIGINATOR_ROLE


def test_an_originator_whose_level_is_too_low_for_its_role_is_refused() -> None:
    levels = Levels()
    strong = member("strong", "submit", level=3)
    work = assign(sign(make_workload(originator=strong.node_id), strong))
    seen = view(levels, trust=needing("submit", 3))
    levels.shown[strong.node_id] = None
    assert check(work, seen)  # it needs no link: its certificate says so
    levels.shown[strong.node_id] = 2
    assert refused(work, seen) is Reason.ORIGINATOR_ROLE
    levels.shown[strong.node_id] = 4
    levels.limits[strong.node_id] = 1  # others have found something
    assert refused(work, seen) is Reason.ORIGINATOR_ROLE
    assert refused(assign(), seen) is Reason.ORIGINATOR_ROLE


@pytest.mark.parametrize("trust", [without, quarantining])
def test_a_workload_by_a_revoked_originator_is_refused(trust: Callable[[Member], Any]) -> None:
    assert refused(assign(), view(trust=trust(SUBMITTER))) is Reason.ORIGINATOR_REVOKED
    assert refused(assign(sign_both()), view(trust=trust(SECOND))) is Reason.ORIGINATOR_REVOKED


def test_a_second_signature_that_is_missing_is_noticed() -> None:
    half = sign(make_workload(second=SECOND.node_id))
    raw = put(sign(), at=NOW).says
    says = replace(raw, workload=half.hash)
    placement = sign1(says.pack(), signer=SCHEDULER.message, aad=Label.PLACEMENT + MESH.mesh_id, kid=SCHEDULER.kid)
    assert refused(Assignment(half, SignedPlacement.read(placement, SCHEDULER.credentials))) is Reason.DUAL_CONTROL


@pytest.mark.parametrize("person", ["Alice", None])
def test_two_nodes_of_one_person_or_of_nobody_are_not_two(person: str | None) -> None:
    same = member("anna", "submit", person=person)
    assert refused(assign(sign_both(second=same))) is Reason.DUAL_CONTROL


def test_one_signature_is_refused_where_the_worker_wants_two() -> None:
    assert refused(assign(), view(dual_control=True)) is Reason.DUAL_CONTROL


def test_two_signatures_in_the_other_order_are_refused() -> None:
    both = sign_both()
    [first, second] = cbor2.loads(both.raw[2:])[3]
    parts = cbor2.loads(both.raw[2:])
    swapped = b"\xd8\x62" + cbor2.dumps([*parts[:3], [second, first]])
    again = SignedWorkload.read(swapped, both.credentials[::-1])
    assert again.hash != both.hash  # it would be a workload more, with runs of its own
    assert refused(assign(again)) is Reason.ORIGINATOR_SIGNATURE


def test_the_second_signature_is_checked_too() -> None:
    both = sign_both()
    signatures = cbor2.loads(both.raw[2:])[3]
    forged = assemble_sign(make_workload(second=SECOND.node_id).pack(), [])
    parts = cbor2.loads(forged[2:])
    signatures[1][2] = signatures[0][2]
    again = SignedWorkload.read(b"\xd8\x62" + cbor2.dumps([*parts[:3], signatures]), both.credentials)
    assert refused(assign(again)) is Reason.ORIGINATOR_SIGNATURE


def test_a_signature_for_one_signer_alone_does_not_pass_for_one_of_two() -> None:
    """The structure that is signed says which of both it is (RFC 9052, section 4.4)."""
    both, payload = sign_both(), make_workload(second=SECOND.node_id).pack()
    alone = cbor2.loads(signed_alone(payload)[1:])[3]
    parts = cbor2.loads(both.raw[2:])
    parts[3][0][2] = alone
    again = SignedWorkload.read(b"\xd8\x62" + cbor2.dumps(parts), both.credentials)
    assert refused(assign(again)) is Reason.ORIGINATOR_SIGNATURE


def signed_alone(payload: bytes) -> bytes:
    return sign1(payload, signer=SUBMITTER.message, aad=Label.WORKLOAD + MESH.mesh_id, kid=SUBMITTER.kid)


# --- 5 to 7: who may, where, when -------------------------------------------------------------------------------------


def test_a_scheduler_that_the_originator_does_not_name_is_refused() -> None:
    work = sign(make_workload(schedulers=Allowed(names=("another",))))
    assert refused(assign(work)) is Reason.SCHEDULER_NOT_ALLOWED


def test_work_placed_on_another_worker_is_refused() -> None:
    assert refused(assign(worker=OTHER_WORKER.node_id)) is Reason.WRONG_WORKER


def test_work_that_the_originator_does_not_allow_here_is_refused() -> None:
    assert refused(assign(sign(make_workload(workers=Allowed(names=("other",)))))) is Reason.WRONG_WORKER


@pytest.mark.parametrize("at", [NOW - PAST, NOW + PAST + 5 * MINUTE])
def test_a_placement_before_or_after_its_time_is_refused(at: Any) -> None:
    work = sign(make_workload(not_before=NOW - HOUR, not_after=NOW + HOUR))
    assert refused(assign(work), at=at) is Reason.WORK_TIME


@pytest.mark.parametrize(("begin", "end"), [(-HOUR, -PAST), (PAST, HOUR)])
def test_a_workload_before_or_after_its_time_is_refused(begin: timedelta, end: timedelta) -> None:
    assert refused(assign(sign(make_workload(not_before=NOW + begin, not_after=NOW + end)))) is Reason.WORK_TIME


# --- 8 to 10: again, how often, level ---------------------------------------------------------------------------------


def remembering(assignment: Assignment) -> Memory:
    return Memory.of([RunRecord.of(assignment)])


def test_a_placement_that_was_here_before_is_refused() -> None:
    assert refused(assign(), memory=remembering(assign())) is Reason.WORK_REPLAYED


def test_a_run_that_was_here_under_another_placement_is_refused() -> None:
    work = sign(make_workload(runs=2))
    memory = remembering(assign(work))
    assert refused(assign(work, nonce=b"n" * 16), memory=memory) is Reason.WORK_REPLAYED
    assert check(assign(work, run=2), memory=memory)


def test_what_was_placed_before_the_worker_can_remember_is_refused() -> None:
    assert refused(assign(), memory=Memory(since=NOW + MINUTE)) is Reason.WORK_REPLAYED
    assert check(assign(), memory=Memory(since=NOW))


def test_a_run_beyond_those_that_are_allowed_is_refused() -> None:
    says = replace(put().says, run=2)
    raw = sign1(says.pack(), signer=SCHEDULER.message, aad=Label.PLACEMENT + MESH.mesh_id, kid=SCHEDULER.kid)
    assert refused(Assignment(sign(), SignedPlacement.read(raw, SCHEDULER.credentials))) is Reason.RUN_COUNT


def test_a_scheduler_below_the_level_that_the_workload_asks_for_is_refused() -> None:
    levels = Levels()
    strong, worker = member("sched", "scheduler", level=3), member("worker", level=3)
    work = assign(sign(make_workload(level=2)), strong)
    levels.shown[strong.node_id] = 2
    assert check(work, view(levels, worker))
    levels.shown[strong.node_id] = 1
    assert refused(work, view(levels, worker)) is Reason.SCHEDULER_LEVEL
    levels.shown[strong.node_id], levels.limits[strong.node_id] = 3, 1  # others have found something
    assert refused(work, view(levels, worker)) is Reason.SCHEDULER_LEVEL


def test_a_scheduler_below_the_level_from_which_its_role_counts_is_refused() -> None:
    assert refused(assign(), view(trust=needing("scheduler", 2))) is Reason.SCHEDULER_LEVEL


def test_a_scheduler_that_is_not_linked_is_refused() -> None:
    levels = Levels()
    levels.shown[SCHEDULER.node_id] = None
    assert refused(assign(), view(levels)) is Reason.SCHEDULER_LEVEL


def test_a_worker_below_the_level_that_the_workload_asks_for_refuses() -> None:
    levels = Levels()
    strong = member("sched", "scheduler", level=3)
    levels.shown[strong.node_id] = 3
    assert refused(assign(sign(make_workload(level=3)), strong), view(levels)) is Reason.LEVEL_TOO_LOW


def test_a_guard_that_raises_refuses() -> None:
    levels = Levels()
    levels.fault = RuntimeError("broken")
    assert refused(assign(), view(levels)) is Reason.INTERNAL


# --- the order --------------------------------------------------------------------------------------------------------


def test_checks_are_asked_in_the_order_of_the_design() -> None:
    """From an assignment in which all is wrong one fault after the other is mended; each time the next check refuses."""
    levels = Levels()
    levels.shown[SCHEDULER.node_id] = 0
    work = make_workload(schedulers=Allowed(names=("another",)), workers=Allowed(names=("other",)), not_after=NOW + MINUTE)
    bad_work = signed(SUBMITTER, payload=work.pack(), label=b"")
    barred = without(SCHEDULER, SUBMITTER)
    late = NOW + PAST + MINUTE
    good = sign(work)
    steps: list[tuple[Any, WorkerView, Any]] = [
        (b"\xa1", view(levels, trust=barred), late),
        (placed(OTHER_WORKER), view(levels, trust=barred), late),
        (Assignment(bad_work, put(good, by=OTHER_WORKER, worker=OTHER_WORKER.node_id)), view(levels, trust=barred), late),
        (Assignment(bad_work, put(good, worker=OTHER_WORKER.node_id)), view(levels, trust=barred), late),
        (Assignment(bad_work, put(good, worker=OTHER_WORKER.node_id)), view(levels, trust=without(SUBMITTER)), late),
        (assign(bad_work, worker=OTHER_WORKER.node_id), view(levels, trust=without(SUBMITTER)), late),
        (assign(good, worker=OTHER_WORKER.node_id), view(levels, trust=without(SUBMITTER)), late),
        (assign(good, worker=OTHER_WORKER.node_id), view(levels), late),
    ]
    found = [refused(one, seen, at=at) for one, seen, at in steps]
    assert found == [
        Reason.MALFORMED, Reason.SCHEDULER_SIGNATURE, Reason.SCHEDULER_ROLE, Reason.SCHEDULER_REVOKED,
        Reason.WORKLOAD_MISMATCH, Reason.ORIGINATOR_SIGNATURE, Reason.ORIGINATOR_REVOKED, Reason.SCHEDULER_NOT_ALLOWED,
    ]  # fmt: skip
    open_to_all = sign(replace(work, schedulers=Allowed(), workers=Allowed()))
    demanding = replace(view(levels), trust=needing("scheduler", 1))
    again = remembering(assign(open_to_all))
    beyond = replace(put(open_to_all).says, run=2)
    raw = sign1(beyond.pack(), signer=SCHEDULER.message, aad=Label.PLACEMENT + MESH.mesh_id, kid=SCHEDULER.kid)
    too_often = Assignment(open_to_all, SignedPlacement.read(raw, SCHEDULER.credentials))
    assert [
        refused(assign(open_to_all, worker=OTHER_WORKER.node_id), demanding, again, late),
        refused(assign(open_to_all), demanding, again, late),
        refused(too_often, demanding, remembering(too_often), NOW),
        refused(too_often, demanding, again, NOW),
        refused(assign(open_to_all), demanding, Memory(), NOW),
    ] == [Reason.WRONG_WORKER, Reason.WORK_TIME, Reason.WORK_REPLAYED, Reason.RUN_COUNT, Reason.SCHEDULER_LEVEL]


def test_every_reason_of_work_says_what_to_do() -> None:
    assert all(HINTS[reason] for reason in Reason if 128 <= reason <= 143)


@given(st.integers(min_value=0), st.integers(0, 7))
def test_an_assignment_with_a_flipped_bit_never_runs(place: int, bit: int) -> None:
    raw = bytearray(RAW)
    raw[place % len(raw)] ^= 1 << bit
    with pytest.raises(Refused):
        check(bytes(raw))


RAW = assign(sign_both()).pack()


# --- while it runs, alone, and afterwards -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trust": without(SCHEDULER)}, Reason.SCHEDULER_REVOKED),
        ({"trust": quarantining(SCHEDULER)}, Reason.SCHEDULER_REVOKED),
        ({"trust": without(SUBMITTER)}, Reason.ORIGINATOR_REVOKED),
        ({"trust": without(SECOND)}, Reason.ORIGINATOR_REVOKED),
        ({"members": Members().with_certificate(member("sched", not_before=NOW).peer.certificate)}, Reason.SCHEDULER_ROLE),
        ({"members": Members().with_certificate(member("anna", not_before=NOW).peer.certificate)}, Reason.ORIGINATOR_ROLE),
        ({"trust": needing("scheduler", 2)}, Reason.SCHEDULER_LEVEL),
        ({"trust": needing("submit", 2)}, Reason.ORIGINATOR_ROLE),
    ],
)
def test_a_run_whose_signer_does_not_count_any_more_must_stop(change: dict[str, Any], reason: Reason) -> None:
    run = check(assign(sign_both()))
    with pytest.raises(Refused) as caught:
        check_still(run, view(**change), NOW)
    assert caught.value.reason is reason


def test_a_run_goes_on_when_the_scheduler_is_away_or_its_certificate_has_ended() -> None:
    levels = Levels()
    run = check(assign())
    levels.shown[SCHEDULER.node_id] = None
    check_still(run, view(levels), NOW + DAY)


def test_a_workload_alone_is_checked_by_who_signed_it_where_and_when() -> None:
    assert check_workload(sign(), view(), NOW) == (SUBMITTER.peer,)
    elsewhere = sign(make_workload(workers=Allowed(names=("other",))))
    for work, at, reason in (
        (signed(member("thief", "submit")), NOW, Reason.ORIGINATOR_SIGNATURE),
        (elsewhere, NOW, Reason.WRONG_WORKER), (sign(), NOW + HOUR + PAST, Reason.WORK_TIME),
    ):  # fmt: skip
        with pytest.raises(Refused) as caught:
            check_workload(work, view(), at)
        assert caught.value.reason is reason


def test_a_result_is_by_the_worker_of_its_placement_and_about_it() -> None:
    placement = put()
    assert check_result(report(placement), placement, view(), NOW) == WORKER.peer
    wrong = [
        (report(placement, OTHER_WORKER, worker=OTHER_WORKER.node_id), placement, view(), Reason.WRONG_WORKER),
        (report(placement, run=2), placement, view(), Reason.WORKLOAD_MISMATCH),
        (report(put(nonce=b"n" * 16)), placement, view(), Reason.WORKLOAD_MISMATCH),
        (report(placement), placement, view(trust=without(WORKER)), Reason.REVOKED),
    ]
    for result, placed_as, seen, reason in wrong:
        with pytest.raises(Refused) as caught:
            check_result(result, placed_as, seen, NOW)
        assert caught.value.reason is reason


def test_a_result_that_was_changed_is_refused() -> None:
    placement, result = put(), report(put())
    raw = sign1(result.says.pack(), signer=WORKER.message, aad=Label.PLACEMENT + MESH.mesh_id, kid=WORKER.kid)
    with pytest.raises(Refused) as caught:
        check_result(type(result).read(raw, WORKER.credentials), placement, view(), NOW)
    assert caught.value.reason is Reason.BAD_SIGNATURE


# --- the artifact -----------------------------------------------------------------------------------------------------


def expected() -> ExpectedBytes:
    return ExpectedBytes("the artifact", sha256(ARTIFACT), len(ARTIFACT))


@given(st.lists(st.integers(0, len(ARTIFACT))))
def test_an_artifact_that_is_right_is_taken_in_any_pieces(cuts: list[int]) -> None:
    taking, ends = expected(), [0, *sorted(cuts), len(ARTIFACT)]
    for begin, end in pairwise(ends):
        taking.take(ARTIFACT[begin:end])
    taking.finish()
    assert taking.missing == 0


def test_an_artifact_that_is_larger_than_said_is_refused_at_its_first_byte_too_many() -> None:
    taking = expected()
    taking.take(ARTIFACT)
    with pytest.raises(Refused, match="more than"):
        taking.take(b"x")


def test_an_artifact_that_is_shorter_than_said_is_refused() -> None:
    taking = expected()
    taking.take(ARTIFACT[:-1])
    with pytest.raises(Refused, match=f"{len(ARTIFACT) - 1} of {len(ARTIFACT)}"):
        taking.finish()


def test_an_artifact_of_the_right_size_and_other_bytes_is_refused() -> None:
    taking = expected()
    taking.take(bytes(len(ARTIFACT)))
    with pytest.raises(Refused) as caught:
        taking.finish()
    assert caught.value.reason is Reason.ARTIFACT_MISMATCH


def test_an_assignment_of_another_format_is_unsupported() -> None:
    raw = make_map(b"x", b"y").replace(b"\x00\x01", b"\x00\x02", 1)
    assert refused(raw) is Reason.UNSUPPORTED
