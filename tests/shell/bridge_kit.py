"""Nodes for tests without trio: two folders, what a node said, and scripts that run as processes of their own."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from overlay.app.config import Config
from overlay.events import NodeEvent
from tests.cli.script_kit import environment
from tests.shell.folder_kit import ALONE, enrolled

PATIENCE = 20.0
E = TypeVar("E", bound=NodeEvent)
T = TypeVar("T")

CONFIG = """
import sys, overlay
config = overlay.Config(listen=("127.0.0.1", 0), mdns=False, evidence="software", seeds=tuple(sys.argv[2:]))
"""


@dataclass(frozen=True)
class Pair:
    """The folders of alice and bob, one mesh."""

    alice: Path
    bob: Path


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(*enrolled(tmp_path, "alice", "bob"))


def seeded(port: int) -> Config:
    """The configuration of a node that dials this one."""
    return replace(ALONE, seeds=(f"127.0.0.1:{port}",))


class Heard:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self._events: queue.Queue[NodeEvent] = queue.Queue()

    def __call__(self, event: NodeEvent) -> None:
        self._events.put(event)

    def wait(self, kind: type[E]) -> E:
        """The next event of that kind."""
        while True:
            event = self._events.get(timeout=PATIENCE)
            if isinstance(event, kind):
                return event


class InThread(threading.Thread):
    """A call in another thread, and what it came to."""

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self.result: object = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._function()
        except Exception as error:  # noqa: BLE001 - for whoever looks
            self.error = error

    def ended(self) -> object:
        """What it returned. Raises what it raised."""
        self.join(PATIENCE)
        assert not self.is_alive(), "deadlock"
        if self.error is not None:
            raise self.error
        return self.result


class Script:
    """A script that runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def wait_line(self, line: str) -> None:
        """Its next line, which must be this one."""
        assert self._process.stdout is not None
        found = self._process.stdout.readline()
        if found != line + "\n":
            self._process.kill()
            raise AssertionError((found, self._process.communicate()[1]))

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> float:
        """Ctrl-C, or another signal: how many seconds it took after that."""
        began = time.monotonic()
        self._process.send_signal(number)
        self.end()
        return time.monotonic() - began

    def end(self) -> tuple[int, str]:
        """Exit code, and what it wrote to standard error, when it has ended by itself."""
        _, errors = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, errors


@contextmanager
def script(text: str, *arguments: str, home: Path) -> Iterator[Script]:
    """Run a script; it is killed with the block, at the latest."""
    command = [sys.executable, "-c", text, *arguments]
    process = subprocess.Popen(
        command, env=environment(home), cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )
    too_late = threading.Timer(2 * PATIENCE, os.killpg, (process.pid, signal.SIGKILL))  # with whatever it has forked
    too_late.start()
    try:
        yield Script(process)
    finally:
        too_late.cancel()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
