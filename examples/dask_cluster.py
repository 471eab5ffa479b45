"""A Dask cluster over the mesh, whose tasks are signed: `dask_cluster.py scheduler`, `worker carol`, `squares carol 10`.

`carol` is the scheduler's node. Each node needs its role: scheduler, worker, submit. The guide is docs/guide/dask.md.
"""

import asyncio
import functools
import sys
from collections.abc import Coroutine
from typing import Any

import trio
from dask_mesh import PREFIX, Ways, use_mesh
from dask_signed import Gate, close_side_doors, keep_handlers, run_signed, seal, set_gate
from distributed import Client, Scheduler, Worker

import overlay
from overlay.work import WorkDesk

# Dask's pages ask nobody who they are for, and its extensions send code to workers.
QUIET: Any = {"dashboard": False, "dashboard_address": "127.0.0.1:0", "extensions": {}}


async def scheduler() -> None:
    async with Scheduler(protocol="overlay", host="", **QUIET) as running:
        print("scheduler at", running.address, flush=True)
        await running.finished()


async def worker(at: str) -> None:
    async with Worker(PREFIX + at, nthreads=1, **QUIET) as running:
        keep_handlers(running)
        print("worker at", running.address, flush=True)
        await running.finished()


async def squares(at: str, tasks: list[tuple[bytes, bytes]]) -> None:
    async with Client(PREFIX + at, asynchronous=True) as client:
        futures = [client.submit(run_signed, envelope, artifact, pure=False) for envelope, artifact in tasks]
        for kind, value in await client.gather(futures):
            print(kind, value, flush=True)


def square(number: int) -> int:
    return number * number


async def main(what: str, at: str = "", count: str = "10") -> None:
    """Dask has an event loop of its own, in a thread; the node has this one."""
    if what != "scheduler":  # it has to unpickle the graphs of its clients
        close_side_doors()
    async with overlay.open_node() as node, trio.open_nursery() as tasks:
        use_mesh(Ways(node, tasks))
        await trio.to_thread.run_sync(asyncio.run, job(what, at, int(count), WorkDesk(node)), abandon_on_cancel=True)
        tasks.cancel_scope.cancel()


def job(what: str, at: str, count: int, desk: WorkDesk) -> Coroutine[Any, Any, None]:
    if what == "scheduler":
        return scheduler()
    if what == "worker":
        set_gate(Gate(desk))
        return worker(at)
    return squares(at, [seal(desk, "square", functools.partial(square, number)) for number in range(count)])


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
