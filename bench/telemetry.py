"""Rows about telemetry: a collector that verifies, against one that reads Prometheus' text format and believes it."""

import time
from collections.abc import Iterator
from datetime import datetime

from bench.row import Row, row
from overlay.core.identity import LocalIdentity
from overlay.core.keys import MeshId
from overlay.core.mesh.load import Rate
from overlay.core.mesh.topics import Author
from overlay.core.telemetry.collector import TelemetryCollector
from overlay.core.telemetry.records import Kind, Sample, Series
from overlay.core.telemetry.sender import Cut, TelemetrySender
from overlay.errors import HostLacks
from overlay.net.system import wall_clock
from overlay.testing import mesh

BATCHES = 500
SERIES = 100  # and so samples of a batch
NO_LIMIT = Rate(per_second=1e9, burst=10**9)


class _Known:
    """One author, at level 1."""

    def __init__(self, own: LocalIdentity) -> None:
        life = own.verified.endorsement
        self._kid = own.kid
        self._author = Author(
            node_id=own.node_id, name="alice", message_public=own.message.public_key, not_before=life.not_before,
            not_after=life.not_after, logs=(),
        )  # fmt: skip

    def author_of(self, kid: bytes) -> Author | None:
        return self._author if kid == self._kid else None

    def level(self, author: Author, at: datetime) -> int:
        return 1


async def collecting(runs: int) -> list[Row]:
    """Samples a second on one core, in batches of 100: signature, chain, root, sums. Export is not counted, nor links."""
    async with mesh("alice") as (alice,):
        own, mesh_id = alice.engine.identity, alice.mesh_id
        ours, theirs = [], []
        for _ in range(runs):
            batches = list(_batches(own, mesh_id))
            ours.append(_verified(batches, own, mesh_id))
            theirs.append(_believed())
    return [row("telemetry_samples_per_s", "1/s", ours, theirs)]


def _batches(own: LocalIdentity, mesh_id: MeshId) -> Iterator[bytes]:
    sender = TelemetrySender("bench", bytes(16), own=own, mesh_id=mesh_id, now=0.0)
    series = [Series.of("host_cpu_seconds_total", {"cpu": str(number), "mode": "user"}) for number in range(SERIES)]
    for number in range(BATCHES):
        at = time.time()
        sender.record([Sample(one, Kind.COUNTER, number * 1.5, at) for one in series], 0.0)
        yield from (cut.raw for cut in sender.tick(2.0, at) if isinstance(cut, Cut))


def _verified(batches: list[bytes], own: LocalIdentity, mesh_id: MeshId) -> float:
    collector, at = TelemetryCollector(mesh_id, _Known(own), rate=NO_LIMIT), wall_clock()
    began = time.perf_counter()
    for raw in batches:
        collector.receive(raw, own.node_id, 0.0, at)
    took = time.perf_counter() - began
    counted = sum(one.count for _, one in collector.aggregates)
    assert counted == BATCHES * SERIES, counted
    return counted / took


def _believed() -> float:
    """The same samples as pages of text, parsed and summed by series."""
    try:
        from prometheus_client.parser import text_string_to_metric_families as parse
    except ImportError:
        raise HostLacks("prometheus_client is not installed", hint="`./run bench` installs it") from None
    pages = ["# TYPE host_cpu_seconds_total counter\n" + "".join(
        f'host_cpu_seconds_total{{cpu="{number}",mode="user"}} {page * 1.5}\n' for number in range(SERIES)
    ) for page in range(BATCHES // 10)]  # fmt: skip
    sums: dict[tuple[str, ...], float] = {}
    began = time.perf_counter()
    for page in pages:
        for family in parse(page):
            for sample in family.samples:
                key = (sample.name, *sample.labels.values())
                sums[key] = sums.get(key, 0.0) + sample.value
    return len(pages) * SERIES / (time.perf_counter() - began)
