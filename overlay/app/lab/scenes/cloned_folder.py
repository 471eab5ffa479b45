"""cloned-folder: a member's folder is copied, to a second machine where its keys are no TPM's, and both run."""

import trio

from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine
from overlay.app.lab.scene import Observation, Scene, admitted
from overlay.app.lab.scenes.restored_folder import copy_folder, everybody_has, say
from overlay.registry import Reason

CLONED_WITHIN = 40.0  # seconds: the two take each other's links away, three times at least


async def control(lab: Lab, actor: Machine) -> None:
    """The folder is moved to the second machine, and runs only there: nobody says anything of it."""
    since = await lab.positions()
    async with lab.running(actor, seeds=lab.victims):
        await admitted(lab, actor, since)
        await say(actor, "7a")
        await everybody_has(lab, actor, "7a")
    since = await lab.positions()
    async with lab.running(await _clone(lab, actor, "moved"), seeds=lab.victims):
        await admitted(lab, actor, since)


async def attack(lab: Lab, actor: Machine) -> Observation:
    """Both run: every machine says that one identity runs twice, or has the proof that it has told two stories."""
    since = await lab.positions()
    clone = await _clone(lab, actor, "clone")
    async with lab.running(actor, seeds=lab.victims):
        await admitted(lab, actor, since)
        async with lab.running(clone, seeds=lab.victims):
            deadline = trio.current_time() + CLONED_WITHIN
            found = [
                await victim.wait(
                    lambda event: event["event"] in {"identity-cloned", "fork-exposed"} and event["node"] == actor.node_id,
                    within=max(0.1, deadline - trio.current_time()), since=since[victim.name], what="a clone",
                )
                for victim in lab.victims
            ]
    lab.say(f"every machine says so: {', '.join(sorted({str(event['event']) for event in found}))}")
    return Observation(Reason.CLONED_IDENTITY.name, lab.victims[0].name)


async def _clone(lab: Lab, actor: Machine, name: str) -> Machine:
    """Another machine with the actor's folder. Keys in a TPM are of no use elsewhere: the copy runs beside the first one."""
    host = actor.host if lab.choice.evidence == "tpm" else await lab.actor_host()
    state = await trio.to_thread.run_sync(copy_folder, actor, host.folder / f"state-{name}")
    return Machine(f"{actor.name}-{name}", host, state, actor.node_id)


SCENE = Scene(
    name="cloned-folder", about="runs on two machines at once", expected=Reason.CLONED_IDENTITY, control=control,
    attack=attack,
)
