"""What a worker checks before anything runs, in this order, each with its own reason:

1. sizes and canonical form (TOO_LARGE, MALFORMED, UNSUPPORTED)
2. the placement: certificate and signature (SCHEDULER_SIGNATURE), role (SCHEDULER_ROLE), revocation (SCHEDULER_REVOKED)
3. it is about this workload (WORKLOAD_MISMATCH)
4. the workload: each signer's certificate and signature (ORIGINATOR_SIGNATURE), role (ORIGINATOR_ROLE), revocation
   (ORIGINATOR_REVOKED); two persons where two must sign (DUAL_CONTROL)
5. its signers allow this scheduler (SCHEDULER_NOT_ALLOWED)
6. this node is meant (WRONG_WORKER)
7. the times of both (WORK_TIME)
8. neither placement nor run were here before (WORK_REPLAYED)
9. the run is one of those that are allowed (RUN_COUNT)
10. the scheduler's level, by the lease on its link, now (SCHEDULER_LEVEL); the worker's own (LEVEL_TOO_LOW)

What is wrong with a certificate has the reason that it has on a link. The artifact is checked as it streams (`artifact.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from overlay.core.certificates import TOLERANCE, show_time
from overlay.core.trust import Credentials, VerifiedPeer
from overlay.core.work.envelopes import Assignment, SignedPlacement, SignedResult, SignedWorkload
from overlay.core.work.placement import Placement
from overlay.core.work.view import SCHEDULE, SUBMIT, WorkerView
from overlay.core.work.workload import Workload
from overlay.errors import Refused
from overlay.registry import Reason


class Replays(Protocol):
    """What was here before, and since when that is known."""

    def seen(self, assignment: Assignment) -> str:
        """Why this must not run: its placement, or its run, was here; empty if it may."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """An assignment that has passed every check of `check_assignment`. `key`, the hash of its placement, names it."""

    assignment: Assignment
    scheduler: VerifiedPeer
    originators: tuple[VerifiedPeer, ...]
    key: bytes = field(repr=False)  # 32

    @property
    def workload(self) -> Workload:
        """What runs."""
        return self.assignment.workload.says

    @property
    def placement(self) -> Placement:
        """Where and when."""
        return self.assignment.placement.says


def check_assignment(raw: bytes, view: WorkerView, replays: Replays, at: datetime) -> Run:
    """All checks, in their order.

    Raises:
        Refused: with the reason of the first check that fails.
    """
    found = Assignment.unpack(raw)
    scheduler = check_scheduler(found.placement, view, at)
    _check_same_workload(found)
    originators = check_originators(found.workload, view, at)
    _check_scheduler_allowed(found.workload.says, scheduler)
    _check_worker(found, view)
    check_times(found, at)
    _check_replay(found, replays)
    _check_run_count(found)
    _check_levels(found.workload.says, scheduler, view)
    return Run(found, scheduler, originators, found.placement.hash)


def check_workload(signed: SignedWorkload, view: WorkerView, at: datetime) -> tuple[VerifiedPeer, ...]:
    """The checks of a workload alone (4, 6, 7), for work that comes without a placement: its signers.

    Who uses it counts runs and keeps replays away by its own means.

    Raises:
        Refused: as `check_assignment`.
    """
    originators = check_originators(signed, view, at)
    _check_worker_allowed(signed.says, view)
    _check_time("workload", signed.says.not_before, signed.says.not_after, at)
    return originators


def check_result(signed: SignedResult, placement: SignedPlacement, view: WorkerView, at: datetime) -> VerifiedPeer:
    """Whether a result is by the worker of that placement, and about it: the worker.

    Raises:
        Refused: WRONG_WORKER, WORKLOAD_MISMATCH, BAD_SIGNATURE, WRONG_AUTHOR, REVOKED, QUARANTINED, or what is wrong with
            its certificate.
    """
    says = signed.says
    worker = _verify(signed.credentials, view, at, "the worker:")
    if not worker.node_id == says.worker == placement.says.worker:
        raise Refused(Reason.WRONG_WORKER, f"a result by {worker.name}, to whom this was not given")
    signed.check_signature(worker, view.mesh_id)
    view.trust.judge(worker, at)
    if (says.placement, says.workload, says.run) != (placement.hash, placement.says.workload, placement.says.run):
        raise Refused(Reason.WORKLOAD_MISMATCH, "a result of another placement")
    return worker


def check_still(run: Run, view: WorkerView, at: datetime) -> None:
    """Whether both signers still count, while it waits or runs. That their certificates end is no reason to stop.

    Raises:
        Refused: SCHEDULER_ROLE, SCHEDULER_REVOKED, SCHEDULER_LEVEL, ORIGINATOR_ROLE, ORIGINATOR_REVOKED, or another reason
            of `TrustSet.judge`.
    """
    _check_scheduler_now(run.scheduler, view, at)
    for peer in run.originators:
        _check_originator_now(peer, view, at)
    _check_level(run.workload, view.author_level(run.scheduler), run.scheduler, view)


# --- who signed -------------------------------------------------------------------------------------------------------


def check_scheduler(placement: SignedPlacement, view: WorkerView, at: datetime) -> VerifiedPeer:
    """Check 2. The signature is checked under the key that the certificate vouches for, so that one comes first."""
    peer = _verify(placement.credentials, view, at, "the scheduler:")
    if peer.node_id != placement.says.scheduler:
        raise Refused(Reason.SCHEDULER_SIGNATURE, f"{peer.name} placed this in the name of another node")
    try:
        placement.check_signature(peer, view.mesh_id)
    except Refused as error:
        raise Refused(Reason.SCHEDULER_SIGNATURE, f"not by {peer.name}: {error}") from None
    _check_scheduler_now(peer, view, at)
    return peer


def check_originators(signed: SignedWorkload, view: WorkerView, at: datetime) -> tuple[VerifiedPeer, ...]:
    """Check 4."""
    peers = tuple(_check_originator(signed, index, view, at) for index in range(len(signed.credentials)))
    _check_dual_control(signed, peers, view)
    return peers


def _check_originator(signed: SignedWorkload, index: int, view: WorkerView, at: datetime) -> VerifiedPeer:
    peer = _verify(signed.credentials[index], view, at, "the originator:")
    if peer.node_id != signed.says.signers[index]:
        raise Refused(Reason.ORIGINATOR_SIGNATURE, f"{peer.name} signed this in the name of another node")
    try:
        signed.check_signature(index, peer, view.mesh_id)
    except Refused as error:
        raise Refused(Reason.ORIGINATOR_SIGNATURE, f"not by {peer.name}: {error}") from None
    _check_originator_now(peer, view, at)
    return peer


def _verify(credentials: Credentials, view: WorkerView, at: datetime, who: str) -> VerifiedPeer:
    try:
        return view.verify(credentials, at)
    except Refused as error:
        raise Refused(error.reason, f"{who} {error.detail}", hint=error.hint) from None


def _check_scheduler_now(peer: VerifiedPeer, view: WorkerView, at: datetime) -> None:
    if not view.has_role(peer, SCHEDULE):
        raise Refused(Reason.SCHEDULER_ROLE, f"{peer.name} has not the role {SCHEDULE}")
    view.check_standing(peer, at, Reason.SCHEDULER_REVOKED, "the scheduler:")


def _check_originator_now(peer: VerifiedPeer, view: WorkerView, at: datetime) -> None:
    level, wanted = view.author_level(peer), view.level_for(SUBMIT)
    if not view.has_role(peer, SUBMIT):
        raise Refused(Reason.ORIGINATOR_ROLE, f"{peer.name} has not the role {SUBMIT}")
    if level < wanted:
        raise Refused(Reason.ORIGINATOR_ROLE, f"{peer.name} has level {level} where the role {SUBMIT} counts from {wanted}")
    view.check_standing(peer, at, Reason.ORIGINATOR_REVOKED, "the originator:")


def _check_dual_control(signed: SignedWorkload, peers: Sequence[VerifiedPeer], view: WorkerView) -> None:
    if not signed.is_complete:
        raise Refused(Reason.DUAL_CONTROL, "the second signature is missing")
    if signed.says.second is None:
        if view.dual_control:
            raise Refused(Reason.DUAL_CONTROL, "this worker takes only what two persons have signed")
        return
    persons = {peer.certificate.facts.person for peer in peers}
    if None in persons or len(persons) != len(peers):
        raise Refused(Reason.DUAL_CONTROL, "the certificates of its signers do not name two persons")


# --- what it says -----------------------------------------------------------------------------------------------------


def _check_same_workload(found: Assignment) -> None:
    if found.placement.says.workload != found.workload.hash:
        raise Refused(Reason.WORKLOAD_MISMATCH, "the placement names another workload than the one that came with it")


def _check_scheduler_allowed(workload: Workload, scheduler: VerifiedPeer) -> None:
    if not workload.schedulers.has(scheduler.node_id, scheduler.name):
        raise Refused(Reason.SCHEDULER_NOT_ALLOWED, f"who signed {workload.name} does not allow {scheduler.name} to place it")


def _check_worker(found: Assignment, view: WorkerView) -> None:
    if found.placement.says.worker != view.own.node_id:
        raise Refused(Reason.WRONG_WORKER, "placed on another node")
    _check_worker_allowed(found.workload.says, view)


def _check_worker_allowed(workload: Workload, view: WorkerView) -> None:
    if not workload.workers.has(view.own.node_id, view.own.name):
        raise Refused(Reason.WRONG_WORKER, f"who signed {workload.name} does not allow it on {view.own.name}")


def check_times(found: Assignment, at: datetime) -> None:
    """Check 7: workload and placement are in force, give or take five minutes."""
    workload, placement = found.workload.says, found.placement.says
    _check_time("workload", workload.not_before, workload.not_after, at)
    _check_time("placement", placement.not_before, placement.not_after, at)


def _check_time(what: str, begin: datetime, end: datetime, at: datetime) -> None:
    if not begin - TOLERANCE <= at <= end + TOLERANCE:
        life = f"{show_time(begin)} to {show_time(end)}"
        raise Refused(Reason.WORK_TIME, f"the {what} counts from {life}, it is now {show_time(at)}")


def _check_replay(found: Assignment, replays: Replays) -> None:
    seen = replays.seen(found)
    if seen:
        raise Refused(Reason.WORK_REPLAYED, seen)


def _check_run_count(found: Assignment) -> None:
    run, allowed = found.placement.says.run, found.workload.says.runs
    if run > allowed:
        raise Refused(Reason.RUN_COUNT, f"run {run} of a workload that may run {allowed} times")


def _check_levels(workload: Workload, scheduler: VerifiedPeer, view: WorkerView) -> None:
    level = view.lease_level(scheduler)
    if level is None:
        raise Refused(Reason.SCHEDULER_LEVEL, f"there is no link to {scheduler.name}, so nothing shows its level now")
    _check_level(workload, level, scheduler, view)
    own = view.own.certificate.level
    if own < workload.level:
        raise Refused(Reason.LEVEL_TOO_LOW, f"this node has level {own}, {workload.name} asks for {workload.level}")


def _check_level(workload: Workload, level: int, scheduler: VerifiedPeer, view: WorkerView) -> None:
    wanted = max(workload.level, view.level_for(SCHEDULE))
    if level < wanted:
        raise Refused(Reason.SCHEDULER_LEVEL, f"{scheduler.name} has level {level} where {wanted} is wanted")
