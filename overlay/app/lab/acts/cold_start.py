"""cold-start: everything is switched off, two days go by, and all certificates have ended: the mesh comes back by itself."""

from typing import Final

import trio

from overlay.app.lab.act import Act
from overlay.app.lab.machine import Machine, refused
from overlay.app.lab.record import serial_of
from overlay.app.lab.scene import Observation, observation
from overlay.app.lab.story import DONE_WITHIN, Story
from overlay.errors import CheckFailed
from overlay.registry import Reason

DAYS: Final = 2.0
AHEAD: Final = DAYS * 86_400


async def control(story: Story) -> None:
    """Off, two days, on: signers renew each other over links on which nothing else is said, then everybody."""
    lab = story.lab
    before = {machine.name: serial_of(machine.state) for machine in lab.machines}
    async with trio.open_nursery() as nursery:
        for machine in lab.machines:
            nursery.start_soon(machine.stop)
    for machine in lab.machines:
        lab.start(machine, ahead=AHEAD)
    for machine in lab.machines:
        await machine.wait_started(DONE_WITHIN)
    await lab.wait_meshed(DONE_WITHIN)
    await story.same_root_everywhere()
    story.record.look(lab.machines)
    same = [machine.name for machine in lab.machines if serial_of(machine.state) == before[machine.name]]
    if same:
        raise CheckFailed(f"still under a certificate that has ended: {', '.join(same)}")


async def attack(story: Story) -> Observation:
    """The machine that was revoked asks for a new certificate in the same way, with a disk that does not know of it.

    The gate key has changed with the revocation, so it does not recognise the others' announcements: it is told where they are.
    """
    lab = story.lab
    if story.revoked is None or story.earlier is None:
        raise CheckFailed("nobody was revoked")
    thief = Machine(story.revoked.name, story.revoked.host, story.earlier, story.revoked.node_id)
    since = await lab.positions()
    lab.start(thief, ahead=AHEAD, seeds=lab.machines)
    victim, event = await lab.first_seen(
        refused(Reason.REVOKED.name, thief.node_id), since, within=DONE_WITHIN, what=f"{thief.name} turned away"
    )
    await thief.stop()
    return observation(victim, event)


ACT = Act(
    name="cold-start", phase="everything is off for two days",
    about="was thrown out, and asks for a renewal", expected=Reason.REVOKED,
    control=control, attack=attack,
)
