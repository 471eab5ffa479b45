"""replayed-rekey: a member sends the OFFER of an epoch that is in force once more."""

from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine, refused
from overlay.app.lab.scene import Observation, Scene, observation
from overlay.registry import Reason


async def control(lab: Lab, actor: Machine) -> None:
    """Without the replay the rekey is done, and the next one, too."""
    since = await lab.positions()
    async with lab.running(actor):
        for epoch in (2, 3):
            await lab.first_seen(
                lambda event, epoch=epoch: (  # type: ignore[misc]
                    event["event"] == "link-rekeyed" and event["node"] == actor.node_id and event["epoch"] == epoch
                ),
                since, within=3 * lab.actor_rekey + 15, what=f"epoch {epoch} with {actor.name}",
            )


async def attack(lab: Lab, actor: Machine) -> Observation:
    """With it, the victim ends the link."""
    since = await lab.positions()
    async with lab.running(actor, defect="replayed-rekey"):
        victim, event = await lab.first_seen(
            refused(Reason.STALE_EPOCH.name, actor.node_id), since, within=3 * lab.actor_rekey + 15,
            what=Reason.STALE_EPOCH.name,
        )
    return observation(victim, event)


SCENE = Scene(
    name="replayed-rekey", about="offers the keys of a past rekey again", expected=Reason.STALE_EPOCH,
    control=control, attack=attack,
)
