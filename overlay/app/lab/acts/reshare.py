"""reshare: the mesh key gets into other hands, and stays the same; the signer that is none any more signs nothing."""

from typing import Final

from overlay.app.lab.act import Act
from overlay.app.lab.scene import Observation
from overlay.app.lab.story import DONE_WITHIN, SIGNERS, Story
from overlay.core.joining import SIGNER
from overlay.errors import CheckFailed
from overlay.registry import Reason
from overlay.store.state import SHARE

MEMBERS: Final = 7
THRESHOLD: Final = 5


async def control(story: Story) -> None:
    """Three more machines become signers, the dead one leaves: five of seven sign, under the root that was there before."""
    machines = story.lab.machines
    new = machines[SIGNERS - 1 : MEMBERS]
    for machine in new:
        async with story.authority() as authority:
            await authority.grant(machine.name, [SIGNER])
        await story.renewed(machine)
    async with story.authority() as authority:
        await authority.reshare([machine.name for machine in machines[:MEMBERS]], THRESHOLD)
    for machine in machines[:MEMBERS]:
        await machine.wait(
            lambda event: event["event"] == "authority-changed" and event["threshold"] == THRESHOLD, within=DONE_WITHIN,
            what="the new signers",
        )
    await story.same_root_everywhere()
    async with story.away(machines[0]), story.away(machines[1]):
        await story.renewed(new[0])


async def attack(story: Story) -> Observation:
    """The dead signer comes back, hears nothing of all that, and has a certificate signed as it was used to."""
    dead, lab = story.dead, story.lab
    if dead is None:
        raise CheckFailed("there is no dead signer")
    since = await lab.positions()
    lab.start(dead, defect="deaf-signer")
    await dead.wait_started(DONE_WITHIN)
    await story.everyone_admits(dead, since)
    await story.not_renewed(dead)
    seen = await story.somebody_is_alarmed(dead, Reason.WRONG_GENERATION, {dead.name: 0}, among=[dead])
    await dead.stop()
    await story.start(dead)
    await story.everyone(lambda machine: not (machine.state / SHARE).exists(), what="its share erased", among=[dead])
    await story.renewed(dead)
    return seen


ACT = Act(
    name="reshare", phase="other machines become signers",
    about="was a signer, and goes on as if it were one", expected=Reason.WRONG_GENERATION,
    control=control, attack=attack,
)
