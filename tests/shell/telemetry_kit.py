"""Nodes that send telemetry and one that collects it, and a page read as any program would."""

import contextlib
import http.client
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit

import pytest
import trio

from overlay.app.local import LocalNode
from overlay.app.telemetry.rows import Report
from overlay.app.telemetry.sending import Sending
from overlay.core.telemetry.records import Kind, Sample, Series
from overlay.net.system import wall_clock
from overlay.testing import mesh

HUB = ("node:hub",)
needs_prometheus_client = pytest.mark.skipif(
    find_spec("prometheus_client") is None, reason="this host lacks prometheus_client: pip install prometheus-client"
)
needs_psutil = pytest.mark.skipif(find_spec("psutil") is None, reason="this host lacks psutil: pip install psutil")
POLL = 0.02


def sample(name: str, value: float, kind: Kind = Kind.GAUGE, **labels: str) -> Sample:
    return Sample(Series.of(name, labels), kind, value, wall_clock().timestamp())


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], within: float = 15.0) -> None:
    """Fails the test if it does not come true."""
    with trio.fail_after(within):
        while True:
            found = condition()
            if found is True or (not isinstance(found, bool) and await found):
                return
            await trio.sleep(POLL)


def values(report: Report, name: str) -> dict[str, float]:
    """By author, of a series without labels of its own."""
    return {row.author: row.value for row in report.rows if row.series.name == name}


async def counted(hub: LocalNode, name: str, author: str, value: float) -> None:
    """As soon as that is what the hub counts."""

    async def is_there() -> bool:
        return values(await hub.telemetry.report(), name).get(author) == value

    await until(is_there)


async def refused(hub: LocalNode, sender: str, reason: str) -> None:
    """As soon as something of that sender is in quarantine for that reason."""

    async def is_there() -> bool:
        return (sender, reason) in {one[:2] for one in (await hub.telemetry.report()).refused}

    await until(is_there)


def get(url: str, path: str | None = None) -> tuple[int, str]:
    """Status and body, by Python's own client; blocks."""
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=10)) as connection:
        connection.request("GET", parts.path if path is None else path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@dataclass(frozen=True)
class World:
    hub: LocalNode
    alice: LocalNode
    mallory: LocalNode
    page: str
    stream: Sending  # alice's


@asynccontextmanager
async def world(*, page: bool = False) -> AsyncIterator[World]:
    """hub collects, alice sends to it what `stream.record` is given; mallory looks on."""
    async with (
        mesh("hub", "alice", "mallory") as (hub, alice, mallory),
        hub.telemetry.collect(listen="0" if page else None) as address,
        alice.telemetry.send("test", to=HUB, host=False, node=False) as stream,
    ):
        yield World(hub, alice, mallory, address, stream)
