"""`overlay work`, with a scheduler of examples/ and a worker, each a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from overlay.app.enrol import admit, found_mesh, install, make_request
from overlay.core.policy import Policy
from overlay.store.state import StateFolder
from tests.cli.script_kit import OVERLAY

ROLES = {"alice": (), "bob": ("worker",), "carol": ("scheduler",), "dora": ("submit",)}
SCHEDULER = Path(__file__).parents[2] / "examples" / "work_scheduler.py"
JOB = """
name = "report"
artifact = "report.py"
type = "python"
arguments = ["7"]
runs = 2
outputs = ["report.txt"]
[inputs]
stdin = "numbers.txt"
[limits]
seconds = 20
"""
CODE = "import sys\nprint(sum(map(int, sys.stdin)) * int(sys.argv[1]))\nopen('report.txt', 'w').write('done')\n"


def enrol(path: Path) -> None:
    with StateFolder.create(path / "alice") as folder:
        found_mesh(folder, "alice", "test", Policy.default(), None)
    for name in ("bob", "carol", "dora"):
        with StateFolder.create(path / name) as member:
            install(member, admit(path / "alice", make_request(member, None), name, ROLES[name]), None)


@asynccontextmanager
async def running(folder: Path, command: list[str], **settings: str) -> AsyncIterator[None]:
    own = {"OVERLAY_STATE": str(folder), "OVERLAY_MDNS": "false", "OVERLAY_EVIDENCE": "software"}
    environment = os.environ | own | settings
    process = await trio.to_thread.run_sync(lambda: subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        await trio.to_thread.run_sync(process.wait)


async def overlay(folder: Path, *words: str) -> tuple[int, str]:
    with trio.fail_after(60):
        done = await trio.run_process(
            [*OVERLAY, "--state", str(folder), *words], check=False, capture_stdout=True, stderr=subprocess.STDOUT
        )
    return done.returncode, done.stdout.decode()


async def linked(folder: Path, count: int) -> int:
    """The port of the node that runs there, when it has so many links."""
    with trio.fail_after(60):
        while True:
            code, text = await overlay(folder, "status", "--json")
            if not code and len(json.loads(text)["links"]) >= count:
                return int(json.loads(text)["port"])
            await trio.sleep(0.1)


async def test_work_is_signed_submitted_run_and_its_outputs_are_fetched_and_checked(tmp_path: Path) -> None:
    await trio.to_thread.run_sync(enrol, tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    (work / "report.toml").write_text(JOB)
    (work / "report.py").write_text(CODE)
    (work / "numbers.txt").write_text("1\n2\n3\n")
    file, dora = str(work / "report.work"), tmp_path / "dora"
    async with AsyncExitStack() as stack:
        scheduler = [sys.executable, "-P", str(SCHEDULER)]
        await stack.enter_async_context(running(tmp_path / "carol", scheduler, OVERLAY_LISTEN="127.0.0.1:0"))
        port = await linked(tmp_path / "carol", 0)
        seeds = {"OVERLAY_LISTEN": "127.0.0.1:0", "OVERLAY_SEEDS": f"127.0.0.1:{port}"}
        await stack.enter_async_context(running(dora, [*OVERLAY, "run"], **seeds))
        seeds["OVERLAY_SEEDS"] += f",127.0.0.1:{await linked(dora, 1)}"
        await stack.enter_async_context(running(tmp_path / "bob", [*OVERLAY, "work", "run"], **seeds))
        await linked(tmp_path / "bob", 2)

        code, text = await overlay(dora, "work", "sign", str(work / "report.toml"))
        assert (code, "written to" in text) == (0, True), text
        code, text = await overlay(dora, "work", "sign", str(work / "report.toml"))
        assert (code, "is there already" in text) == (2, True), text
        code, text = await overlay(tmp_path / "bob", "work", "verify", file, "--json")
        assert (code, json.loads(text)["signers"]) == (0, ["dora"]), text

        code, text = await overlay(dora, "work", "submit", file, "--to", "carol")
        assert (code, text.startswith("carol has taken report")) == (0, True), text
        code, text = await overlay(
            dora, "work", "results", file, "--from", "carol", "--wait", "--into", str(work / "results"), "--json"
        )
        assert code == 0, text
        assert [(row["run"], row["worker"], row["state"], row["number"]) for row in json.loads(text)["runs"]] == [
            (1, "bob", "exited", 0), (2, "bob", "exited", 0),
        ]  # fmt: skip
        assert (work / "results" / "1" / "stdout").read_text() == "42\n"
        assert (work / "results" / "2" / "report.txt").read_text() == "done"
        code, text = await overlay(tmp_path / "bob", "work", "status")
        assert (code, text.count("exited 0")) == (0, 2), text

        code, text = await overlay(dora, "work", "status")
        assert (code, "this node is no worker" in text) == (2, True), text
        (work / "bad.work").write_bytes(b"\x00" * 40)
        code, text = await overlay(dora, "work", "submit", str(work / "bad.work"), "--to", "carol")
        assert (code, "holds no signed work" in text) == (2, True), text


async def test_a_job_by_somebody_without_the_role_is_refused_by_the_scheduler(tmp_path: Path) -> None:
    await trio.to_thread.run_sync(enrol, tmp_path)
    (tmp_path / "job.toml").write_text('name = "job"\nartifact = "job.toml"\n')
    async with AsyncExitStack() as stack:
        scheduler = [sys.executable, "-P", str(SCHEDULER)]
        await stack.enter_async_context(running(tmp_path / "carol", scheduler, OVERLAY_LISTEN="127.0.0.1:0"))
        seeds = {"OVERLAY_LISTEN": "127.0.0.1:0", "OVERLAY_SEEDS": f"127.0.0.1:{await linked(tmp_path / 'carol', 0)}"}
        await stack.enter_async_context(running(tmp_path / "bob", [*OVERLAY, "run"], **seeds))
        await linked(tmp_path / "bob", 1)
        code, text = await overlay(tmp_path / "bob", "work", "sign", str(tmp_path / "job.toml"))
        assert (code, "grant bob --role submit` and `overlay renew`" in text) == (0, True), text
        code, text = await overlay(tmp_path / "bob", "work", "submit", str(tmp_path / "job.work"), "--to", "carol")
        assert (code, "bob has not the role submit" in text) == (4, True), text
        code, text = await overlay(tmp_path / "bob", "work", "results", str(tmp_path / "job.work"), "--from", "carol")
        assert (code, "carol tells of no run of it" in text) == (1, True), text
