"""distribute: five machines hold the mesh key, of whom four sign; the founding key that was stolen is worth nothing."""

from pathlib import Path
from typing import Final

from overlay.app.lab.act import Act
from overlay.app.lab.machine import Machine
from overlay.app.lab.record import root_of
from overlay.app.lab.scene import Observation, admitted, is_refused
from overlay.app.lab.staging import Recipe, enrol
from overlay.app.lab.story import SIGNERS, THRESHOLD, Story
from overlay.errors import CheckFailed
from overlay.registry import Reason

STOLEN: Final = "stolen-founder"


async def forged(story: Story, stolen: Path, name: str) -> Machine:
    """A machine with a certificate that the stolen founding key has signed: nobody of the mesh knows of it."""
    return await enrol(Recipe(stolen, story.lab.recipe.tpm), await story.lab.actor_host(), name=name)


async def control(story: Story) -> None:
    """As long as one machine holds the mesh, its disk in the hands of a thief is the mesh in the hands of a thief."""
    if not (await story.status())["founding"]:
        raise CheckFailed("the mesh key is distributed already")
    story.record.look(story.lab.machines)
    thief = await forged(story, await story.steal(story.operator, STOLEN), "thief")
    since = await story.lab.positions()
    async with story.lab.running(thief):
        await admitted(story.lab, thief, since)


async def attack(story: Story) -> Observation:
    """Distribute; all members go on under a root whose key no machine holds, and the thief's next certificate is refused."""
    members = [machine.name for machine in story.lab.machines[:SIGNERS]]
    async with story.authority() as authority:
        await authority.distribute(members, THRESHOLD)
    story.root = str((await story.status())["root"])
    story.record.look(story.lab.machines)
    await story.same_root_everywhere()
    await story.nobody_has_the_key()
    story.record.keep_roots_and_lists(story.operator)
    thief = await forged(story, story.operator.state.with_name(STOLEN), "thief-again")
    seen = await is_refused(story.lab, thief, Reason.WRONG_GENERATION, defect="")
    if root_of(thief.state):
        raise CheckFailed("the thief got a certificate by the new root")
    return seen


ACT = Act(
    name="distribute", phase="the mesh key is distributed: four of five machines sign",
    about="signs with the founding key that it has stolen", expected=Reason.WRONG_GENERATION,
    control=control, attack=attack,
)
