"""edited-metric: a member that others' metrics pass through changes a number, and hands the batch to the collector."""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from overlay.app.client import RemoteNode, connect_local
from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Event, Machine, peer_up, wait_until
from overlay.app.lab.scene import ADMITTED_WITHIN, REFUSED_WITHIN, Observation, Scene, observation
from overlay.app.telemetry.names import BATCH
from overlay.core.telemetry.batch import BATCH_MAX
from overlay.core.wire import decode, encode
from overlay.errors import CheckFailed
from overlay.registry import Reason

SERIES = "overlay_level"  # what the author measures of itself
LIE = 5.0  # the best level that there is
RECORDS = 2  # field of a batch


@dataclass(frozen=True, slots=True)
class _Feed:
    """One batch on its way: who collects, who made it, and the member through which it goes."""

    graph: RemoteNode
    author: Machine
    feeder: RemoteNode
    batch: bytes = field(repr=False)

    async def hand_over(self, collector: Machine, batch: bytes) -> None:
        """What the feeder gives to the collector."""
        await (await self.feeder.wait_peer(collector.name)).call(BATCH, batch)

    async def drawn(self) -> list[float]:
        """What the graph shows of the author."""
        rows = (await self.graph.telemetry.report()).rows
        return [row.value for row in rows if row.node == self.author.node_id and row.series.name == SERIES]


@asynccontextmanager
async def _feeding(lab: Lab, actor: Machine, name: str) -> AsyncIterator[_Feed]:
    """The first victim collects; the second one's metrics go to the actor, which keeps the first batch."""
    collector, author = lab.victims[:2]
    since, path = await lab.positions(), actor.host.folder / name
    async with lab.running(actor, defect="feeder", argument=str(path), seeds=(collector, author)):
        for victim in (collector, author):
            await victim.wait(
                peer_up(actor.node_id), within=ADMITTED_WITHIN, since=since[victim.name], what=f"{actor.name} admitted"
            )
        async with (
            connect_local(collector.state) as graph, graph.telemetry.collect(),
            connect_local(author.state) as source, source.telemetry.send(to=[f"node:{actor.name}"], host=False),
            connect_local(actor.state) as feeder,
        ):  # fmt: skip
            await wait_until(trio.Path(path).exists, within=REFUSED_WITHIN, what=f"{actor.name} got metrics")
            yield _Feed(graph, author, feeder, await trio.Path(path).read_bytes())


async def control(lab: Lab, actor: Machine) -> None:
    """Handed on as it is, the batch counts for its author, through whomever it came."""
    async with _feeding(lab, actor, "true-batch") as feed:
        await feed.hand_over(lab.victims[0], feed.batch)
        drawn = await feed.drawn()
    if len(drawn) != 1 or drawn[0] == LIE:
        raise CheckFailed(f"a metric of {feed.author.name} was to be in the graph, and there is {drawn or 'nothing'}")
    lab.say(f"{lab.victims[0].name} draws {SERIES} {drawn[0]:g} of {feed.author.name}, which {actor.name} has handed on")


async def attack(lab: Lab, actor: Machine) -> Observation:
    """With one number changed it is in quarantine and not in the graph; the true one still counts."""
    collector, since = lab.victims[0], await lab.positions()
    async with _feeding(lab, actor, "edited-batch") as feed:
        await feed.hand_over(collector, edited(feed.batch))

        def is_refusal(event: Event) -> bool:
            return bool(event["event"] == "telemetry-refused" and event["node"] == actor.node_id)

        event = await collector.wait(is_refusal, within=REFUSED_WITHIN, since=since[collector.name], what="the edited batch")
        if drawn := await feed.drawn():
            raise CheckFailed(f"the graph shows {drawn} of {feed.author.name}, out of an edited batch")
        kept = (await feed.graph.telemetry.report(kept=True)).kept
        if [(one.sender, one.author, one.reason) for one in kept] != [(actor.name, feed.author.name, event["reason"])]:
            raise CheckFailed(f"in quarantine is {kept or 'nothing'}")
        await feed.hand_over(collector, feed.batch)
        if LIE in await feed.drawn() or not await feed.drawn():
            raise CheckFailed("the true batch was to count")
    lab.say(f"{collector.name} keeps it in quarantine: {kept[0].detail}")
    return observation(collector, event)


def edited(batch: bytes) -> bytes:
    """The same signed head over records of which one says another number."""
    fields = decode(batch, limit=BATCH_MAX)
    records = [struct.pack(">d", LIE) + one[8:] if SERIES.encode() in one else one for one in fields[RECORDS]]
    if records == fields[RECORDS]:
        raise CheckFailed(f"there is no {SERIES} in the batch")
    return encode({**fields, RECORDS: records})


SCENE = Scene(
    name="edited-metric", about="changes a number in the metrics of another", expected=Reason.TELEMETRY_ROOT, control=control,
    attack=attack,
)
