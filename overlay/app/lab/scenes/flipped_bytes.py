"""flipped-bytes: somebody on the wire changes one byte of an open link."""

from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine, refused
from overlay.app.lab.scene import ADMITTED_WITHIN, REFUSED_WITHIN, Observation, Scene, admitted, observation
from overlay.registry import Reason


async def control(lab: Lab, actor: Machine) -> None:
    """Through a wire that changes nothing, the actor is admitted and proves itself again."""
    since = await lab.positions()
    victim = lab.victims[0]
    async with lab.wire(actor, victim) as wire, lab.running(actor, through=wire):
        await admitted(lab, actor, since)
        await victim.wait(
            lambda event: event["event"] == "peer-attested" and event["node"] == actor.node_id,
            within=lab.actor_round + ADMITTED_WITHIN, since=since[victim.name], what=f"{actor.name} attested again",
        )


async def attack(lab: Lab, actor: Machine) -> Observation:
    """The same wire, until it changes one bit of what the actor sends."""
    since = await lab.positions()
    victim = lab.victims[0]
    async with lab.wire(actor, victim) as wire, lab.running(actor, through=wire):
        await admitted(lab, actor, since)
        wire.flip()
        event = await victim.wait(
            refused(Reason.BAD_RECORD.name, actor.node_id), within=lab.actor_round + REFUSED_WITHIN,
            since=since[victim.name], what=Reason.BAD_RECORD.name,
        )
    return observation(victim, event)


SCENE = Scene(
    name="flipped-bytes", about="changes a bit of what an open link carries", expected=Reason.BAD_RECORD,
    control=control, attack=attack,
)
