"""signer-killed: one signer is lost for ever, and the others go on; with one more they stop, and sign nothing by halves."""

from overlay.app.lab.act import Act
from overlay.app.lab.scene import Observation
from overlay.app.lab.story import SIGNERS, Story
from overlay.registry import Reason


async def control(story: Story) -> None:
    """All signers are there, and a member gets a new certificate; then with one of them dead."""
    member = story.lab.machines[SIGNERS]
    await story.renewed(member)
    story.dead = story.lab.machines[SIGNERS - 1]
    await story.kill(story.dead)
    await story.renewed(member)


async def attack(story: Story) -> Observation:
    """One more is away: nothing is signed until it is back."""
    away, member = story.lab.machines[SIGNERS - 2], story.lab.machines[-1]
    async with story.away(away):
        seen = await story.not_renewed(member)
    await story.renewed(member)
    return seen


ACT = Act(
    name="signer-killed", phase="a signer dies",
    about="takes down a second signer of five", expected=Reason.NOT_ENOUGH_SIGNERS,
    control=control, attack=attack,
)
