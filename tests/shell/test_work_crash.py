"""A worker that is killed in the middle of a run: the run dies with it, is LOST, and does not start a second time."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from overlay.app.compose import open_node
from overlay.app.config import Config
from overlay.app.enrol import admit, found_mesh, install, make_request
from overlay.app.local import LocalNode
from overlay.app.work import contract
from overlay.app.work.desk import WorkDesk
from overlay.core.policy import Policy
from overlay.core.wire import sha256
from overlay.core.work.envelopes import Assignment, SignedPlacement, SignedResult, SignedWorkload
from overlay.core.work.workload import Artifact
from overlay.errors import OverlayError, Refused
from overlay.registry import ArtifactType, Reason, WorkState
from overlay.store.state import StateFolder

CODE = b"import time\ntime.sleep(600)\n"
WITHIN = 40.0


def enrolled(path: Path) -> tuple[Path, Path]:
    """Carol, who founds, signs and schedules; and bob, who works."""
    founder, scheduler, worker = path / "alice", path / "carol", path / "bob"
    with StateFolder.create(founder) as folder:
        found_mesh(folder, "alice", "test", Policy.default(), None)
    for name, where, roles in (("carol", scheduler, ("scheduler", "submit")), ("bob", worker, ("worker",))):
        with StateFolder.create(where) as member:
            install(member, admit(founder, make_request(member, None), name, roles), None)
    return scheduler, worker


@asynccontextmanager
async def working(folder: Path, seed: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """`overlay work run`, a process of its own."""
    command = [
        sys.executable, "-P", "-m", "overlay.app.cli.main", "--state", str(folder), "work", "run", "--json", "--no-mdns",
        "--evidence", "software", "--listen", "127.0.0.1:0", "--seed", seed,
    ]
    with (folder / "lines").open("ab") as lines:
        process = await trio.to_thread.run_sync(lambda: subprocess.Popen(command, stdout=lines))
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def told(folder: Path, event: str) -> None:
    """Until its worker has told such an event."""
    with trio.fail_after(WITHIN):
        while not any(json.loads(line)["event"] == event for line in (folder / "lines").read_text().splitlines()):  # noqa: ASYNC110
            await trio.sleep(0.05)


async def ask(node: LocalNode, method: str, body: bytes) -> bytes:
    """As soon as the worker answers."""
    with trio.fail_after(WITHIN):
        while True:
            try:
                return await (await node.wait_peer("bob")).call(method, body)
            except OverlayError:
                await trio.sleep(0.1)


async def hand_over(node: LocalNode, signed: SignedWorkload, placement: SignedPlacement) -> None:
    """Raises Refused: why the worker does not take it."""
    contract.check_answer(await ask(node, contract.ASSIGN, Assignment(signed, placement).pack()))


def runs_of(worker: int) -> list[int]:
    """Processes below the worker, the launchers' included."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == worker:
            found += [int(path.name), *runs_of(int(path.name))]
    return found


async def test_a_run_of_a_killed_worker_dies_is_lost_and_does_not_start_again(tmp_path: Path) -> None:
    scheduler, worker = await trio.to_thread.run_sync(enrolled, tmp_path)
    config = Config(listen=("127.0.0.1", 0), mdns=False, evidence="software")
    async with open_node(scheduler, config=config) as carol:
        (scheduler / "job.py").write_bytes(CODE)
        desk = WorkDesk(carol)
        artifact = Artifact(sha256(CODE), len(CODE), ArtifactType.PYTHON)
        (scheduler / "job.toml").write_text('name = "job"\nartifact = "job.py"\ntype = "python"\n')
        await carol.work.ask("sign", {"path": str(scheduler / "job.toml")})  # it keeps the file for the worker
        signed = desk.sign(desk.new_workload("job", artifact))
        async with working(worker, f"127.0.0.1:{carol.port}") as process:
            bob = await carol.wait_peer("bob")
            placement = desk.place(signed, bob.node_id)
            await hand_over(carol, signed, placement)
            await told(worker, "work-started")
            below = runs_of(process.pid)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        with trio.fail_after(10):
            while any(Path(f"/proc/{pid}/exe").exists() for pid in below):  # noqa: ASYNC110
                await trio.sleep(0.05)
        async with working(worker, f"127.0.0.1:{carol.port}"):
            with pytest.raises(Refused) as caught:
                await hand_over(carol, signed, placement)
            assert caught.value.reason is Reason.WORK_REPLAYED
            again = desk.place(signed, bob.node_id)
            with pytest.raises(Refused) as caught:
                await hand_over(carol, signed, again)
            assert caught.value.reason is Reason.WORK_REPLAYED
            carried = contract.unpack_result(await ask(carol, contract.RESULT, contract.pack_hash(placement.hash)))
            assert carried is not None
            result = SignedResult.unpack(carried)
            desk.check_result(result, placement)
            assert result.says.state is WorkState.LOST
