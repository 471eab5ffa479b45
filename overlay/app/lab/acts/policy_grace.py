"""policy-grace: another release becomes the good one while machines update one by one; who has not when grace ends is out."""

from pathlib import Path
from typing import Final

import trio

from attest.manifest import package_manifest
from overlay.app.lab.act import Act
from overlay.app.lab.machine import Machine, refused, wait_until
from overlay.app.lab.scene import Observation, observation
from overlay.app.lab.scenes.edited_software import copy_package, edit
from overlay.app.lab.staging import measure, measured_digest
from overlay.app.lab.story import DONE_WITHIN, Story
from overlay.errors import CheckFailed
from overlay.registry import Reason

GRACE: Final = 45  # seconds: four machines update in 20 on two cores
AFTER: Final = 15.0  # seconds beyond the end of grace and one round
PASSES: Final = "it passes until"


async def control(story: Story) -> None:
    """All machines but one update under the new policy: everybody stays or comes back, and the old release is only told of."""
    lab = story.lab
    package = await trio.to_thread.run_sync(_new_release, lab.world.folder / "next")
    since = await lab.positions()
    async with story.authority() as authority:
        await authority.policy(await trio.to_thread.run_sync(_policy, package, lab.choice.evidence == "tpm"))
    await story.everyone_sees(lambda event: event["event"] == "policy-changed", since, what="the new policy")
    last = lab.machines[-1]
    for place, machine in enumerate(lab.machines[:-1]):
        await story.stop(machine)
        await _update(story, machine, package)
        await story.start(machine, among=place, package=package)
        story.say(f"{machine.name} runs the next release, and is linked to all")
    for machine in lab.machines[:-1]:
        await _told_of(machine, last)
    turned_away = refused(_reason(story).name)
    if any(turned_away(event) for machine in lab.machines for event in machine.events[since[machine.name] :]):
        raise CheckFailed("somebody was refused while grace lasted")


async def attack(story: Story) -> Observation:
    """Grace ends: every machine drops the one that did not update, and does not let it in again."""
    lab, last = story.lab, story.lab.machines[-1]
    others, since = lab.machines[:-1], await lab.positions()
    within = GRACE + lab.options.attest_every + AFTER
    for machine in others:
        seen = await machine.wait(
            refused(_reason(story).name, last.node_id), within=within, since=since[machine.name], what=f"{last.name} refused"
        )
    await story.stop(last)
    await lab.wait_meshed(DONE_WITHIN)
    return observation(others[-1], seen)


def _reason(story: Story) -> Reason:
    return Reason.PCR_MISMATCH if story.lab.choice.evidence == "tpm" else Reason.SOFTWARE_MISMATCH


def _new_release(folder: Path) -> Path:
    """A copy of the package that differs in one byte. Blocks."""
    package = copy_package(folder)
    edit(package)
    return package


def _policy(package: Path, tpm: bool) -> str:  # noqa: FBT001
    """Version 2: only the next release is good, and what was good before for a while. Blocks."""
    manifest = package_manifest(package)
    lines = ["version = 2", f'grace = "{GRACE}s"', f'manifests = ["{manifest.hex()}"]']
    if tpm:
        digest = measured_digest(manifest).hex()
        lines += ['attestation = "require"', "minimum_level = 2", "pcrs = [14]", f'pcr_digests = ["{digest}"]']
    else:
        lines += ["minimum_level = 1"]
    return "\n".join(lines)


async def _update(story: Story, machine: Machine, package: Path) -> None:
    """The machine is started anew: its TPM forgets what was measured, and what will run is measured."""
    if machine.host.tcti is not None:
        await story.lab.world.pull_tpm(machine.host)
        await story.lab.world.plug_tpm(machine.host)
        await trio.to_thread.run_sync(measure, machine.host, package)


async def _told_of(machine: Machine, other: Machine) -> None:
    """Until its status says that the other one passes for a while only. Raises CheckFailed."""

    async def says() -> bool:
        warnings = (await machine.status())["warnings"]
        return any(one.startswith(other.name) and PASSES in one for one in warnings)

    await wait_until(says, within=DONE_WITHIN, what=f"{machine.name} says that {other.name} passes for a while")


ACT = Act(
    name="policy-grace", phase="machines update one by one, while what was good before still passes",
    about="does not update while there is time", expected=Reason.PCR_MISMATCH, expected_software=Reason.SOFTWARE_MISMATCH,
    control=control, attack=attack,
)
