"""refresh: every signer gets a new share of the same key, who is away is named, and a stolen old share is worth nothing."""

import shutil
from pathlib import Path
from typing import Final

import trio

from overlay.app.lab.act import Act
from overlay.app.lab.machine import Machine
from overlay.app.lab.scene import Observation
from overlay.app.lab.story import SIGNERS, Story
from overlay.errors import CheckFailed
from overlay.registry import Reason
from overlay.store.state import SHARE

STOLEN: Final = "stolen-shares"
SHARES: Final = f"{Path(SHARE).stem}*"


def copy_share(machine: Machine, source: Path, target: Path) -> None:
    """A machine's share from one folder to another, as whoever has had its disk does. Blocks."""
    target.mkdir(exist_ok=True)
    for old in target.glob(SHARES):
        old.unlink()
    found = list(source.glob(SHARES))
    if not found:
        raise CheckFailed(f"{machine.name} has no share")
    for file in found:
        shutil.copy2(file, target / file.name)


async def control(story: Story) -> None:
    """The share of one signer is stolen; then all get new ones, but for the dead one, which is named. The key stays."""
    victim = story.lab.machines[1]
    stolen = victim.state.with_name(STOLEN)
    await trio.to_thread.run_sync(copy_share, victim, victim.state, stolen)
    await played_with(story, victim, stolen, good=True)
    since = await story.lab.positions()
    async with story.authority() as authority:
        await authority.refresh()
    if story.dead is None:
        raise CheckFailed("there is no dead signer")
    await story.somebody_is_alarmed(story.dead, Reason.WRONG_GENERATION, since)
    await story.same_root_everywhere()
    await story.renewed(story.lab.machines[-1])


async def attack(story: Story) -> Observation:
    """The thief puts the old share in the place of the new one: nobody signs with it, and so nothing is signed."""
    victim = story.lab.machines[1]
    new = victim.state.with_name("new-shares")
    await trio.to_thread.run_sync(copy_share, victim, victim.state, new)
    seen = await played_with(story, victim, victim.state.with_name(STOLEN), good=False)
    await played_with(story, victim, new, good=True)
    assert seen is not None
    return seen


async def played_with(story: Story, victim: Machine, shares: Path, *, good: bool) -> Observation | None:
    """The signer is off, gets the share from that folder, and is on again: whether the mesh key can sign with it."""
    async with story.away(victim):
        await trio.to_thread.run_sync(copy_share, victim, shares, victim.state)
    member = story.lab.machines[SIGNERS]
    if good:
        await story.renewed(member)
        return None
    since = await story.lab.positions()
    await story.not_renewed(member)
    return await story.somebody_is_alarmed(victim, Reason.WRONG_GENERATION, since)


ACT = Act(
    name="refresh", phase="the signers get new shares",
    about="signs with a share that it has stolen before", expected=Reason.WRONG_GENERATION,
    control=control, attack=attack,
)
