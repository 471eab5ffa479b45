"""other-mesh: somebody through the gate, with a certificate that another mesh issued."""

import trio

from overlay.app.enrol import found_mesh
from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine
from overlay.app.lab.scene import Observation, Scene, is_admitted, is_refused
from overlay.core.policy import Policy
from overlay.registry import Reason
from overlay.store.state import StateFolder


async def attack(lab: Lab, actor: Machine) -> Observation:
    """The same machine under the identity of a mesh that it founded itself."""
    path = actor.state.with_name("other-mesh")

    def found() -> None:
        with StateFolder.create(path) as folder:
            found_mesh(folder, "mallory", "other", Policy.default(), None)

    await trio.to_thread.run_sync(found)
    return await is_refused(lab, actor, Reason.OTHER_MESH, defect="other-mesh", argument=str(path), stranger=True)


SCENE = Scene(
    name="other-mesh", about="shows a certificate of a mesh it founded itself", expected=Reason.OTHER_MESH,
    control=is_admitted, attack=attack,
)
