"""Commands, examples and nodes as processes, in state folders below one folder."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tests.cli.script_kit import OVERLAY, ROOT, environment

PATIENCE = 30.0
SOFTWARE = ("--evidence", "software")


@dataclass
class Result:
    """What a command did."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        """Its output."""
        return json.loads(self.output)


@dataclass
class Machine:
    """A state folder, and the settings of its node."""

    state: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What its processes see."""
        return environment(self.state.parent, OVERLAY_STATE=str(self.state), **self.settings)

    async def overlay(self, *words: str, code: int = 0, input: bytes = b"") -> Result:
        """A command on this machine, which must end with that exit code."""
        return await self._run([*OVERLAY, *words], code, input)

    async def example(self, name: str, *words: str) -> Result:
        """One of the examples."""
        return await self._run([sys.executable, str(ROOT / "examples" / f"{name}.py"), *words], 0, b"")

    async def _run(self, command: list[str], code: int, input: bytes) -> Result:
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                command, env=self.environment, cwd=self.state.parent, stdin=input, capture_stdout=True,
                capture_stderr=True, check=False,
            )  # fmt: skip
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert result.code == code, (command, result)
        assert "Traceback" not in result.errors, result.errors
        return result

    @asynccontextmanager
    async def running(self, *words: str) -> AsyncIterator["Process"]:
        """The node of this machine as `overlay run --json` runs it, listening."""
        async with self.process([*OVERLAY, "run", "--json", *words]) as process:
            started = await process.wait(lambda event: event["event"] == "node-started")
            process.port = started["port"]
            yield process

    @asynccontextmanager
    async def process(self, command: list[str]) -> AsyncIterator["Process"]:
        """A process that is ended at the latest with the block."""
        async with trio.open_nursery() as nursery:
            with open(self.state.with_suffix(".err"), "ab") as errors:
                process = await trio.lowlevel.open_process(
                    command, env=self.environment, cwd=self.state.parent, stdout=-1, stderr=errors
                )
            found = Process(process, self.state.with_suffix(".err"))
            nursery.start_soon(found.read)
            try:
                yield found
            finally:
                with trio.CancelScope(shield=True):
                    process.kill()
                    await process.wait()
                nursery.cancel_scope.cancel()


class Process:
    """A process whose lines are kept."""

    def __init__(self, process: trio.Process, errors: Path) -> None:
        self.lines: list[str] = []
        self.port = 0
        self._process = process
        self._errors = errors
        self._news = trio.Event()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    async def read(self) -> None:
        """Until it ends."""
        rest = ""
        assert self._process.stdout is not None
        async for data in self._process.stdout:
            *lines, rest = (rest + data.decode()).split("\n")
            self.lines += lines
            self._news.set()
            self._news = trio.Event()

    async def wait_line(self, match: Callable[[str], bool]) -> str:
        """The first line that fits."""
        with trio.fail_after(PATIENCE):
            while True:
                found = [line for line in self.lines if match(line)]
                if found:
                    return found[0]
                assert self._process.returncode is None, self._errors.read_text()
                await self._news.wait()

    async def wait(self, match: Callable[[Any], bool]) -> Any:
        """The first event that fits."""
        return json.loads(await self.wait_line(lambda line: match(json.loads(line))))

    async def end(self, number: signal.Signals) -> tuple[int, float]:
        """Exit code, and how many seconds it took after the signal."""
        began = trio.current_time()
        os.kill(self._process.pid, number)
        with trio.fail_after(PATIENCE):
            code = await self._process.wait()
        assert "Traceback" not in self._errors.read_text(), self._errors.read_text()
        return code, trio.current_time() - began


async def make_pair(folder: Path) -> tuple[Machine, Machine]:
    """alice, who has founded a mesh, and bob, whom she has admitted: with commands alone."""
    quiet = {"OVERLAY_MDNS": "false", "OVERLAY_LISTEN": "127.0.0.1:0"}
    alice, bob = Machine(folder / "alice", quiet), Machine(folder / "bob", quiet)
    await alice.overlay("init", "alice", "--mesh", "test", *SOFTWARE)
    await bob.overlay("request", "-o", str(folder / "request"), *SOFTWARE)
    await alice.overlay("admit", str(folder / "request"), "--name", "bob", "--role", "worker", "-o", str(folder / "bundle"))
    await bob.overlay("install", str(folder / "bundle"))
    return alice, bob
