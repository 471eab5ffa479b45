"""revoke: a machine is thrown out, and gone everywhere within a second of the list; it does not come back."""

from typing import Final

from overlay.app.lab.act import Act
from overlay.app.lab.machine import Event, Machine, refused
from overlay.app.lab.scene import Observation, observation
from overlay.app.lab.story import DONE_WITHIN, SIGNERS, Story
from overlay.errors import CheckFailed
from overlay.registry import Reason

GONE_WITHIN: Final = 1.0  # seconds from the first arrival of the list anywhere: the promise
STRANGER: Final = SIGNERS + 3  # which machine: it is no signer, and never becomes one


async def control(story: Story) -> None:
    """It is linked to everybody, and the signers renew its certificate."""
    victim = story.lab.machines[STRANGER - 1]
    await story.lab.wait_meshed()
    await story.renewed(victim)
    story.earlier = await story.steal(victim, "earlier")


async def attack(story: Story) -> Observation:
    """Every machine closes its link within a second of the list; then it knocks again, and is refused."""
    victim = story.lab.machines[STRANGER - 1]
    story.revoked = victim
    story.lab.machines.remove(victim)
    since = await story.lab.positions()
    async with story.authority() as authority:
        await authority.revoke([victim.name], reason="key-compromise")
    ends = [await _end_of(victim, machine, since[machine.name]) for machine in story.lab.machines]
    began = min(arrival for arrival, _ in ends)
    if (took := max(end for _, end in ends) - began) > GONE_WITHIN:
        raise CheckFailed(f"{victim.name} was gone everywhere only {took:.2f} s after the list")
    story.say(f"{victim.name} was gone everywhere {took:.2f} s after the list came to the first machine")
    machine, event = await story.lab.first_seen(
        lambda event: event["event"] == "link-refused" and refused(Reason.REVOKED.name, victim.node_id)(event), since,
        within=DONE_WITHIN, what=f"{victim.name} turned away",
    )
    await victim.stop()
    story.record.keep_roots_and_lists(story.operator)
    return observation(machine, event)


async def _end_of(victim: Machine, machine: Machine, since: int) -> tuple[float, float]:
    """When the list came to a machine, and when its link to the victim was gone."""

    def names_it(event: Event) -> bool:
        return bool(event["event"] == "revocations-changed" and victim.node_id in event["nodes"])

    def closes(event: Event) -> bool:
        return bool(event["event"] == "peer-down" and event["node"] == victim.node_id)

    await machine.wait(names_it, within=DONE_WITHIN, since=since, what="the revocation list")
    await machine.wait(closes, within=DONE_WITHIN, since=since, what=f"{victim.name} gone")
    return machine.time_of(names_it, since), machine.time_of(closes, since)


ACT = Act(
    name="revoke", phase="a machine is thrown out",
    about="is thrown out, and knocks again", expected=Reason.REVOKED,
    control=control, attack=attack,
)
