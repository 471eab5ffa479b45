"""The launcher: a process of its own for each run, started ahead of time, which makes the room, watches the run, and ends it.

    python -P -m overlay.app.work.launch DESCRIPTOR PLACE NETWORK FOLDER...
        DESCRIPTOR   of a socket to the worker (SOCK_SEQPACKET)
        PLACE        an empty folder: the room is made there, in a mount namespace of its own
        NETWORK      `network` for that of the machine, else `none`
        FOLDER       further folders of the machine that the run may read

    worker -> launcher   {"job": ...} with the artifact, {"input": name, "size": n} with each input, {"go": true};
                         {"stop": true} at any time
    launcher -> worker   {"ready": true}, {"started": true, "held": [...]}, {"ended": how, "number": n}, {"file": name} with
                         each output, {"done": true}; or {"failed": why}

Three processes: this one outside; the first process of the PID namespace, whose end ends all of it; and the run. The worker's
end is seen at the socket, ours by the first process, so that a run never outlives its worker.
"""

import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from overlay.app.work import kernel
from overlay.app.work.cgroups import Group
from overlay.app.work.inside import MESSAGE_MAX, Job, run_inside
from overlay.app.work.rooms import Room

LOOK_EVERY: Final = 50  # milliseconds between two looks at output and memory: our guess
NOBODY: Final = 65534
SPACES: Final = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS


@dataclass(slots=True)
class Worker:
    """The other end."""

    connection: socket.socket

    def tell(self, descriptor: int | None = None, **values: Any) -> None:
        """One message."""
        socket.send_fds(self.connection, [json.dumps(values).encode()], [] if descriptor is None else [descriptor])

    def hear(self) -> tuple[dict[str, Any], int]:
        """The next message and its descriptor, -1 for none. Raises EOFError."""
        data, descriptors, _, _ = socket.recv_fds(self.connection, MESSAGE_MAX, 1)
        if not data:
            raise EOFError
        message: dict[str, Any] = json.loads(data)
        return message, descriptors[0] if descriptors else -1


@dataclass(frozen=True, slots=True)
class Inside:
    """The PID namespace, seen from outside."""

    first: int  # its first process
    orders: socket.socket  # the run is told to it
    news: int  # what the run says before it begins: closed when it has begun
    status: int  # how it ended, from the first process

    def begin(self, job: Job, artifact: int, standard_input: int) -> None:
        """Start the run. Raises OSError."""
        descriptors = [artifact, standard_input] if standard_input >= 0 else [artifact]
        with suppress(BrokenPipeError, ConnectionResetError):  # it has ended, and says why
            socket.send_fds(self.orders, [json.dumps(asdict(job)).encode()], descriptors)
        self.orders.close()
        for descriptor in descriptors:
            os.close(descriptor)


def main(descriptor: int, place: str, *, network: bool, folders: Sequence[str]) -> None:
    """One run. The room is made before the worker has one, so that it begins at once."""
    os.umask(0o022)  # the run, who is somebody else, looks into folders that we make
    worker = Worker(socket.socket(fileno=descriptor))
    group = Group.make()
    try:
        owner, held = _part(network=network)
        room = Room(place, owner=owner)
        room.build(network=network, more=folders)
        inside = _enter(room, group, owner)
        worker.tell(ready=True)
        _run(worker, room, group, inside, held)
    except EOFError:
        return  # the worker is gone, and so is the run
    except OSError as error:
        worker.tell(failed=f"{error.filename or 'the kernel'}: {error.strerror}")
    finally:
        group.remove()


def _part(*, network: bool) -> tuple[int, list[str]]:
    """Leave the namespaces of the machine: as whom the run runs, in our eyes, and what holds. Raises OSError."""
    spaces = SPACES if network else SPACES | kernel.CLONE_NEWNET
    held = ["pid", "mount", "ipc", "uts", *([] if network else ["network"])]
    if os.geteuid() == 0 and _knows(NOBODY):
        try:
            kernel.unshare(spaces)
        except PermissionError:
            _refuse_root()  # root of a container goes as any user
        else:
            return NOBODY, [*held, "nobody"]
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(spaces | kernel.CLONE_NEWUSER)
    kernel.map_self(user, group, inside=NOBODY)
    return NOBODY, [*held, "user"]


def _refuse_root() -> None:
    """Root without CAP_SYS_ADMIN is still whom root's files belong to, /proc/sys among them. Raises PermissionError."""
    with open("/proc/self/uid_map") as file:
        if any(int(line.split()[1]) == 0 for line in file):
            raise PermissionError(errno.EPERM, "root needs CAP_SYS_ADMIN; any other user does not", "a worker")


def _knows(user: int) -> bool:
    """Whether there is such a user in the user namespace that we were started in."""
    with open("/proc/self/uid_map") as file:
        rows = [[int(text) for text in line.split()] for line in file]
    return any(first <= user < first + count for first, _, count in rows)


def _run(worker: Worker, room: Room, group: Group, inside: Inside, held: list[str]) -> None:
    message, artifact = worker.hear()
    job = Job(**message["job"])
    group.bound(job.memory, job.processes + 1)
    room.widen(output=job.output, inputs=job.inputs)
    standard_input = _take_inputs(worker, room)
    inside.begin(job, artifact, standard_input)
    watch = _Watch(worker, job, room, group, inside, [*held, *(f"group-{one}" for one in group.held)])
    how, number = watch.until_end()
    worker.tell(ended=how, number=number)
    for name, descriptor in room.outputs(tuple(job.outputs)).items():
        worker.tell(descriptor, file=name)
        os.close(descriptor)
    group.remove()
    worker.tell(done=True)


def _take_inputs(worker: Worker, room: Room) -> int:
    """Until `go`: the descriptor of standard input, -1 for none. Raises EOFError, OSError."""
    standard_input = -1
    while True:
        message, descriptor = worker.hear()
        if "go" in message:
            return standard_input
        if "stop" in message:
            raise EOFError
        if message["input"] == "stdin":
            standard_input = descriptor
        else:
            room.put(message["input"], descriptor, message["size"])
            os.close(descriptor)


def _enter(room: Room, group: Group, owner: int) -> Inside:
    """Start the first process of the PID namespace; it starts the run, which waits for its orders. Raises OSError."""
    news_out, news_in = os.pipe()
    status_out, status_in = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_MAX)
    first = os.fork()
    if not first:
        ours.close()
        run_inside(room, orders=theirs, news=news_in, status=status_in, owner=owner)
    for descriptor in (news_in, status_in):
        os.close(descriptor)
    theirs.close()
    group.add(first)
    with suppress(BrokenPipeError, ConnectionResetError):
        ours.send(b"+")
    return Inside(first, ours, news_out, status_out)


class _Watch:
    """A run until its end, or ours."""

    def __init__(self, worker: Worker, job: Job, room: Room, group: Group, inside: Inside, held: list[str]) -> None:
        self._worker = worker
        self._job = job
        self._room = room
        self._group = group
        self._inside = inside
        self._held = held
        self._said = b""
        self._begun = False
        self._why = ""

    def until_end(self) -> tuple[str, int]:
        """How it ended, and its exit code or signal. Raises EOFError when the worker is gone."""
        deadline = time.monotonic() + self._job.seconds
        waits = select.poll()
        for descriptor in (self._worker.connection.fileno(), self._inside.news, self._inside.status):
            waits.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in waits.poll(LOOK_EVERY):
                if descriptor == self._inside.status:
                    return self._ended()
                if descriptor == self._inside.news:
                    self._hear_news(waits)
                else:
                    self._hear_worker()
            if not self._why:
                self._look(deadline)

    def _hear_news(self, waits: select.poll) -> None:
        data = os.read(self._inside.news, 4096)
        self._said += data
        if not data:
            waits.unregister(self._inside.news)
            self._news_end()

    def _news_end(self) -> None:
        """The program has begun, or did not come so far."""
        self._begun = True
        words = self._said.decode(errors="replace").split("\n")
        if "failed" in words:
            self._why = "failed: " + " ".join(words[words.index("failed") + 1 :])
        else:
            self._worker.tell(started=True, held=sorted({*self._held, *filter(None, words)}))

    def _hear_last_news(self) -> None:
        """A short run is over before its news have all been read."""
        while data := os.read(self._inside.news, 4096):
            self._said += data
        if not self._begun:
            self._news_end()

    def _hear_worker(self) -> None:
        try:
            self._worker.hear()
        except EOFError:
            self._kill("")
            raise
        self._kill("stopped")

    def _look(self, deadline: float) -> None:
        if time.monotonic() >= deadline:
            self._kill("timed-out")
        elif self._room.written > self._job.output:
            self._kill("output")
        elif self._group.killed or self._takes_too_much():  # where one process is gone, the others do not what was wanted
            self._kill("memory")

    def _takes_too_much(self) -> bool:
        """Asked only where there is no control group that would see to it."""
        return "memory" not in self._group.held and resident(self._inside.first) > self._job.memory

    def _kill(self, why: str) -> None:
        self._why = self._why or why
        os.kill(self._inside.first, signal.SIGKILL)

    def _ended(self) -> tuple[str, int]:
        data = os.read(self._inside.status, 4)
        os.waitpid(self._inside.first, 0)  # all of its namespace are gone when this returns
        self._hear_last_news()
        if self._why.startswith("failed"):
            return self._why, 0
        if not self._why and self._group.killed:
            self._why = "memory"
        if not self._why and self._room.written > self._job.output:
            self._why = "output"
        if self._why:
            return self._why, 0
        status = struct.unpack("i", data)[0] if len(data) == struct.calcsize("i") else signal.SIGKILL
        if os.WIFSIGNALED(status):
            return "signalled", os.WTERMSIG(status)
        return "exited", os.WEXITSTATUS(status)


def resident(pid: int) -> int:
    """Bytes in memory of a process and all below it, what they share counted once; 0 for what has just ended."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            pages = [int(text) for text in file.read().split()]
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            below = [int(text) for text in file.read().split()]
    except (OSError, ValueError):
        return 0
    own = (pages[1] - pages[2]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 2 else 0
    return own + _shared(pid) + sum(resident(child) for child in below)


def _shared(pid: int) -> int:
    """Its share of the memory that it has mapped together with others; files that it reads are nobody's. Source: proc(5)."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss_Shmem:"))
    except OSError:
        return 0  # it has just ended


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], network=sys.argv[3] == "network", folders=sys.argv[4:])
