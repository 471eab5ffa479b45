"""Row about signed work: from its submission to its start on another node, with everything that lies between.

Submitter and scheduler are two nodes of this process, the worker is a process of its own: its checks, the file over the mesh,
the record and the entry that are durable before the start, and the namespaces of the run.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

import overlay
from bench.row import Row, row
from overlay.app.config import Config
from overlay.app.enrol import admit, found_mesh, install, make_request
from overlay.app.local import LocalNode
from overlay.app.work import contract
from overlay.core.policy import Policy
from overlay.core.work.checks import check_originators
from overlay.store.state import StateFolder
from overlay.work import Artifact, ArtifactType, Assignment, SignedPlacement, SignedResult, SignedWorkload, WorkDesk

JOBS = 40  # of one run
REST = 0.25  # seconds between two: the next launcher is warm by then
PROGRAM = Path("/bin/true")
ROLES = {"bob": ("submit",), "carol": ("scheduler",), "dave": ("worker",)}


async def starts(runs: int) -> list[Row]:
    """The median of many jobs, each with its own workload, one after the other."""
    async with _crew() as (bob, carol, placed):
        job = bob.folder / "job.toml"
        job.write_text(f'name = "job"\nartifact = "{PROGRAM}"\n')
        shown = await bob.work.ask("sign", {"path": str(job)})  # it keeps the file for workers
        artifact = Artifact(bytes.fromhex(shown["artifact"]), shown["size"], ArtifactType.PROGRAM)
        medians = []
        for _ in range(runs):
            medians.append(statistics.median([await _one(bob, carol, placed, artifact) for _ in range(JOBS)]))
    return [row("work_submit_to_start_ms", "ms", medians)]


async def _one(bob: LocalNode, carol: LocalNode, placed: list[SignedPlacement], artifact: Artifact) -> float:
    """Milliseconds, by the clock of this machine."""
    await trio.sleep(REST)
    desk = WorkDesk(bob)
    scheduler = await bob.wait_peer("carol")
    began = desk.at
    signed = desk.sign(desk.new_workload("job", artifact))
    contract.check_answer(await scheduler.call(contract.SUBMIT, signed.pack()))
    worker = await carol.wait_peer("dave")
    carried = None
    while carried is None:
        carried = contract.unpack_result(await worker.call(contract.RESULT, contract.pack_hash(placed[-1].hash)))
    return (SignedResult.unpack(carried).says.started - began).total_seconds() * 1000


@asynccontextmanager
async def _crew() -> AsyncIterator[tuple[LocalNode, LocalNode, list[SignedPlacement]]]:
    placed: list[SignedPlacement] = []
    nodes: list[LocalNode] = []

    async def submit(request: overlay.Request) -> bytes:
        """What any scheduler does at least."""
        desk = WorkDesk(nodes[0])
        signed = SignedWorkload.unpack(request.body)
        check_originators(signed, desk.view, desk.at)
        placed.append(desk.place(signed, desk.worker("dave")))
        worker = await nodes[0].wait_peer("dave")
        return await worker.call(contract.ASSIGN, Assignment(signed, placed[-1]).pack())

    with tempfile.TemporaryDirectory(prefix="overlay-bench-") as path:
        folders = await trio.to_thread.run_sync(_enrol, Path(path))
        async with overlay.open_node(
            folders["carol"], config=_config(), services={contract.SUBMIT: submit}
        ) as carol, overlay.open_node(folders["bob"], config=_config(carol)) as bob:
            nodes.append(carol)
            worker = _worker(folders["dave"], carol, bob)
            try:
                with trio.fail_after(60):
                    await carol.wait_peer("dave")
                    await bob.wait_members(3)
                yield bob, carol, placed
            finally:
                worker.terminate()
                await trio.to_thread.run_sync(worker.wait)


def _enrol(path: Path) -> dict[str, Path]:
    founder = path / "alice"
    with StateFolder.create(founder) as folder:
        found_mesh(folder, "alice", "bench", Policy.default(), None)
    for name, roles in ROLES.items():
        with StateFolder.create(path / name) as member:
            install(member, admit(founder, make_request(member, None), name, roles), None)
    return {name: path / name for name in ROLES}


def _config(*seeds: LocalNode) -> Config:
    addresses = tuple(f"127.0.0.1:{node.port}" for node in seeds)
    return Config(listen=("127.0.0.1", 0), mdns=False, evidence="software", seeds=addresses)


def _worker(folder: Path, *seeds: LocalNode) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "overlay.app.cli.main", "--state", str(folder), "work", "run"]
    command += ["--no-mdns", "--evidence", "software", "--listen", "127.0.0.1:0"]
    for node in seeds:
        command += ["--seed", f"127.0.0.1:{node.port}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)
