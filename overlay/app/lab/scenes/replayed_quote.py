"""replayed-quote: a member shows a second peer the evidence that it made for the link to a first one."""

from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine, refused
from overlay.app.lab.scene import REFUSED_WITHIN, Observation, Scene, is_admitted, observation
from overlay.registry import Reason


async def attack(lab: Lab, actor: Machine) -> Observation:
    """Its first evidence is genuine, and admitted where it belongs; everywhere else it is a recording."""
    since = await lab.positions()
    expected = Reason.EVIDENCE_NOT_BOUND
    async with lab.running(actor, defect="replayed-quote", seeds=lab.victims):
        victim, event = await lab.first_seen(
            refused(expected.name, actor.node_id), since, within=REFUSED_WITHIN, what=expected.name
        )
    return observation(victim, event)


SCENE = Scene(
    name="replayed-quote", about="shows evidence recorded on another link", expected=Reason.EVIDENCE_NOT_BOUND,
    control=is_admitted, attack=attack,
)
