"""Rows about links: how long a call, a dial and a rekey take, and how many publications a link carries."""

import hashlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio

import overlay
from bench import tls
from bench.ends import Other, other_process, two_ends
from bench.peer import PATTERN, TOPIC
from bench.row import Row, row
from overlay.app.compose import Assembly
from overlay.core.mesh.found import AnnouncementFacts, Candidate
from overlay.core.session import Session
from overlay.core.session_events import Event, Rekeyed
from overlay.core.session_states import State
from overlay.events import PeerUp
from overlay.net.system import SystemChance

CALLS = 500
WARM_UP = 100
MESSAGES = 50_000
MESSAGE_SIZE = 100
DIALS = 2  # in one run
WITHIN = 30.0  # seconds, for whatever is waited for


async def call_rtt(runs: int) -> list[Row]:
    """64 bytes there and back, both messages signed and verified."""
    medians, tails = [], []
    async with two_ends() as (_, peer, _):
        await _call_many(peer, WARM_UP)
        for _ in range(runs):
            times = await _call_many(peer, CALLS)
            medians.append(statistics.median(times))
            tails.append(statistics.quantiles(times, n=100)[98])
        await _until_rekeyed(peer)
    return [row("call_rtt_us", "us", medians), row("call_rtt_p99_us", "us", tails)]


async def _call_many(peer: overlay.Peer, count: int) -> list[float]:
    """Microseconds of each."""
    bodies = [number.to_bytes(8, "big") * 8 for number in range(count)]
    times, answers = [], []
    for body in bodies:
        began = time.perf_counter()
        answers.append(await peer.call("echo", body))
        times.append((time.perf_counter() - began) * 1e6)
    assert answers == bodies
    return times


async def _until_rekeyed(peer: overlay.Peer) -> None:
    """A quick machine is done before the second rekey."""
    ends = trio.current_time() + 2.5
    while trio.current_time() < ends:
        await _call_many(peer, WARM_UP)


async def messages(runs: int) -> list[Row]:
    """Transient publications of 100 bytes, each signed and verified alone, from one process to a subscriber in the other."""
    rates = []
    async with two_ends() as (node, peer, _):
        await node.publish(TOPIC, b"kept")
        await peer.call("ready")
        for _ in range(runs):
            rates.append(await _carry(node, peer, MESSAGES))
        await _until_rekeyed(peer)
    return [row("messages_per_s", "1/s", rates)]


async def _carry(node: overlay.NodeApi, peer: overlay.Peer, count: int) -> float:
    """So many per second, from the first publication until the other has handed the last to its subscriber."""
    bodies = [number.to_bytes(4, "big") * (MESSAGE_SIZE // 4) for number in range(count)]
    began = time.perf_counter()
    for body in bodies:
        await node.publish(TOPIC, body, transient=True)
    heard = await peer.call("heard", b"%d" % count, timeout=WITHIN)
    rate = count / (time.perf_counter() - began)
    assert heard == hashlib.sha256(b"".join(bodies)).digest()
    return rate


# --- dialling -----------------------------------------------------------------------------------------------------------


class Prompt(SystemChance):
    """No jitter before the dial, which is there so that many do not dial at once."""

    def fraction(self) -> float:
        return 0.0


@dataclass
class Dial:
    """A finder that knows one address, and when the link to it was open."""

    port: int
    began: float = 0.0
    ended: float = 0.0
    opened: trio.Event = field(default_factory=trio.Event)

    async def run(
        self, announcement: AnnouncementFacts, found: Callable[[Candidate], None], *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self.began = time.perf_counter()
        found(Candidate(addresses=(("127.0.0.1", self.port),), ours=True, source="bench"))
        await trio.sleep_forever()

    def alter(self, assembly: Assembly) -> Assembly:
        return replace(assembly, parts=replace(assembly.parts, finders=(self,), chance=Prompt()))

    def observe(self, event: overlay.NodeEvent) -> None:
        if isinstance(event, PeerUp):
            self.ended = time.perf_counter()
            self.opened.set()


async def dial(runs: int) -> list[Row]:
    """From the dial to a link that is open on both sides, against mutual TLS from the dial to both having verified the other.

    Nothing is subtracted: ours has ML-KEM in it, evidence of both sides, and 200 ms in which an attester gathers who else
    wants evidence, so that one quote serves all.
    """
    ours, theirs = [], []
    async with other_process() as other:
        secure = tls.context(other.certificates, "client")
        for _ in range(runs):
            for _ in range(DIALS):
                ours.append(await _dial(other))
                began = time.perf_counter()
                async with tls.connected(other.tls_port, secure):
                    theirs.append((time.perf_counter() - began) * 1e3)
    return [row("dial_vs_mtls", "ms", ours, theirs)]


async def _dial(other: Other) -> float:
    """Milliseconds."""
    one = Dial(other.port)
    async with overlay.open_node(
        other.folder, config=other.config(seeds=()), alter=one.alter, observers=[one.observe]
    ):
        with trio.fail_after(WITHIN):
            await one.opened.wait()
    return (one.ended - one.began) * 1e3


# --- calls under load ---------------------------------------------------------------------------------------------------

LOADED = 3.0  # seconds of calls in one run
SELDOM = 60.0  # seconds between rekeys: none in a run


async def rekey_p99(runs: int) -> list[Row]:
    """The 99th percentile of calls under bulk load, with fresh keys each second and without; both links are up all the time."""
    often, seldom = [], []
    async with two_ends() as (_, busy, _), two_ends(SELDOM) as (_, calm, _):
        for _ in range(runs):
            often.append(await _loaded_p99(busy))
            seldom.append(await _loaded_p99(calm))
    return [row("rekey_p99_ratio", "us", often, seldom)]


async def _loaded_p99(peer: overlay.Peer) -> float:
    times: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pour, peer)
        ends = trio.current_time() + LOADED
        while trio.current_time() < ends:
            times += await _call_many(peer, WARM_UP)
        nursery.cancel_scope.cancel()
    return statistics.quantiles(times, n=100)[98]


async def _pour(peer: overlay.Peer) -> None:
    """Bulk data without an end."""
    async with peer.open_stream("sink") as stream:
        while True:
            await stream.send_all(PATTERN)


# --- rekeying -----------------------------------------------------------------------------------------------------------


class TimedSession(Session):
    """Notes how long each rekey takes that this end drives: from the offer to the confirmation."""

    times: list[float]
    enough: trio.Event
    began = 0.0

    def tick(self, now: float) -> list[Event]:
        began, queued = time.perf_counter(), self.queued
        events = super().tick(now)
        if self.state is State.OPEN and self.queued > queued:
            self.began = began
        return events

    def receive(self, data: bytes, now: float) -> list[Event]:
        events = super().receive(data, now)
        if self.began and any(isinstance(event, Rekeyed) for event in events):
            self.times.append((time.perf_counter() - self.began) * 1e3)
            self.began = 0.0
        self.enough.set()
        return events


async def rekey(runs: int) -> list[Row]:
    """Fresh keys on an idle link, fresh X25519 and ML-KEM-768 on both sides: from the offer to the last confirmation."""
    TimedSession.times = []
    TimedSession.enough = trio.Event()

    def alter(assembly: Assembly) -> Assembly:
        return replace(assembly, session=TimedSession)

    async with other_process() as other, overlay.open_node(other.folder, config=other.config(), alter=alter):
        with trio.fail_after(WITHIN + 2 * runs):
            while len(TimedSession.times) < runs:
                await TimedSession.enough.wait()
                TimedSession.enough = trio.Event()
    return [row("rekey_ms", "ms", TimedSession.times)]
