"""forward-postgres: psql on one machine uses a PostgreSQL on another; a member that may not does not get to it."""

import trio

from overlay.app.client import connect_local
from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Event, Machine
from overlay.app.lab.postgres import lacking, program, running_postgres, words_for
from overlay.app.lab.scene import ADMITTED_WITHIN, REFUSED_WITHIN, Observation, Scene, admitted, observation
from overlay.errors import CheckFailed
from overlay.registry import Reason

SERVICE = "db"
QUESTION = "create table if not exists doors (name text); insert into doors values ('7b'); select name from doors limit 1"
ANSWER = "7b"


async def control(lab: Lab, actor: Machine) -> None:
    """Allowed by name, the actor asks the database of a victim, and gets its answer."""
    said = await _ask(lab, actor, allow=actor.name)
    if ANSWER not in said:
        raise CheckFailed(f"psql on {actor.name} was to say {ANSWER}, and said: {' / '.join(said) or 'nothing'}")
    lab.say(f"{actor.name}: psql reads {ANSWER} out of the database of {lab.victims[0].name}")


async def attack(lab: Lab, actor: Machine) -> Observation:
    """The same member, linked and attested, where the service is for another one only: nothing comes out of the database."""
    victim, since = lab.victims[0], await lab.positions()
    said = await _ask(lab, actor, allow=lab.victims[1].name)
    if ANSWER in said:
        raise CheckFailed(f"{actor.name} may not use {SERVICE}, and psql has got an answer")

    def is_refusal(event: Event) -> bool:
        of_us = event["event"] == "service-refused" and event["node"] == actor.node_id
        return bool(of_us and event["service"] == SERVICE)

    event = await victim.wait(is_refusal, within=REFUSED_WITHIN, since=since[victim.name], what=f"{actor.name} refused")
    return observation(victim, event)


async def _ask(lab: Lab, actor: Machine, *, allow: str) -> list[str]:
    """What psql on the actor's machine says, the service of the first victim being for the node of that name."""
    victim, since = lab.victims[0], await lab.positions()
    async with running_postgres(actor.host.folder) as socket, lab.running(actor):
        await admitted(lab, actor, since)
        await actor.wait(
            lambda event: event["event"] == "peer-up" and event["node"] == victim.node_id, within=ADMITTED_WITHIN,
            what=f"{victim.name} linked",
        )
        async with (
            connect_local(victim.state) as server,
            server.expose(SERVICE, f"unix:{socket}", allow=[f"node:{allow}"]),
            connect_local(actor.state) as client,
            client.forward(SERVICE, peer=victim.name) as address,
        ):
            return await _psql(actor, address)


async def _psql(actor: Machine, address: str) -> list[str]:
    """Lines of its output, in the actor's own network."""
    host, port = address.rsplit(":", 1)
    child = actor.host.spawn([program("psql"), *words_for(host, int(port)), "-c", QUESTION], name="psql")
    with trio.move_on_after(REFUSED_WITHIN):
        said = [line async for line in child.lines]
        await child.wait()
        return said
    await child.kill()
    raise CheckFailed(f"psql on {actor.name} hangs")


SCENE = Scene(
    name="forward-postgres", about="uses a database that is for another member", expected=Reason.NOT_ALLOWED, control=control,
    attack=attack, lacks=lacking,
)
