"""Signed work through the public names, over real nodes: signed on one, placed by the next, checked on a third."""

from datetime import timedelta

import pytest

import overlay.work
from overlay.app.local import LocalNode
from overlay.core.wire import sha256
from overlay.errors import PeerUnreachable, Refused, UsageError
from overlay.registry import Reason
from overlay.testing import mesh
from overlay.work import (
    Accepted,
    Artifact,
    ArtifactType,
    Assignment,
    File,
    SignedWorkload,
    WorkBook,
    WorkDesk,
    WorkResult,
    WorkState,
    check_assignment,
)

ROLES = {"bob": ("submit",), "carol": ("scheduler",), "dave": ("worker",)}
ARTIFACT = Artifact(sha256(b"program"), 7, ArtifactType.PROGRAM)


async def test_work_is_signed_on_one_node_placed_by_another_and_checked_on_a_third() -> None:
    async with mesh("alice", "bob", "carol", "dave", roles=ROLES) as (alice, bob, carol, dave):
        signed = WorkDesk(bob).sign(WorkDesk(bob).new_workload("report", ARTIFACT, arguments=("-v",)))
        passed_on = SignedWorkload.unpack(signed.pack())
        placement = WorkDesk(carol).place(passed_on, WorkDesk(carol).worker("dave"))
        raw = Assignment(passed_on, placement).pack()
        desk = WorkDesk(dave)
        event = WorkBook().receive(raw, desk.view, 0.0, desk.at)
        assert isinstance(event, Accepted)
        assert (event.run.scheduler.name, event.run.originators[0].name) == ("carol", "bob")
        assert [peer.name for peer in desk.check_workload(signed)] == ["bob"]
        check_result_of(event, desk, WorkDesk(bob))
        await check_who_may_not(alice, dave, signed)


def check_result_of(event: Accepted, worker: WorkDesk, submitter: WorkDesk) -> None:
    run, at = event.run, worker.at
    result = worker.sign_result(
        WorkResult(
            worker=run.placement.worker, placement=run.key, workload=run.placement.workload, run=1, state=WorkState.EXITED,
            number=0, started=at, ended=at + timedelta(seconds=1), files=(File("stdout", sha256(b""), 0),),
        )
    )
    assert submitter.check_result(result, run.assignment.placement).name == "dave"


async def check_who_may_not(alice: LocalNode, dave: LocalNode, signed: SignedWorkload) -> None:
    """Alice founded the mesh, and is neither scheduler nor may she submit."""
    desk, memory = WorkDesk(dave), overlay.work.Memory()
    placed = WorkDesk(alice).place(signed, dave.node_id)
    with pytest.raises(Refused) as caught:
        check_assignment(Assignment(signed, placed).pack(), desk.view, memory, desk.at)
    assert caught.value.reason is Reason.SCHEDULER_ROLE
    with pytest.raises(Refused) as caught:
        desk.check_workload(WorkDesk(alice).sign(WorkDesk(alice).new_workload("mine", ARTIFACT)))
    assert caught.value.reason is Reason.ORIGINATOR_ROLE
    strict = WorkDesk(dave, dual_control=True)
    with pytest.raises(Refused) as caught:
        strict.check_workload(signed)
    assert caught.value.reason is Reason.DUAL_CONTROL
    with pytest.raises(UsageError):
        desk.countersign(signed)
    with pytest.raises(PeerUnreachable):
        desk.worker("nobody")


def test_public_names_are_there_and_no_others() -> None:
    for name in overlay.work.__all__:
        assert getattr(overlay.work, name).__doc__
    with pytest.raises(AttributeError):
        overlay.work.Nothing  # noqa: B018
