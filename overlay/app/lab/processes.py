"""Processes that end with us: started through `child.py`, watched without threads, stopped in order."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import trio

from overlay.errors import LocalProtocolError, OverlayError

LINE_MAX: Final = 1024 * 1024  # bytes of one line of output: our guess, far above any event
GRACE: Final = 1.0  # seconds between SIGTERM and SIGKILL: everything is to be gone within two
CHILD: Final = str(Path(__file__).with_name("child.py"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs: descriptors of a user and a network namespace, -1 for ours."""

    user: int = -1
    network: int = -1

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Those that a child must inherit."""
        return tuple(descriptor for descriptor in (self.user, self.network) if descriptor >= 0)


HERE: Final = Place()


class Lines:
    """What a program writes, line by line without line ends: `async for`, or `anext`. For one task at a time.

    Raises:
        OverlayError: a line is longer than 1 MiB.
    """

    def __init__(self, name: str, stream: trio.lowlevel.FdStream) -> None:
        self._name = name
        self._stream = stream
        self._whole: deque[bytes] = deque()
        self._rest = b""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while not self._whole:
            if len(self._rest) > LINE_MAX:
                raise OverlayError(f"{self._name} wrote a line of more than {LINE_MAX} bytes")
            chunk = await self._receive()
            if not chunk and not self._rest:
                raise StopAsyncIteration
            *whole, self._rest = (self._rest + bytes(chunk or b"\n")).split(b"\n")
            self._whole.extend(whole)
        return self._whole.popleft().decode(errors="replace")

    async def _receive(self) -> bytes | bytearray:
        """Nothing when it has ended, or is closed."""
        try:
            return await self._stream.receive_some()
        except trio.ClosedResourceError:
            return b""

    async def aclose(self) -> None:
        """What is not read is lost."""
        await self._stream.aclose()


class Child:
    """A running program. Its standard error goes to `log`; its standard output is read from `lines`, or goes to a file.

    It is killed by the kernel when our main thread ends, however that happens.
    """

    def __init__(
        self, name: str, popen: "subprocess.Popen[bytes]", output: trio.lowlevel.FdStream | None, log: Path
    ) -> None:
        self.name: Final = name
        self.log: Final = log
        self._popen = popen
        self._lines = None if output is None else Lines(name, output)
        self._pidfd = os.pidfd_open(popen.pid)
        self._waiting = trio.Lock()

    def __repr__(self) -> str:
        return f"Child({self.name!r}, pid={self.pid})"

    @property
    def lines(self) -> Lines:
        """Its standard output; raises LocalProtocolError if that goes to a file."""
        if self._lines is None:
            raise LocalProtocolError(f"the output of {self.name} goes to a file")
        return self._lines

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; a negative number is the signal that ended it."""
        return self._popen.poll()

    async def wait(self) -> int:
        """Until it ends; its return code."""
        async with self._waiting:
            if self.returncode is None:
                await trio.lowlevel.wait_readable(self._pidfd)
            code = self._popen.wait()
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing happens if it has ended."""
        self._popen.send_signal(number)

    async def stop(self, grace: float = GRACE) -> int:
        """SIGTERM, after `grace` seconds SIGKILL; done even when cancelled. What it wrote can still be read."""
        with trio.CancelScope(shield=True):
            self.send_signal(signal.SIGTERM)
            with trio.move_on_after(grace):
                await self.wait()
        return await self.kill()

    async def kill(self) -> int:
        """SIGKILL, as if the power had failed; returns when it is gone, also when cancelled."""
        self.send_signal(signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await self.wait()
        return self._popen.wait()

    async def end(self, grace: float = GRACE) -> None:
        """Stop it, and throw away what was not read."""
        with trio.CancelScope(shield=True):
            await self.stop(grace)
            if self._lines is not None:
                await self._lines.aclose()


def start(
    argv: Sequence[str],
    *,
    name: str,
    folder: Path,
    place: Place = HERE,
    env: Mapping[str, str] | None = None,
    read_output: bool = True,
    inherit: Sequence[int] = (),
) -> Child:
    """Start a program in a place; `NAME.err` in the folder takes its standard error, and `NAME.out` what is not read.

    It is not awaited, because a child dies with the *thread* that made it: only the main thread lives long enough, and
    trio's own way of starting processes uses others.
    """
    if threading.current_thread() is not threading.main_thread():
        raise LocalProtocolError("children are started in the main thread")
    log = folder / f"{name}.err"
    prefix = [sys.executable, "-IS", CHILD, str(os.getpid()), str(place.user), str(place.network)]
    reader, writer = os.pipe2(os.O_CLOEXEC) if read_output else (-1, _append(folder / f"{name}.out"))
    errors = _append(log)
    try:
        popen = subprocess.Popen(
            [*prefix, *argv],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=errors,
            env=env,
            pass_fds=(*place.descriptors, *inherit),
        )
    finally:
        os.close(writer)
        os.close(errors)
    return Child(name, popen, trio.lowlevel.FdStream(reader) if read_output else None, log)


def _append(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


async def end_all(children: Sequence[Child], grace: float = GRACE) -> None:
    """End them all at once; done even when cancelled."""
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            for child in children:
                nursery.start_soon(child.end, grace)


async def cancel_on_signal(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Cancel the scope on SIGINT or SIGTERM, also where a shell had SIGINT ignored, as it does for background jobs."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
