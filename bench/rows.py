"""The rows: each is measured several times, and its median is what counts. Both ends run in one process on one core."""

import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import trio

from audit.verify import verify_store
from overlay.app.local import LocalNode
from overlay.core.keys import Ed25519Signer, verify_ed25519
from overlay.net.peer import Request
from overlay.store.state import AUDIT_STORE
from overlay.testing import mesh

CALLS = 200
MESSAGES = 1000
APPENDS = 640
WRITERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of output; `ratio` is value / against, None where there is nothing to compare with."""

    name: str
    value: float
    unit: str
    against: float | None = None
    ratio: float | None = None
    runs: int

    def fields(self) -> dict[str, object]:
        """Ready for JSON."""
        return asdict(self)


def row(name: str, unit: str, values: list[float], against: list[float] | None = None) -> Row:
    """The medians of the runs."""
    value = statistics.median(values)
    other = statistics.median(against) if against else None
    return Row(
        name=name, value=round(value, 1), unit=unit, against=None if other is None else round(other, 1),
        ratio=None if not other else round(value / other, 3), runs=len(values),
    )


async def echo(request: Request) -> bytes:
    """What the calls call."""
    return request.body


async def call_rtt(runs: int) -> list[Row]:
    """64 bytes there and back, both messages signed and verified."""
    medians, tails = [], []
    async with mesh("alice", "bob", services={"alice": {"echo": echo}}) as (_, bob):
        alice = await bob.wait_peer("alice")
        for _ in range(runs):
            times = []
            for _ in range(CALLS):
                began = time.perf_counter()
                assert await alice.call("echo", bytes(64)) == bytes(64)
                times.append((time.perf_counter() - began) * 1e6)
            medians.append(statistics.median(times))
            tails.append(statistics.quantiles(times, n=100)[98])
    return [row("call_rtt_us", "us", medians), row("call_rtt_p99_us", "us", tails)]


async def messages(runs: int) -> list[Row]:
    """Transient publications of 100 bytes from one node to a subscriber on another, each signed and verified by itself."""
    rates = []
    async with mesh("alice", "bob") as (alice, bob), bob.subscribe("bench") as items:
        await alice.publish("bench", b"the first, kept, so that bob knows alice's log")
        await anext(items)
        for _ in range(runs):
            began = time.perf_counter()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_publish, alice, MESSAGES)
                for _ in range(MESSAGES):
                    await anext(items)
            rates.append(MESSAGES / (time.perf_counter() - began))
    return [row("messages_per_s", "1/s", rates)]


async def _publish(node: LocalNode, count: int) -> None:
    for _ in range(count):
        await node.publish("bench", bytes(100), transient=True)


async def appends(runs: int) -> list[Row]:
    """Durable audit entries by 64 writers, against rows of the same size into bare SQLite, one commit for 64."""
    ours, bare = [], []
    async with mesh("alice") as (alice,):
        for _ in range(runs):
            began = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for _ in range(WRITERS):
                    nursery.start_soon(_append, alice, APPENDS // WRITERS)
            ours.append(APPENDS / (time.perf_counter() - began))
            bare.append(await trio.to_thread.run_sync(_bare_sqlite))
    return [row("durable_appends_per_s", "1/s", ours, bare)]


async def _append(node: LocalNode, count: int) -> None:
    for _ in range(count):
        await node.audit.append("bench", {"door": "7b"})


def _bare_sqlite() -> float:
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "bare.sqlite3", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY, raw BLOB)")
        began = time.perf_counter()
        for start in range(0, APPENDS, WRITERS):
            connection.execute("BEGIN")
            rows = [(start + index, bytes(250)) for index in range(WRITERS)]
            connection.executemany("INSERT INTO entries VALUES (?, ?)", rows)
            connection.execute("COMMIT")
        rate = APPENDS / (time.perf_counter() - began)
        connection.close()
        return rate


async def verify(runs: int) -> list[Row]:
    """Checking a stored log, entry by entry, against nothing but its signatures."""
    ours, bare = [], []
    signer = Ed25519Signer(bytes(range(32)))
    signature = signer.sign(bytes(250))
    async with mesh("alice") as (alice,):
        async with trio.open_nursery() as nursery:
            for _ in range(WRITERS):
                nursery.start_soon(_append, alice, 16)
        path = alice.folder / AUDIT_STORE
        root = alice.engine.parts.trust().root
        for _ in range(runs):
            began = time.perf_counter()
            report = verify_store(path, root)
            report.demand()
            size = sum(log.size for log in report.logs)
            ours.append(size / (time.perf_counter() - began))
            began = time.perf_counter()
            for _ in range(size):
                verify_ed25519(signer.public_key, signature, bytes(250))
            bare.append(size / (time.perf_counter() - began))
    return [row("verify_vs_libsodium", "1/s", ours, bare)]


Measure = Callable[[int], Awaitable[list[Row]]]
ROWS: dict[str, Measure] = {"call_rtt": call_rtt, "messages": messages, "appends": appends, "verify": verify}
