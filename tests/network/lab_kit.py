"""The lab as a user starts it, from outside: its command in a process, and everything that process brings into being."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from overlay.app.lab.keeper import BRIDGE
from overlay.app.lab.machine import without_settings
from overlay.net.background import background

ROOT = Path(__file__).parents[2]
MARK = "LAB_TEST_MARK"
PATIENCE = 120.0
POLL = 0.02
MODULE = (sys.executable, "-P", "-m")
PACKAGES = [path for path in sys.path if path.endswith("-packages")]


@dataclass(frozen=True)
class Python:
    """How to start our Python, with or without rights; what it starts is recognised by a variable in its environment."""

    prefix: tuple[str, ...] = ()
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    def argv(self, *words: str) -> list[str]:
        """The lab with these options."""
        return [*self.prefix, *MODULE, "overlay.app.cli.main", "lab", *words]

    def environment(self, folder: Path, **more: str) -> dict[str, str]:
        """Without HOME and without settings of the caller; temporary files go to a folder of the test."""
        kept = {name: value for name, value in without_settings(os.environ).items() if name != "HOME"}
        return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT), *PACKAGES]), "TMPDIR": str(folder), MARK: self.mark} | more


@dataclass(frozen=True)
class Ran:
    """A lab that has ended."""

    code: int
    output: str
    errors: str

    @property
    def report(self) -> dict[str, Any]:
        """What stood alone on standard output."""
        assert self.code in (0, 1), self
        return dict(json.loads(self.output))

    @property
    def complaint(self) -> list[str]:
        """The lines on standard error, which are no traceback."""
        assert "Traceback" not in self.errors, self.errors
        return self.errors.splitlines()


async def run(
    *words: str, python: Python | None = None, folder: Path, cwd: Path | None = None, patience: float = PATIENCE, **env: str
) -> Ran:
    """Run the lab until it ends."""
    python = python or Python()
    with trio.fail_after(patience):
        done = await trio.run_process(
            python.argv(*words), env=python.environment(folder, **env), cwd=cwd or folder, capture_stdout=True,
            capture_stderr=True, check=False,
        )  # fmt: skip
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


class Running:
    """A lab at work: its lines on standard error, and its processes."""

    def __init__(self, process: trio.Process, python: Python) -> None:
        self.process = process
        self.lines: list[str] = []
        self.output = b""
        self._python = python
        self._news = trio.Event()

    async def read(self) -> None:
        """Until it ends."""
        rest = b""
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            *lines, rest = (rest + data).split(b"\n")
            self.lines += [line.decode() for line in lines]
            self._news.set()
            self._news = trio.Event()
        await self.process.wait()
        self._news.set()

    async def collect(self) -> None:
        """Its standard output."""
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            self.output += data

    async def says(self, text: str) -> None:
        """Until a line begins with the text."""
        with trio.fail_after(PATIENCE):
            while not any(line.startswith(text) for line in self.lines):
                assert self.process.returncode is None, (text, self.lines)
                await self._news.wait()

    async def runs(self, *programs: str) -> None:
        """Until all these run: swtpm, wire.py, overlay.app.lab.actor, ..."""
        await self._until(lambda: {program_of(command) for command in marked(self._python.mark).values()}.issuperset(programs))

    async def makes(self, path: Path) -> None:
        """Until there is such a file."""
        await self._until(path.exists)

    async def _until(self, check: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE):
            while not check():
                assert self.process.returncode is None, self.lines
                await trio.sleep(POLL)

    async def end(self, number: signal.Signals) -> tuple[int, float]:
        """Signal the launcher: its exit code, and after how many seconds nothing of the lab ran any more."""
        began = trio.current_time()
        self.process.send_signal(number)
        with trio.fail_after(PATIENCE):
            code = await self.process.wait()
            while left := marked(self._python.mark):
                for pid in left:
                    await gone(pid)
        return code, trio.current_time() - began


async def gone(pid: int) -> None:
    """Until a process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


@asynccontextmanager
async def running(*words: str, folder: Path, python: Python | None = None) -> AsyncIterator[Running]:
    """The lab in the background; the launcher and all that it started is killed at the latest with the block."""
    python = python or Python()
    async with background() as tasks:
        process = await trio.lowlevel.open_process(
            python.argv(*words), env=python.environment(folder), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        lab = Running(process, python)
        tasks.start_soon(lab.read)
        tasks.start_soon(lab.collect)
        try:
            yield lab
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
                for pid in marked(python.mark):
                    os.kill(pid, signal.SIGKILL)


def marked(mark: str) -> dict[int, Sequence[str]]:
    """The command lines of all processes that have the mark in their environment, by pid. A zombie has none."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue  # it has ended, or it is somebody else's
    return found


def program_of(command: Sequence[str]) -> str:
    """swtpm, overlay.app.lab.actor, wire.py, ..."""
    if "-m" in command:
        return command[command.index("-m") + 1]
    return next((Path(word).name for word in command if word.endswith(".py")), Path(command[0]).name)


@contextmanager
def short_folder(owner: int | None = None) -> Iterator[Path]:
    """A new folder whose path is short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        if owner is not None:
            os.chown(folder, owner, owner)
        yield Path(folder)


def traces(folder: Path) -> list[str]:
    """What of a lab in that folder shows outside: mounts, named namespaces, interfaces."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    named = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    interfaces = [name for _, name in socket.if_nameindex() if name == BRIDGE or name.startswith("port")]
    return [line for line in mounts if str(folder) in line] + named + interfaces
