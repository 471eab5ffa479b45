"""tpm-pulled: the TPM of a running machine is gone; it lives on, is seen to show nothing, and heals when the TPM is back."""

from typing import Final

import trio

from overlay.app.lab.act import Act
from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Event, Machine, refused, wait_until
from overlay.app.lab.scene import Observation, observation
from overlay.app.lab.staging import measure
from overlay.app.lab.story import Story
from overlay.core.limits import AttestTimes
from overlay.errors import CheckFailed
from overlay.registry import Reason

AFTER: Final = 15.0  # seconds that anything may take beyond its time, on two busy cores
HEALED_WITHIN: Final = 60.0  # seconds: dials that failed wait ever longer before they are tried again
SILENT: Final = "has shown no evidence"
FAILING: Final = "no evidence can be made"


async def control(story: Story) -> None:
    """With its TPM the machine proves itself again and again, and nobody has anything to say of it."""
    victim, round_of = story.lab.machines[-1], story.lab.options.attest_every
    await _attested_again(story.lab, victim, round_of + AFTER)
    if any(FAILING in warning for warning in (await victim.status())["warnings"]):
        raise CheckFailed(f"{victim.name} can make no evidence though its TPM is there")


async def attack(story: Story) -> Observation:
    """Its TPM is pulled: it is degraded for all to see, then out everywhere, and never dead; with its TPM it comes back."""
    lab, victim = story.lab, story.lab.machines[-1]
    others, since = lab.machines[:-1], await lab.positions()
    times = AttestTimes.period(lab.options.attest_every)
    await lab.world.pull_tpm(victim.host)
    await _warns(victim, FAILING, times.every + AFTER)
    for other in others:
        await _warns(other, f"{victim.name} {SILENT}", times.overdue + AFTER)
    for other in others:
        gone = await other.wait(
            refused(Reason.LEASE_EXPIRED.name, victim.node_id), within=times.lease + AFTER, since=since[other.name],
            what=f"{victim.name} gone",
        )
    if victim.child is None or victim.child.returncode is not None:
        raise CheckFailed(f"{victim.name} has ended: {victim.last_words()}")
    await lab.world.plug_tpm(victim.host)
    await trio.to_thread.run_sync(measure, victim.host)
    await lab.wait_meshed(HEALED_WITHIN)
    await _attested_again(lab, victim, times.every + AFTER)
    if any(FAILING in warning for warning in (await victim.status())["warnings"]):
        raise CheckFailed(f"{victim.name} still says that it can make no evidence")
    return observation(others[-1], gone)


async def _warns(machine: Machine, what: str, within: float) -> None:
    """Until its status says so. Raises CheckFailed."""

    async def says() -> bool:
        return any(what in warning for warning in (await machine.status())["warnings"])

    await wait_until(says, within=within, what=f"{machine.name} says: {what}", every=0.25)


async def _attested_again(lab: Lab, victim: Machine, within: float) -> None:
    """Until each of the others has accepted new evidence of it. Raises CheckFailed."""

    def again(event: Event) -> bool:
        return bool(event["event"] == "peer-attested" and event["node"] == victim.node_id)

    since = await lab.positions()
    for other in lab.machines[:-1]:
        await other.wait(again, within=within, since=since[other.name], what=f"{victim.name} attested again")


ACT = Act(
    name="tpm-pulled", phase="the TPM of a running machine is pulled",
    about="takes the TPM of a running machine away", expected=Reason.LEASE_EXPIRED,
    control=control, attack=attack, needs_tpm=True,
)
