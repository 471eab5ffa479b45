"""Launchers from the worker's side: one is always warm, so that a run begins in milliseconds; each does one run."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import trio

from overlay.app.work.inside import MESSAGE_MAX, Job
from overlay.app.work.staging import Staged
from overlay.errors import HostLacks

MODULE: Final = "overlay.app.work.launch"
READY_WITHIN: Final = 20.0  # seconds: our guess, for a loaded machine
STOP_WITHIN: Final = 5.0  # seconds to end a run and hand over what it has written; then the launcher is killed: our guess
KEPT: Final = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV")  # of our environment, for the launcher, not for the run

HINT: Final = "a worker needs namespaces of its own: docs/guide/work.md says which"

Take = Callable[[str, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended: `how` as the launcher says it, with exit code or signal."""

    how: str
    number: int = 0


@dataclass(slots=True)
class Launcher:
    """One process, for one run."""

    process: subprocess.Popen[bytes] = field(repr=False)
    connection: trio.socket.SocketType = field(repr=False)
    held: tuple[str, ...] = ()

    @classmethod
    async def start(cls, place: Path, *, network: bool) -> Self:
        """A warm one. Raises HostLacks."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_MAX)  # a message goes as one
        with theirs:
            environment = {name: os.environ[name] for name in KEPT if name in os.environ}
            command = [sys.executable, "-P", "-m", MODULE, str(theirs.fileno()), str(place)]
            command += ["network" if network else "none", *python_folders()]
            process = await trio.to_thread.run_sync(
                lambda: subprocess.Popen(
                    command, env=environment, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True
                )
            )
        found = cls(process, trio.socket.from_stdlib_socket(ours))
        why = "the launcher does not start"
        try:
            with trio.move_on_after(READY_WITHIN):
                message, _ = await found._hear()
                if "ready" in message:
                    return found
                why = str(message.get("failed", why))
        except BaseException:
            found.kill()
            raise
        found.kill()
        raise HostLacks(f"work cannot run here: {why}", hint=HINT)

    async def equip(self, job: Job, artifact: Staged, inputs: Mapping[str, Staged]) -> None:
        """Give it all that its run needs. Nothing runs before `run`; a launcher that is gone shows there."""
        with suppress(OSError, trio.BrokenResourceError):
            await self._tell({"job": asdict(job)}, artifact.descriptor)
            for name, staged in inputs.items():
                await self._tell({"input": name, "size": staged.size}, staged.descriptor)

    async def run(self, *, started: Callable[[], None], take: Take) -> End:
        """The run, until its end. `started`: it has begun. `take`: is given each output, a descriptor to read, before the end.

        Raises:
            HostLacks: this machine cannot do that.
        """
        try:
            await self._tell({"go": True})
            return await self._until_end(started, take)
        except (OSError, trio.BrokenResourceError):
            return End("lost")
        finally:
            self.kill()

    async def _until_end(self, started: Callable[[], None], take: Take) -> End:
        end = End("lost")
        while True:
            message, descriptor = await self._hear()
            match message:
                case {"started": True, "held": held}:
                    self.held = tuple(held)
                    started()
                case {"ended": str(how), "number": int(number)}:
                    end = End(how, number)
                case {"file": str(name)}:
                    await _hand_over(take, name, descriptor)
                case {"failed": str(why)}:
                    raise HostLacks(f"work cannot run here: {why}", hint=HINT)
                case _:
                    return end

    async def stop(self) -> None:
        """End the run; `run` returns with what it has written. One that does not end is killed."""
        try:
            await self._tell({"stop": True})
        except OSError:
            return
        with trio.move_on_after(STOP_WITHIN):
            await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)
        self.kill()

    def kill(self) -> None:
        """At once, and with it all of its run: each of its processes dies with the one before."""
        self.connection.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    async def _tell(self, message: Mapping[str, Any], descriptor: int = -1) -> None:
        ancillary: Sequence[Any] = ()
        if descriptor >= 0:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor.to_bytes(4, sys.byteorder))]
        await self.connection.sendmsg([json.dumps(message, ensure_ascii=False).encode()], ancillary)

    async def _hear(self) -> tuple[dict[str, Any], int]:
        """An empty message when it has ended."""
        data, ancillary, _, _ = await self.connection.recvmsg(MESSAGE_MAX, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        descriptor = int.from_bytes(ancillary[0][2][:4], sys.byteorder) if ancillary else -1
        return (json.loads(data) if data else {}), descriptor


async def _hand_over(take: Take, name: str, descriptor: int) -> None:
    try:
        await take(name, descriptor)
    finally:
        os.close(descriptor)


class Launchers:
    """One warm launcher in store. `place`: the folder in which rooms are made, each in its own mount namespace."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._warm: Launcher | None = None
        self._wanted = trio.Event()

    async def keep_warm(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._wanted = trio.Event()
                if self._warm is None:
                    with suppress(HostLacks):  # whoever gets one is told why not
                        self._warm = await Launcher.start(self.place, network=False)
                await self._wanted.wait()
        finally:
            if self._warm is not None:
                self._warm.kill()

    async def get(self, *, network: bool) -> Launcher:
        """A warm one if there is one, for what has no network. Raises HostLacks."""
        if not network:
            found, self._warm = self._warm, None
            self._wanted.set()
            if found is not None and found.process.poll() is None:
                return found
        return await Launcher.start(self.place, network=network)


def python_folders() -> tuple[str, ...]:
    """Where this interpreter and its libraries are, for runs that use it, and the launcher that starts them."""
    return tuple(dict.fromkeys(str(Path(folder).resolve()) for folder in (sys.base_prefix, sys.prefix)))
