"""Rows about long logs: a start and a proof with a million entries, catching up with many, news for twenty nodes."""

import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

import overlay
from audit.author import LogSigner, OwnLog
from audit.bodies import application
from audit.chain import Append
from audit.entry import Entry
from audit.member import root_of, signer_in
from audit.opening import open_store
from audit.store import AuditStore
from bench.row import Row, row
from overlay.app.enrol import admit, found_mesh, install, make_request
from overlay.core.certificates import Root
from overlay.core.merkle import check_inclusion
from overlay.core.policy import Policy
from overlay.net.system import wall_clock
from overlay.registry import EntryType
from overlay.store.state import AUDIT_STORE, StateFolder
from overlay.testing import mesh

MILLION = 1_000_000
TO_CATCH_UP = 100_000
AT_ONCE = 4096  # entries to a commit while a log is filled
CROWD = 20
NEWS = 100  # entries whose way to all is timed
WARM_UP = 5  # entries before that
QUIET = 2.0  # seconds before each of them
WITHIN = 300.0  # seconds, to give up


def _fill(folder: Path, count: int) -> None:
    """Let the member of a folder have written so many entries."""
    with StateFolder.open(folder, exclusive=True) as state:
        root, signer = root_of(state), signer_in(state)
        assert signer is not None
        opened = open_store(state.file(AUDIT_STORE), root, signer, wall_clock)
        try:
            _write(opened.store, opened.own, count)
        finally:
            opened.store.close()


def _write(store: AuditStore, own: OwnLog, count: int) -> None:
    body = application("bench", {"door": "7b"})
    while own.state.size < count:
        entries: list[Entry] = []
        while own.state.size < count and len(entries) < AT_ONCE:
            own, entry = own.write(EntryType.APPLICATION, body, wall_clock())
            entries.append(entry)
        store.append_many([Append(state=own.state, entries=tuple(entries), ours=True)])


@asynccontextmanager
async def _members(*names: str) -> AsyncIterator[list[Path]]:
    """State folders of one mesh, of which the first node has run once."""
    with tempfile.TemporaryDirectory(prefix="overlay-bench-") as path:
        folders = await trio.to_thread.run_sync(_enrol, Path(path), names)
        async with overlay.open_node(folders[0], config=_config()):
            pass
        yield folders


def _enrol(path: Path, names: tuple[str, ...]) -> list[Path]:
    folders = [path / name for name in names]
    with StateFolder.create(folders[0]) as founder:
        found_mesh(founder, names[0], "bench", Policy.default(), None)
    for name, folder in zip(names[1:], folders[1:], strict=True):
        with StateFolder.create(folder) as member:
            install(member, admit(folders[0], make_request(member, None), name, ()), None)
    return folders


def _config(*seeds: int) -> overlay.Config:
    return overlay.Config(
        listen=("127.0.0.1", 0), mdns=False, evidence="software", seeds=tuple(f"127.0.0.1:{port}" for port in seeds)
    )


async def million(runs: int) -> list[Row]:
    """Opening a log of a million entries for writing, and a proof of one of them, its tree and verification included."""
    starts, proofs = [], []
    async with _members("alice") as (folder,):
        await trio.to_thread.run_sync(_fill, folder, MILLION)
        with StateFolder.open(folder, exclusive=False) as state:
            root, signer = root_of(state), signer_in(state)
        assert signer is not None
        for number in range(runs):
            starts.append(await trio.to_thread.run_sync(_start, folder / AUDIT_STORE, root, signer) * 1000)
            proofs.append(await trio.to_thread.run_sync(_prove, folder / AUDIT_STORE, number * 777 % MILLION) * 1000)
    return [row("start_million_ms", "ms", starts), row("inclusion_proof_ms", "ms", proofs)]


def _start(path: Path, root: Root, signer: LogSigner) -> float:
    began = time.perf_counter()
    open_store(path, root, signer, wall_clock).store.close()
    return time.perf_counter() - began


def _prove(path: Path, seq: int) -> float:
    store = AuditStore.open_readonly(path)
    (log,) = store.logs()
    (leaf,) = store.hashes(log.log_id, seq, seq + 1)
    began = time.perf_counter()
    with store.tree(log.log_id) as tree:
        proof = tree.inclusion(seq, log.size)
    check_inclusion(leaf, seq, log.size, proof, log.root)
    took = time.perf_counter() - began
    store.close()
    return took


# --- catching up ------------------------------------------------------------------------------------------------------

FOLLOWER = """
import sys, time, trio, overlay

async def main():
    config = overlay.Config(listen=("127.0.0.1", 0), mdns=False, evidence="software", seeds=(sys.argv[2],))
    async with overlay.open_node(sys.argv[1], config=config) as node:
        await node.wait_members(2)
        began = time.perf_counter()
        while max(chain.size for chain in node.statistics().chains) < int(sys.argv[3]):
            await trio.sleep(0.01)
        peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
        print(time.perf_counter() - began, int(peak) / 1024, time.process_time(), flush=True)

trio.run(main)
"""


async def catch_up(runs: int) -> list[Row]:
    """A node that was never there gets a hundred thousand entries from another process.

    In time; its memory at the highest; and its processor time, with its start.
    """
    took, peak, used = [], [], []
    for _ in range(min(runs, 2)):
        async with _members("alice", "bob") as (first, second):
            await trio.to_thread.run_sync(_fill, first, TO_CATCH_UP)
            async with overlay.open_node(first, config=_config()) as node:
                command = [sys.executable, "-c", FOLLOWER, str(second), f"127.0.0.1:{node.port}", str(TO_CATCH_UP)]
                with trio.fail_after(WITHIN):
                    done = await trio.run_process(command, capture_stdout=True)
                for values, value in zip((took, peak, used), map(float, done.stdout.split()), strict=True):
                    values.append(value)
    return [row("catch_up_s", "s", took), row("catch_up_mb", "MB", peak), row("catch_up_cpu_s", "s", used)]


# --- news -------------------------------------------------------------------------------------------------------------


async def news(runs: int) -> list[Row]:
    """From an append to the last of twenty nodes that holds the entry, in one process; the 99th of a hundred.

    And the processor time that one node has with one entry: on a LAN each has a machine of its own.
    """
    found, used = [], []
    for _ in range(min(runs, 2)):
        async with mesh(*(f"node{number}" for number in range(CROWD))) as (author, *others):
            for _ in range(WARM_UP):  # a mesh that has just come together has much else to do
                await trio.sleep(QUIET)
                await _reach(author, others)
            began = time.process_time()
            times = [await _reach(author, others) for _ in range(NEWS)]
            used.append((time.process_time() - began) / NEWS / CROWD * 1000)
            found.append(sorted(times)[NEWS * 99 // 100 - 1] * 1000)
    return [row("entry_to_20_nodes_p99_ms", "ms", found), row("entry_cpu_ms", "ms", used)]


async def _reach(author: Any, others: list[Any]) -> float:
    began = time.perf_counter()
    entry = await author.audit.append("bench", {"door": "7b"})
    async with trio.open_nursery() as nursery:
        for node in others:
            nursery.start_soon(partial(_holds, node, entry))
    return time.perf_counter() - began


async def _holds(node: Any, entry: overlay.EntryReceipt) -> None:
    while True:
        if any(chain.log == entry.log_id.hex() and chain.size > entry.seq for chain in node.audit.statistics()):
            return
        await trio.sleep(0.001)
