"""Rows about the audit log: appending and verifying, against SQLite and libsodium alone."""

import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import nacl.bindings
import trio

from audit.verifier import verify_store
from bench.row import Row, row
from overlay.app.local import LocalNode
from overlay.core.certificates import Root
from overlay.errors import HostLacks
from overlay.store.state import AUDIT_STORE
from overlay.testing import mesh

APPENDS = 1920
WRITERS = 64
ALONE = 300  # appends, one after another
TO_VERIFY = 20_000
ENTRY_SIZE = 300  # bytes of an application entry with a small value, signature included


@asynccontextmanager
async def _one() -> AsyncIterator[LocalNode]:
    async with mesh("alice") as (alice,):
        yield alice


async def _append_all(node: LocalNode, count: int = APPENDS) -> float:
    """So many per second, each durable before its writer goes on."""

    async def write() -> None:
        for _ in range(count // WRITERS):
            await node.audit.append("bench", {"door": "7b"})

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(WRITERS):
            nursery.start_soon(write)
    return count / (time.perf_counter() - began)


async def appends(runs: int) -> list[Row]:
    """64 writers, against rows of the same size into bare SQLite, one durable commit for 64."""
    ours, bare = [], []
    async with _one() as node:
        for _ in range(runs):
            ours.append(await _append_all(node))
            bare.append(await trio.to_thread.run_sync(_bare_sqlite))
    return [row("durable_appends_per_s", "1/s", ours, bare)]


async def alone(runs: int) -> list[Row]:
    """One writer: the median of its appends, in turns with commits of the same row into bare SQLite."""
    ours, bare = [], []
    async with _one() as node:
        with _bare_store(node.folder) as commit:
            for _ in range(runs):
                mine, theirs = [], []
                for _ in range(ALONE):
                    mine.append(await _timed_append(node))
                    theirs.append(await trio.to_thread.run_sync(commit))
                ours.append(statistics.median(mine) * 1000)
                bare.append(statistics.median(theirs) * 1000)
    return [row("append_alone_vs_sqlite", "ms", ours, bare)]


async def _timed_append(node: LocalNode) -> float:
    began = time.perf_counter()
    await node.audit.append("bench", {"door": "7b"})
    return time.perf_counter() - began


@contextmanager
def _bare_store(folder: Path) -> Iterator[Callable[[], float]]:
    """A table on the same disk; what it gives commits one row and says how long that took."""
    connection = sqlite3.connect(folder / "bare.sqlite3", isolation_level=None, check_same_thread=False)
    _prepare(connection)
    numbers = iter(range(10**9))

    def commit() -> float:
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO entries VALUES (?, ?)", (next(numbers), bytes(ENTRY_SIZE)))
        connection.execute("COMMIT")
        return time.perf_counter() - began

    try:
        yield commit
    finally:
        connection.close()


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY, raw BLOB)")


def _bare_sqlite() -> float:
    with tempfile.TemporaryDirectory(prefix="overlay-bench-") as folder:
        connection = sqlite3.connect(Path(folder) / "bare.sqlite3", isolation_level=None)
        _prepare(connection)
        began = time.perf_counter()
        for start in range(0, APPENDS, WRITERS):
            connection.execute("BEGIN IMMEDIATE")
            rows = [(start + index, bytes(ENTRY_SIZE)) for index in range(WRITERS)]
            connection.executemany("INSERT INTO entries VALUES (?, ?)", rows)
            connection.execute("COMMIT")
        rate = APPENDS / (time.perf_counter() - began)
        connection.close()
        return rate


async def verify(runs: int) -> list[Row]:
    """Every entry of a stored log from the mesh's root up, against its signatures alone, on one core, in processor time.

    The same on two cores against one, in time; and one bad entry that was planted has to be named.
    """
    cores = sorted(os.sched_getaffinity(0))
    one, bare, two, single = [], [], [], []
    async with _one() as node:
        await _append_all(node, TO_VERIFY)
        path, root = node.folder / AUDIT_STORE, node.engine.parts.trust().root
        for _ in range(runs):
            with _on(cores[:1]):
                alone, used = _verified(path, root, workers=0)
                one.append(used)
                bare.append(_bare_libsodium(TO_VERIFY))
            if len(cores) > 1:
                with _on(cores[:2]):
                    two.append(_verified(path, root, workers=2)[0])
                    single.append(alone)
        _plant(path, root)
    rows = [row("verify_vs_libsodium", "1/s", one, bare)]
    return rows if not two else [*rows, row("verify_two_cores", "1/s", two, single)]


@contextmanager
def _on(cores: list[int]) -> Iterator[None]:
    """This process on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _verified(path: Path, root: Root, *, workers: int) -> tuple[float, float]:
    """So many entries per second, and per second of this process's processor time."""
    began, used = time.perf_counter(), time.process_time()
    report = verify_store(path, root, workers=workers)
    took, used = time.perf_counter() - began, time.process_time() - used
    report.demand()
    size = sum(log.size for log in report.logs)
    return size / took, size / used


def _plant(path: Path, root: Root) -> None:
    """Change one byte of one entry in a copy: verifying has to name it, alone and with workers."""
    with tempfile.TemporaryDirectory(prefix="overlay-bench-") as folder:
        copy = Path(folder) / "planted.sqlite3"
        source, target = sqlite3.connect(path), sqlite3.connect(copy)
        source.backup(target)
        source.close()
        seq = TO_VERIFY // 2
        ((raw,),) = target.execute("SELECT raw FROM entries WHERE seq = ?", (seq,)).fetchall()
        target.execute("UPDATE entries SET raw = ? WHERE seq = ?", (raw[:-1] + bytes([raw[-1] ^ 1]), seq))
        target.commit()
        target.close()
        for workers in (0, 2):
            (log,) = verify_store(copy, root, workers=workers).logs
            if log.fault is None or log.fault.seq != seq:
                raise HostLacks(f"the entry that was changed is number {seq}, and verifying says: {log.line}")


def _bare_libsodium(count: int) -> float:
    public, secret = nacl.bindings.crypto_sign_seed_keypair(bytes(32))
    signed = nacl.bindings.crypto_sign(bytes(ENTRY_SIZE), secret)
    began = time.process_time()
    for _ in range(count):
        nacl.bindings.crypto_sign_open(signed, public)
    return count / (time.process_time() - began)
