"""A scheduler that places one run on two workers: every node that sees both logs raises the alarm, and says who it was."""

from collections.abc import AsyncIterator
from functools import partial

import trio

from audit.work_bodies import work_start
from overlay.app.api import EntryFilter, EntryView
from overlay.app.event_lines import describe
from overlay.app.local import LocalNode
from overlay.core.wire import sha256
from overlay.events import NodeEvent, RunPlacedTwice
from overlay.registry import EntryType
from overlay.testing import mesh
from overlay.work import Artifact, ArtifactType, Assignment, Memory, WorkDesk, check_assignment

ROLES = {"bob": ("submit",), "carol": ("scheduler",), "dave": ("worker",), "erin": ("worker",)}


async def start(worker: LocalNode, assignment: Assignment) -> None:
    """What a worker logs before it starts a run."""
    desk = WorkDesk(worker)
    run = check_assignment(assignment.pack(), desk.view, Memory(), desk.at)
    await worker.audit._log.append(EntryType.WORK, work_start(run))


async def test_a_run_on_two_workers_is_an_alarm_on_every_node_that_names_the_scheduler() -> None:
    async with mesh("alice", *ROLES, roles=ROLES) as (alice, bob, carol, dave, erin):
        alarms: dict[str, RunPlacedTwice] = {}
        for node in (alice, bob, erin):
            node.engine.observe(partial(keep, alarms, node.name))
        signed = WorkDesk(bob).sign(WorkDesk(bob).new_workload("job", Artifact(sha256(b""), 0, ArtifactType.PROGRAM), runs=2))
        placing = WorkDesk(carol)
        await start(dave, Assignment(signed, placing.place(signed, dave.node_id)))
        await start(erin, Assignment(signed, placing.place(signed, erin.node_id, run=2)))  # as it should be
        with trio.fail_after(20):
            async with alice.audit.follow(only=EntryFilter(types=("work",))) as entries:
                await start(erin, Assignment(signed, placing.place(signed, erin.node_id)))
                told = [one.node_name async for one in told_by_three(entries)]
        assert {"alice", "bob", "erin"} <= alarms.keys() and len(told) == 3
        for event in alarms.values():
            assert event.names == ("carol",) and event.schedulers == (str(carol.node_id),) and event.run == 1
            assert set(event.workers) == {str(dave.node_id), str(erin.node_id)}
        assert "placed twice, by carol, proven" in describe(alarms["alice"])


def keep(alarms: dict[str, RunPlacedTwice], name: str, event: NodeEvent) -> None:
    if isinstance(event, RunPlacedTwice):
        assert name not in alarms  # said once
        alarms[name] = event


async def told_by_three(entries: AsyncIterator[EntryView]) -> AsyncIterator[EntryView]:
    """What alice, bob and erin log of it; dave and carol do so, too."""
    names = {"alice", "bob", "erin"}
    async for one in entries:
        if one.body["event"] == "placed_twice" and one.node_name in names:
            names.remove(one.node_name)
            yield one
        if not names:
            return
