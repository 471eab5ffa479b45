"""The course of a lab with machines that are not there: whatever happens, there is a report, and it is in time."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from overlay.app.lab.catalogue import ACTS, SCENES, Programme
from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine
from overlay.app.lab.main import _play, _with_room_for
from overlay.app.lab.options import Choice, LabOptions
from overlay.app.lab.report import LinkRow, NodeRow, Report, Snapshot
from overlay.app.lab.scene import Observation, Scene
from overlay.app.lab.screen import Screen
from overlay.app.lab.story import Story
from overlay.errors import CheckFailed, UsageError
from overlay.registry import Reason

NODES = [NodeRow(name=name, id=name, level=2, peers=[], entries=1, head="h") for name in ("alice", "bob")]
MESH = Snapshot(nodes=NODES, links=[LinkRow(a="alice", b="bob", epochs=2, rounds=2)], heads_equal=True)
ONCE = LabOptions(nodes=2, json=True, once=True, rekey_after=5, attest_every=5)


class FakeLab:
    """A lab that takes a while for each thing, or for ever, or fails at it."""

    def __init__(self, **steps: float | str) -> None:
        self.options, self.choice = ONCE, Choice("tpm", "namespaces")
        self.steps = steps
        self.said: list[str] = []
        self.say = self.said.append

    async def _step(self, name: str) -> None:
        step = self.steps.get(name, 0.0)
        if isinstance(step, str):
            raise CheckFailed(step)
        await trio.sleep(step)

    async def wait_meshed(self) -> None:
        await self._step("meshed")

    async def wait_proven(self) -> None:
        await self._step("proven")

    async def barrier(self, within: float = 30.0) -> Snapshot:
        await self._step("barrier")
        return MESH

    async def actor(self) -> None:
        await self._step("actor")


async def nothing(_lab: Lab, _actor: Machine) -> None:
    await trio.lowlevel.checkpoint()


def scene(name: str, seconds: float, reason: Reason = Reason.BAD_GATE) -> Scene:
    async def attack(_lab: Lab, _actor: Machine) -> Observation:
        await trio.sleep(seconds)
        return Observation(reason.name, "alice")

    return Scene(name=name, about=name, expected=Reason.BAD_GATE, control=nothing, attack=attack)


async def play(*scenes: Scene, **steps: float | str) -> Report:
    lab: Any = FakeLab(**steps)
    return await _play(cast("Lab", lab), Programme(scenes, ()), Screen(ONCE), trio.current_time())


async def test_a_good_lab_is_ok_and_tells_its_scenes_in_the_order_asked_for(autojump_clock: MockClock) -> None:
    report = await play(scene("slow", 20), scene("fast", 1), meshed=3.0, proven=10.0)
    assert report.ok
    assert [row.name for row in report.scenes] == ["slow", "fast"]
    assert report.seconds == pytest.approx(33)


async def test_a_scene_that_failed_makes_the_lab_fail(autojump_clock: MockClock) -> None:
    report = await play(scene("good", 1), scene("bad", 1, Reason.OTHER_MESH))
    assert [row.status for row in report.scenes] == ["passed", "failed"]
    assert not report.ok


async def test_a_scene_that_does_not_end_is_reported_in_time_and_has_not_passed(autojump_clock: MockClock) -> None:
    report = await play(scene("good", 1), scene("endless", math.inf))
    assert [(row.name, row.status, row.why) for row in report.scenes] == [
        ("good", "passed", ""), ("endless", "failed", "it did not come to its end")
    ]  # fmt: skip
    assert not report.ok
    assert report.seconds < 115


@pytest.mark.parametrize("step", ["meshed", "proven"])
async def test_a_mesh_that_does_not_come_up_is_reported_in_time(autojump_clock: MockClock, step: str) -> None:
    report = await play(scene("good", 1), **{step: math.inf})
    assert (report.ok, report.before.nodes, report.scenes[0].status) == (False, [], "failed")
    assert report.after == MESH
    assert report.seconds < 115


@pytest.mark.parametrize("step", ["meshed", "proven", "barrier"])
async def test_machines_that_fail_end_in_a_report_too(autojump_clock: MockClock, step: str) -> None:
    report = await play(scene("good", 1), **{step: "alice ended"})
    assert (report.ok, report.why, report.scenes[0].status) == (False, "alice ended", "failed")


async def test_no_act_is_played_on_a_mesh_that_did_not_come_up(autojump_clock: MockClock) -> None:
    lab: Any = FakeLab(meshed=math.inf)
    report = await _play(cast("Lab", lab), Programme((), ACTS[:1]), Screen(ONCE), trio.current_time())
    assert [(row.name, row.status, row.why) for row in report.scenes] == [
        ("distribute", "failed", "it did not come to its end")
    ]  # fmt: skip


async def test_after_an_act_that_failed_no_other_one_is_played(autojump_clock: MockClock, tmp_path: Path) -> None:
    lab: Any = FakeLab()
    lab.world = SimpleNamespace(folder=tmp_path)
    first = replace(ACTS[0], control=control_that_fails)
    report = await _play(cast("Lab", lab), Programme((), (first, ACTS[1])), Screen(ONCE), trio.current_time())
    assert [(row.status, row.why) for row in report.scenes] == [
        ("failed", "not done"), ("failed", "it did not come to its end")
    ]  # fmt: skip
    assert not report.ok


async def control_that_fails(_story: Story) -> None:
    await trio.lowlevel.checkpoint()
    raise CheckFailed("not done")


@pytest.mark.parametrize("nodes", [2, 5, 8])
def test_acts_take_nine_machines(nodes: int) -> None:
    with pytest.raises(UsageError, match="revoke needs 9 machines"):
        _with_room_for(Programme((), ACTS[:4]), LabOptions(nodes=nodes))
    assert _with_room_for(Programme((), ACTS[:4]), LabOptions()).count == 9
    assert _with_room_for(Programme(SCENES, ()), LabOptions()).count == 5
