"""edited-software: one byte of the package is changed before the node starts."""

import shutil
from pathlib import Path

import trio

from attest.manifest import PACKAGES, installed_root
from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine, refused
from overlay.app.lab.scene import REFUSED_WITHIN, Observation, Scene, admitted, never_admitted, observation
from overlay.registry import Reason

EDITED = Path("overlay") / "events.py"


def copy_package(to: Path) -> Path:
    """The four packages as they are installed, in a folder of their own."""
    for name in PACKAGES:
        shutil.copytree(installed_root() / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def edit(package: Path) -> None:
    """Change one byte, in a comment: the program behaves as before."""
    path = package / EDITED
    text = bytearray(path.read_bytes())
    text[3] ^= 0x20  # the first letter of the docstring changes its case
    path.write_bytes(text)


async def control(lab: Lab, actor: Machine) -> None:
    """A node that runs an exact copy of the package is admitted."""
    package = await trio.to_thread.run_sync(copy_package, actor.host.folder / "copy")
    since = await lab.positions()
    async with lab.running(actor, package=package):
        await admitted(lab, actor, since)


async def attack(lab: Lab, actor: Machine) -> Observation:
    """Another machine runs the copy with one byte changed, and its launcher measures what it runs."""
    package = actor.host.folder / "copy"
    await trio.to_thread.run_sync(edit, package)
    edited = await lab.actor(package=package)
    since = await lab.positions()
    expected = Reason.PCR_MISMATCH if lab.choice.evidence == "tpm" else Reason.SOFTWARE_MISMATCH
    async with lab.running(edited, package=package):
        victim, event = await lab.first_seen(
            refused(expected.name, edited.node_id), since, within=REFUSED_WITHIN, what=expected.name
        )
        never_admitted(lab, edited, since)
    return observation(victim, event)


SCENE = Scene(
    name="edited-software", about="runs the package with one byte changed", expected=Reason.PCR_MISMATCH,
    expected_software=Reason.SOFTWARE_MISMATCH, control=control, attack=attack,
)
