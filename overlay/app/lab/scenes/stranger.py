"""stranger: somebody who knows an address and has no gate key of this mesh."""

from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine
from overlay.app.lab.scene import Observation, Scene, is_admitted, is_refused
from overlay.registry import Reason


async def attack(lab: Lab, actor: Machine) -> Observation:
    """The same machine, with a gate key that it made up."""
    return await is_refused(lab, actor, Reason.BAD_GATE, defect="wrong-gate-key", stranger=True)


SCENE = Scene(
    name="stranger", about="knocks without the gate key", expected=Reason.BAD_GATE, control=is_admitted, attack=attack
)
