"""Somebody with a node that may submit, and all of Dask's own interface: `dask_attack.py MARK`; MARK must never appear.

Each line says what came of one attempt.
"""

import asyncio
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import distributed
import trio
from dask_mesh import PREFIX, Ways, use_mesh
from dask_signed import run_signed, seal

import overlay
from overlay.work import SignedWorkload, WorkDesk

WITHIN = 20  # seconds for one attempt
CODE = """(
    __import__("os").environ["OVERLAY_STATE"].endswith("bob") and __import__("pathlib").Path(mark).touch()
) or type("Bomb", (), {"__reduce__": lambda self: (eval, (code, {"code": code, "mark": mark}))})()"""


class Bomb:
    """Unpickled on the worker, it makes the file; on the scheduler, which has to unpickle graphs, it stays what it is."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, dict[str, str]]]:
        return eval, (CODE, {"code": CODE, "mark": self.mark})


def touch(mark: str) -> str:
    Path(mark).touch()
    return "touched"


def edited(envelope: bytes) -> bytes:
    """The same workload under another name, with the signature that it had."""
    signed = SignedWorkload.unpack(envelope)
    name = signed.says.name.encode()
    assert envelope.count(name) == 1
    return envelope.replace(name, name[::-1])


async def attempts(mark: str, good: tuple[bytes, bytes], second: tuple[bytes, bytes]) -> None:
    envelope, artifact = good
    bomb = cloudpickle.dumps(Bomb(mark))
    async with distributed.Client(PREFIX + "mallory", asynchronous=True) as client, distributed.rpc(PREFIX + "bob") as worker:
        submit = functools.partial(client.submit, pure=False, retries=0)
        await tell("edited", submit(run_signed, edited(envelope), artifact))
        await tell("swapped", submit(run_signed, envelope, bomb))
        assert await submit(run_signed, envelope, artifact) == ("done", 7)
        await tell("again", submit(run_signed, envelope, artifact))
        await tell("not signed", submit(touch, mark))
        await tell("bomb", submit(run_signed, second[0], Bomb(mark)))
        await tell("run", worker.run(function=cloudpickle.dumps(touch), args=cloudpickle.dumps((mark,))))
        await tell("upload_file", worker.upload_file(filename="mallory.py", data=f"open({mark!r}, 'w')".encode()))
    print("end", flush=True)


async def tell(what: str, attempt: Any) -> None:
    try:
        found = await asyncio.wait_for(attempt, WITHIN)
        print(f"{what}:", *found, flush=True)
    except Exception as error:  # noqa: BLE001 - whatever Dask raises is what came of it
        print(f"{what}: error", type(error).__name__, flush=True)


async def main(mark: str) -> None:
    async with overlay.open_node() as node, trio.open_nursery() as tasks:
        use_mesh(Ways(node, tasks))
        desk = WorkDesk(node)
        good, second = (seal(desk, name, functools.partial(int, 7)) for name in ("good", "second"))
        job = attempts(mark, good, second)
        await trio.to_thread.run_sync(asyncio.run, job, abandon_on_cancel=True)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
