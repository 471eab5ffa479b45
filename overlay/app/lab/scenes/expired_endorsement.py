"""expired-endorsement: at a dial, and on a link that was opened while it was still good."""

from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine, refused
from overlay.app.lab.scene import Observation, Scene, admitted, is_admitted, is_refused, observation
from overlay.registry import Reason

OPEN_FOR = 10.0  # seconds until the endorsement of the second part ends


async def attack(lab: Lab, actor: Machine) -> Observation:
    """First an endorsement that has ended; then one that ends in ten seconds and is not renewed."""
    expected = Reason.ENDORSEMENT_EXPIRED
    await is_refused(lab, actor, expected, defect="expired-endorsement", argument="-60", stranger=True)
    since = await lab.positions()
    async with lab.running(actor, defect="expired-endorsement", argument=str(OPEN_FOR)):
        await admitted(lab, actor, since)
        victim, event = await lab.first_seen(
            lambda event: event["event"] == "peer-down" and refused(expected.name, actor.node_id)(event), since,
            within=OPEN_FOR + 10, what=expected.name,
        )
    return observation(victim, event)


SCENE = Scene(
    name="expired-endorsement", about="goes on under an endorsement that has ended",
    expected=Reason.ENDORSEMENT_EXPIRED, control=is_admitted, attack=attack,
)
