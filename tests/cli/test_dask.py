"""A Dask cluster of real processes over the mesh: a signed task runs, and what nobody signed is not even unpickled."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.cli.node_kit import SOFTWARE, Machine, Process
from tests.cli.script_kit import ROOT
from tests.cli.service_kit import free_port

pytest.importorskip("distributed", reason="this needs Dask: pip install 'distributed>=2026.8'")

pytestmark = pytest.mark.slow  # five processes that load Dask: 13 to 60 s

QUIET = {"OVERLAY_MDNS": "false", "OVERLAY_EVIDENCE": "software", "PYTHONPATH": str(ROOT / "examples")}
ROLES = {"bob": "worker", "carol": "submit", "mallory": "scheduler"}
ATTACK = ROOT / "tests" / "cli" / "dask_attack.py"
WANTED = (
    "edited: refused ORIGINATOR_SIGNATURE", "swapped: refused ARTIFACT_MISMATCH", "again: refused RUN_COUNT",
    "not signed: error PermissionError", "bomb: error PermissionError", "run: error", "upload_file: error", "end",
)  # fmt: skip
PROGRAM = [sys.executable, str(ROOT / "examples" / "dask_cluster.py")]


async def make_mesh(folder: Path) -> dict[str, Machine]:
    """alice, who has founded a mesh, and one member for each role. mallory is the scheduler."""
    port = free_port()
    quiet = {**QUIET, "OVERLAY_LISTEN": "127.0.0.1:0", "OVERLAY_SEEDS": f"127.0.0.1:{port}"}
    found = {"alice": Machine(folder / "alice", quiet)}
    await found["alice"].overlay("init", "alice", "--mesh", "test", *SOFTWARE)
    for name, role in ROLES.items():
        own = {**QUIET, "OVERLAY_LISTEN": f"127.0.0.1:{port}"} if name == "mallory" else quiet
        machine = found[name] = Machine(folder / name, own)
        request, bundle = str(folder / f"{name}.request"), str(folder / f"{name}.bundle")
        await machine.overlay("request", "-o", request, *SOFTWARE)
        await found["alice"].overlay("admit", request, "--name", name, "--role", role, "-o", bundle)
        await machine.overlay("install", bundle)
    return found


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[dict[str, Machine], Process]]:
    """Scheduler and worker at work, and who else is in the mesh."""
    machines = await make_mesh(folder)
    async with AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(machines["mallory"].process([*PROGRAM, "scheduler"]))
        await scheduler.wait_line(lambda line: line == "scheduler at overlay://mallory")
        worker = await stack.enter_async_context(machines["bob"].process([*PROGRAM, "worker", "mallory"]))
        await worker.wait_line(lambda line: line == "worker at overlay://bob")
        yield machines, worker


async def test_signed_tasks_run_and_a_worker_unpickles_nothing_that_nobody_signed(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (machines, worker):
        done = await machines["carol"].example("dask_cluster", "squares", "mallory", "3")
        assert done.output.splitlines() == ["done 0", "done 1", "done 4"]

        mark = tmp_path / "mark"
        async with machines["carol"].process([sys.executable, str(ATTACK), str(mark)]) as attacker:
            for wanted in WANTED:
                what = wanted.partition(":")[0]
                assert (await attacker.wait_line(lambda line, what=what: line.startswith(what))).startswith(wanted)
        assert not mark.exists()
        assert "refused: cloudpickle.cloudpickle._make_function may not come in a pickle: send run_signed tasks" in worker.lines
        assert "refused: builtins.eval may not come in a pickle: send run_signed tasks" in worker.lines
