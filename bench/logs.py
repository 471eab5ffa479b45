"""Rows about the audit log: appending and verifying, against SQLite and libsodium alone."""

import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nacl.bindings
import trio

from audit.verifier import verify_store
from bench.row import Row, row
from overlay.app.local import LocalNode
from overlay.store.state import AUDIT_STORE
from overlay.testing import mesh

APPENDS = 1920
WRITERS = 64
ENTRY_SIZE = 300  # bytes of an application entry with a small value, signature included


@asynccontextmanager
async def _one() -> AsyncIterator[LocalNode]:
    async with mesh("alice") as (alice,):
        yield alice


async def _append_all(node: LocalNode) -> float:
    """So many per second, each durable before its writer goes on."""

    async def write() -> None:
        for _ in range(APPENDS // WRITERS):
            await node.audit.append("bench", {"door": "7b"})

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(WRITERS):
            nursery.start_soon(write)
    return APPENDS / (time.perf_counter() - began)


async def appends(runs: int) -> list[Row]:
    """64 writers, against rows of the same size into bare SQLite, one durable commit for 64."""
    ours, bare = [], []
    async with _one() as node:
        for _ in range(runs):
            ours.append(await _append_all(node))
            bare.append(await trio.to_thread.run_sync(_bare_sqlite))
    return [row("durable_appends_per_s", "1/s", ours, bare)]


def _bare_sqlite() -> float:
    with tempfile.TemporaryDirectory(prefix="overlay-bench-") as folder:
        connection = sqlite3.connect(Path(folder) / "bare.sqlite3", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY, raw BLOB)")
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
    """Every entry of a stored log from the mesh's root up, against its signatures alone."""
    ours, bare = [], []
    async with _one() as node:
        await _append_all(node)
        path, root = node.folder / AUDIT_STORE, node.engine.parts.trust().root
        for _ in range(runs):
            began = time.perf_counter()
            report = verify_store(path, root)
            took = time.perf_counter() - began
            report.demand()
            size = sum(log.size for log in report.logs)
            ours.append(size / took)
            bare.append(_bare_libsodium(size))
    return [row("verify_vs_libsodium", "1/s", ours, bare)]


def _bare_libsodium(count: int) -> float:
    public, secret = nacl.bindings.crypto_sign_seed_keypair(bytes(32))
    signed = nacl.bindings.crypto_sign(bytes(ENTRY_SIZE), secret)
    began = time.perf_counter()
    for _ in range(count):
        nacl.bindings.crypto_sign_open(signed, public)
    return count / (time.perf_counter() - began)
