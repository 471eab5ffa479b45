"""Nodes that rekey every second for a long time, while they call, stream, publish and append: nothing lost, nothing grows."""

import os
import random
import resource
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from overlay.app.local import LocalNode
from overlay.events import NodeEvent, PeerDown, TrustLost
from overlay.net.peer import Peer
from overlay.net.request import Request
from overlay.net.stream import Stream
from overlay.testing import mesh

NAMES = tuple(f"node{number}" for number in range(7))  # 21 links
WARM = 0.4  # of the time, after which memory must not grow any more
GROWTH = 40 * 1024 * 1024
BLOCK = 65_536  # bytes


async def echo(request: Request) -> bytes:
    return request.body[::-1]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def call_all(node: LocalNode, count: list[int]) -> None:
    """Call everyone in turn, with bodies of all sizes, and compare."""
    chance = random.Random(node.name)
    while True:
        for peer in node.peers:
            body = chance.randbytes(chance.choice((0, 64, 5_000, 200_000)))
            assert await peer.call("echo", body) == body[::-1]
            count[0] += 1
        await trio.sleep(0.05)


class Content:
    """The same bytes at both ends of a stream, made as they are needed."""

    def __init__(self, seed: bytes) -> None:
        self._chance = random.Random(seed)
        self._rest = b""

    def take(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._rest += self._chance.randbytes(BLOCK)
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


async def swallow(stream: Stream) -> None:
    """Compare every byte that comes, for as long as the stream lives."""
    content = Content(stream.body)
    async for data in stream:
        assert bytes(data) == content.take(len(data)), "a byte that was not sent"


async def pour(node: LocalNode, peer: Peer, counts: Counter[str], *, signed: bool) -> None:
    """One stream that is open all the time, in pieces of all sizes."""
    name = f"{node.name} to {peer.name}"
    content, chance = Content(name.encode()), random.Random(name)
    async with peer.open_stream("swallow", name.encode(), signed=signed) as stream:
        while True:
            data = content.take(chance.choice((1, 700, 16_384, 150_000)))
            await stream.send_all(data)
            counts[name] += len(data)
            await trio.sleep(chance.random() * 0.2)


def watch(node: LocalNode, ended: list[str]) -> None:
    """Say why a link ended, should one."""

    def take(event: NodeEvent) -> None:
        if isinstance(event, PeerDown | TrustLost):
            ended.append(f"{node.name}: {event.fields()}")

    node.engine.observe(take)


async def speak(node: LocalNode, published: dict[str, int]) -> None:
    """Publish and append, slowly."""
    while True:
        await node.publish("soak", f"{node.name} {published[node.name]}".encode())
        published[node.name] += 1
        await node.audit.append("soak", published[node.name])
        await trio.sleep(0.5)


async def listen(node: LocalNode, heard: dict[str, int]) -> None:
    """Every author's publications come once and in order."""
    async with node.subscribe("soak") as items:
        async for item in items:
            name, number = item.body.decode().split()
            assert int(number) == heard[name], f"{name} said {number} where {heard[name]} was due"
            heard[name] += 1


@asynccontextmanager
async def saying(ended: list[str]) -> AsyncIterator[None]:
    """Whatever failed inside failed because of a link that ended, if one did."""
    try:
        yield
    finally:
        assert not ended, ended


async def soak(seconds: float) -> None:
    calls, published, poured = [0], dict.fromkeys(NAMES, 0), Counter[str]()
    heard = {name: dict.fromkeys(NAMES, 0) for name in NAMES}
    services = {name: {"echo": echo} for name in NAMES}
    streams = {name: {"swallow": swallow} for name in NAMES}
    async with mesh(*NAMES, services=services, streams=streams, rekey_after=1.0, attest_every=2.0) as nodes:
        ended: list[str] = []
        for node in nodes:
            watch(node, ended)
        async with saying(ended), trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(call_all, node, calls)
                nursery.start_soon(speak, node, published)
                nursery.start_soon(listen, node, heard[node.name])
                for number, peer in enumerate(node.peers):
                    nursery.start_soon(partial(pour, node, peer, poured, signed=bool(number % 2)))
            await trio.sleep(WARM * seconds)
            warm = resident()
            await trio.sleep((1 - WARM) * seconds)
            grown = resident() - warm
            nursery.cancel_scope.cancel()
        links = [link for node in nodes for link in (await node.status()).links]
        assert len(links) == len(NAMES) * (len(NAMES) - 1)
        assert min(link.epoch for link in links) >= seconds / 4  # every link lived, and rekeyed all the time
        assert min(link.rounds for link in links) >= seconds / 8
        assert calls[0] > seconds
        assert len(poured) == len(NAMES) * (len(NAMES) - 1)
        assert min(poured.values()) > 10_000 * seconds  # no stream stood still, and none was broken off
        assert min(min(one.values()) for one in heard.values()) >= min(published.values()) - 5
        assert grown < GROWTH, f"{grown / 2**20:.0f} MiB more after the warm-up"


@pytest.mark.slow
async def test_a_minute_of_everything_at_once() -> None:
    await soak(60.0)


@pytest.mark.soak
async def test_everything_at_once_for_long() -> None:
    await soak(float(os.environ.get("OVERLAY_SOAK_SECONDS", "600")))
