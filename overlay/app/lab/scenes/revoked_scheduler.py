"""revoked-scheduler: a signed job runs on three machines, its scheduler is revoked in the middle, and all three end it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import trio

from overlay.app.api import EntryFilter, EntryView
from overlay.app.client import connect_local
from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Event, Machine, peer_up, wait_until
from overlay.app.lab.scene import ADMITTED_WITHIN, REFUSED_WITHIN, Observation, Scene
from overlay.app.lab.staging import enrol
from overlay.errors import CheckFailed
from overlay.registry import Reason

ROLES: Final = ("scheduler", "submit")
WORKERS: Final = 3
GONE_WITHIN: Final = 5.0  # seconds from the list to the end of each run: our guess, on two busy cores
SHORT: Final = "#!/bin/sh\necho done\n"
LONG: Final = "#!/bin/sh\nexec sleep 600\n"


@dataclass(frozen=True, slots=True)
class Crew:
    """Who is at work."""

    scheduler: Machine
    workers: tuple[Machine, ...]

    async def give(self, name: str, script: str) -> list[str]:
        """One signed job, a run of it on each worker: the hashes of the placements. Raises OverlayError."""
        folder = self.scheduler.host.folder
        (folder / f"{name}.sh").write_text(script)
        (folder / f"{name}.toml").write_text(f'name = "{name}"\nartifact = "{name}.sh"\nruns = {len(self.workers)}\n')
        async with connect_local(self.scheduler.state) as node:
            signed = await node.work.ask("sign", {"path": str(folder / f"{name}.toml")})
            placed = []
            for run, worker in enumerate(self.workers, 1):
                options = {"carried": signed["carried"], "worker": worker.node_id, "run": run}
                placed.append((await node.work.ask("place", options))["placement"])
        return placed


async def control(lab: Lab, actor: Machine) -> None:
    """While the scheduler is in force the same job, a short one, runs to its end on all three."""
    async with crew(lab, actor, "short") as found:
        since = {worker.name: len(worker.events) for worker in found.workers}
        placed = await found.give("short", SHORT)
        for worker, placement in zip(found.workers, placed, strict=True):
            event = await worker.wait(_of(placement, "work-ended"), within=REFUSED_WITHIN, since=since[worker.name])
            if (event["state"], event["number"]) != ("exited", 0):
                raise CheckFailed(f"the run on {worker.name} should end by itself, and is {event['state']}")
        lab.say(f"the job ran to its end on {', '.join(worker.name for worker in found.workers)}")


async def attack(lab: Lab, actor: Machine) -> Observation:
    """It is revoked while its job runs: each worker ends its run, and says why in a log that every machine has."""
    async with crew(lab, actor, "long") as found:
        since = {worker.name: len(worker.events) for worker in found.workers}
        placed = await found.give("long", LONG)
        for worker, placement in zip(found.workers, placed, strict=True):
            await worker.wait(_of(placement, "work-started"), within=REFUSED_WITHIN, since=since[worker.name])
        async with connect_local(lab.victims[0].state) as operator:
            await operator.authority.revoke([found.scheduler.name], reason="key-compromise")
        reasons = [await _stopped(worker, placement, since[worker.name])
                   for worker, placement in zip(found.workers, placed, strict=True)]
        lab.say(f"{found.scheduler.name} is revoked, and its job has ended on {', '.join(one.name for one in found.workers)}")
        for machine in lab.victims:
            await _tells_the_story(machine, placed)
    return Observation(reasons[0], found.workers[0].name)


async def _stopped(worker: Machine, placement: str, since: int) -> str:
    """For which reason it ended the run, and that it did within the time. Raises CheckFailed."""
    stop = await worker.wait(_of(placement, "work-stopped"), within=REFUSED_WITHIN, since=since, what="the end of the run")
    end = await worker.wait(_of(placement, "work-ended"), within=REFUSED_WITHIN, since=since, what="the end of the run")
    took = worker.time_of(_of(placement, "work-ended"), since) - worker.time_of(_is_list, since)
    if end["state"] != "stopped" or took > GONE_WITHIN:
        raise CheckFailed(f"the run on {worker.name} is {end['state']} {took:.2f} s after the list")
    return str(stop["reason"])


async def _tells_the_story(machine: Machine, placed: list[str]) -> None:
    """Its copies of the workers' logs say of each run that it began, was stopped, and is over. Raises CheckFailed."""

    async def complete() -> bool:
        async with connect_local(machine.state) as node:
            entries = await node.audit.read(only=EntryFilter(types=("work",)))
        return all(_story(entries, placement) == ["start", "stop", "end"] for placement in placed)

    await wait_until(complete, within=REFUSED_WITHIN, what=f"{machine.name} has the story of all runs in its logs")


def _story(entries: list[EntryView], placement: str) -> list[str]:
    return [str(entry.body["event"]) for entry in entries if entry.body.get("placement") == placement]


def _of(placement: str, name: str) -> Any:
    """Matches a line about that run."""
    return lambda event: event["event"] == name and event["placement"] == placement


def _is_list(event: Event) -> bool:
    return bool(event["event"] == "revocations-changed")


@asynccontextmanager
async def crew(lab: Lab, actor: Machine, name: str) -> AsyncIterator[Crew]:
    """A scheduler that may submit, too, and three workers, the actor one of them, all linked to the victims and each other."""
    scheduler = await enrol(lab.recipe, await lab.actor_host(), name=f"scheduler-{name}", roles=ROLES)
    workers = [actor, *[await lab.actor() for _ in range(WORKERS - 1)]]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(lab.running(scheduler, seeds=lab.victims))
        await scheduler.wait_started()
        for worker in workers:
            seeds = [scheduler, *lab.victims]
            await stack.enter_async_context(lab.running(worker, seeds=seeds, options=["--work"]))
        with trio.fail_after(ADMITTED_WITHIN * 2):
            for worker in workers:
                await scheduler.wait(
                    peer_up(worker.node_id), within=ADMITTED_WITHIN, what=f"{worker.name} linked"
                )
                await worker.wait(peer_up(lab.victims[0].node_id), within=ADMITTED_WITHIN, what="its link to the founder")
        yield Crew(scheduler, tuple(workers))


SCENE = Scene(
    name="revoked-scheduler", about="is revoked while its job runs on three machines",
    expected=Reason.SCHEDULER_REVOKED, control=control, attack=attack,
)
