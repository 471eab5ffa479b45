"""restored-folder: a member's folder is put back from an old copy, by hand; the member has written since."""

import shutil
from pathlib import Path

import trio

from audit.batch import NEWER_COPY, UNCONFIRMED
from overlay.app.api import EntryView
from overlay.app.client import connect_local
from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine, wait_until
from overlay.app.lab.scene import REFUSED_WITHIN, Observation, Scene
from overlay.errors import CheckFailed
from overlay.registry import Reason

WRITTEN_WITHIN = 20.0  # a start may first wait ten seconds for its witnesses
SOCKET = "control.sock"


async def say(actor: Machine, door: str) -> None:
    """One more entry in its log, as soon as it runs. Raises CheckFailed."""
    await actor.wait_started()
    with trio.move_on_after(WRITTEN_WITHIN) as scope:
        async with connect_local(actor.state) as node:
            await node.audit.append("door.opened", {"door": door})
    if scope.cancelled_caught:
        raise CheckFailed(f"{actor.name} could not write into its own log")


async def entries_of(machine: Machine, author: Machine) -> list[EntryView]:
    """What a machine holds of an author."""
    async with connect_local(machine.state) as node:
        return await node.audit.read(node=author.node_id)


async def everybody_has(lab: Lab, actor: Machine, *doors: str) -> None:
    """Until every victim holds these entries of the actor. Raises CheckFailed."""
    for victim in lab.victims:

        async def has(victim: Machine = victim) -> bool:
            found = [one.body.get("value") for one in await entries_of(victim, actor) if one.type == "application"]
            return all({"door": door} in found for door in doors)

        await wait_until(has, within=REFUSED_WITHIN, what=f"{victim.name} has all entries of {actor.name}")


async def begun(lab: Lab, actor: Machine) -> str:
    """Why its newest log was begun, as every victim holds it; empty for the first one. Raises CheckFailed."""
    reasons = set()
    for victim in lab.victims:
        openings = [one for one in await entries_of(victim, actor) if one.type == "log_open"]
        reasons.add(str(max(openings, key=lambda one: int(one.body["k"])).body.get("reason", "")))
    if len(reasons) != 1:
        raise CheckFailed(f"the machines hold different logs of {actor.name}")
    return reasons.pop()


def copy_folder(machine: Machine, to: Path) -> Path:
    """The folder of a machine that does not run. Blocks."""
    return Path(shutil.copytree(machine.state, to, ignore=shutil.ignore_patterns(SOCKET)))


async def control(lab: Lab, actor: Machine) -> None:
    """It is stopped and started as it is: its log goes on, and every machine has all of it. A copy was made between."""
    async with lab.running(actor, seeds=lab.victims):
        await say(actor, "7a")
        await everybody_has(lab, actor, "7a")
    await trio.to_thread.run_sync(copy_folder, actor, _old(actor))
    async with lab.running(actor, seeds=lab.victims):
        await say(actor, "7b")
        await everybody_has(lab, actor, "7a", "7b")


async def attack(lab: Lab, actor: Machine) -> Observation:
    """The old copy is put back and started: it begins its next log, which says so, and nothing is lost on any machine."""
    since = await lab.positions()
    await trio.to_thread.run_sync(shutil.rmtree, actor.state)
    await trio.to_thread.run_sync(shutil.copytree, _old(actor), actor.state)
    async with lab.running(actor, seeds=lab.victims):
        await say(actor, "7c")
        await everybody_has(lab, actor, "7a", "7b", "7c")
        why = await begun(lab, actor)
    if why not in {NEWER_COPY, UNCONFIRMED}:
        raise CheckFailed(f"{actor.name} went on with an old copy of its log: {why or 'no log was begun'}")
    nobody_exposed(lab, actor, since)
    lab.say(f"every machine has the old log of {actor.name} whole, and its next one: {why}")
    return Observation(Reason.SUPERSEDED.name, lab.victims[0].name)


def nobody_exposed(lab: Lab, actor: Machine, since: dict[str, int]) -> None:
    """Raises CheckFailed if a victim says that the actor has forked."""
    for victim in lab.victims:
        for event in victim.events[since[victim.name] :]:
            if event["event"] == "fork-exposed" and event["node"] == actor.node_id:
                raise CheckFailed(f"{actor.name} has done nothing wrong, and was exposed: {event['detail']}")


def _old(actor: Machine) -> Path:
    return actor.state.with_name(f"{actor.state.name}-old")


SCENE = Scene(
    name="restored-folder", about="is started on an old copy of its folder", expected=Reason.SUPERSEDED, control=control,
    attack=attack,
)
