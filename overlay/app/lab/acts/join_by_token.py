"""join-by-token: a machine that nobody knows becomes a member with a token and multicast alone; the token works once."""

from typing import Final

from overlay.app.lab.act import Act
from overlay.app.lab.newcomer import join
from overlay.app.lab.scene import Observation
from overlay.app.lab.story import Story
from overlay.errors import CheckFailed
from overlay.registry import Reason

NAME: Final = "judy"
ROLE: Final = "worker"


async def control(story: Story) -> None:
    """With a token for one machine the tenth machine becomes a member, and everybody admits it."""
    lab = story.lab
    async with story.authority() as authority:
        addresses = [lab.machines[0].address] if lab.world.network == "loopback" else []
        report = await authority.invite(roles=(ROLE,), uses=1, addresses=addresses)
    host = await lab.actor_host()
    story.token = str(report.fields["token"])
    since = await lab.positions()
    joined = await join(lab, host, NAME, story.token)
    if joined.machine is None:
        raise CheckFailed(f"{NAME} was not let in: {joined.said}")
    await story.start(joined.machine)
    await story.everyone_admits(joined.machine, since)
    story.record.look(lab.machines)


async def attack(story: Story) -> Observation:
    """Who has read the token afterwards does not get in."""
    joined = await join(story.lab, await story.lab.actor_host(), "mallory", story.token)
    if joined.machine is not None:
        raise CheckFailed("the token has worked twice")
    if "invite_spent" not in joined.said:
        raise CheckFailed(f"refused for something else: {joined.said}")
    return Observation(Reason.INVITE_SPENT.name, "mallory")


ACT = Act(
    name="join-by-token", phase="a tenth machine joins, with a token and multicast alone",
    about="joins with a token that has been used", expected=Reason.INVITE_SPENT,
    control=control, attack=attack,
)
