"""pcr-drift: something that the policy does not list is measured on an admitted machine."""

import trio

from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine, refused
from overlay.app.lab.scene import ADMITTED_WITHIN, Observation, Scene, admitted, observation
from overlay.app.lab.staging import drift
from overlay.registry import Reason

AFTER_ROUND = 15.0  # seconds that a peer may need beyond one round


async def control(lab: Lab, actor: Machine) -> None:
    """Without drift the actor proves itself again in the next round, and stays."""
    since = await lab.positions()
    async with lab.running(actor, seeds=lab.victims):
        await admitted(lab, actor, since)
        await lab.first_seen(
            lambda event: event["event"] == "peer-attested" and event["node"] == actor.node_id, since,
            within=lab.actor_round + AFTER_ROUND, what=f"{actor.name} attested again",
        )


async def attack(lab: Lab, actor: Machine) -> Observation:
    """Admitted by everyone; then its PCR changes: every peer must have dropped it within one round and 15 s."""
    since = await lab.positions()
    async with lab.running(actor, seeds=lab.victims):
        for victim in lab.victims:
            await victim.wait(
                lambda event: event["event"] == "peer-up" and event["node"] == actor.node_id, within=ADMITTED_WITHIN,
                since=since[victim.name], what=f"{actor.name} admitted",
            )
        await trio.to_thread.run_sync(drift, actor.host)
        deadline = trio.current_time() + lab.actor_round + AFTER_ROUND
        seen = [
            (
                victim,
                await victim.wait(
                    refused(Reason.PCR_MISMATCH.name, actor.node_id), within=max(0.1, deadline - trio.current_time()),
                    since=since[victim.name], what=Reason.PCR_MISMATCH.name,
                ),
            )
            for victim in lab.victims
        ]
    return observation(*seen[0])


SCENE = Scene(
    name="pcr-drift", about="is admitted, and then something else runs on it", expected=Reason.PCR_MISMATCH,
    control=control, attack=attack, needs_tpm=True,
)
