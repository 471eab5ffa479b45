"""Inside the PID namespace: its first process, and what becomes the run between fork and exec."""

import fcntl
import json
import os
import resource
import socket
import struct
from dataclasses import dataclass
from typing import Final, NoReturn

from overlay.app.work import kernel
from overlay.app.work.calls import refuse_calls
from overlay.app.work.rooms import JOB, STREAMS, Room

DESCRIPTORS_MAX: Final = 1024  # our guess: the usual limit
ARTIFACT: Final = 3  # descriptors of the run, behind its three streams
NEWS: Final = 4  # closes when the program begins
MESSAGE_MAX: Final = 512 * 1024  # a workload has 64 KiB, six times that in JSON at worst
SCRIPT: Final = b"#!"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the launcher is told. Sizes in bytes."""

    argv: list[str]
    environment: dict[str, str]
    python: str  # the interpreter of the artifact; empty for what the kernel itself runs
    outputs: list[str]
    inputs: int
    seconds: int
    memory: int
    processes: int
    output: int
    network: bool


def run_inside(room: Room, *, orders: socket.socket, news: int, status: int, owner: int) -> NoReturn:
    """The first process: starts the run, buries whatever is left behind, and ends all of it when the run has ended.

    The run is there before its orders are, and has laid its rights down by then; so it begins at once.
    """
    privileged = os.geteuid() == 0  # in a user namespace of our own we are nobody already
    try:
        kernel.die_with(0)
        streams = [room.open_stream(name) for name in STREAMS]
        sysctl = room.enter()
        if not orders.recv(1):  # from here on we are counted, and whatever we start
            os._exit(1)
        run = os.fork()
        if not run:
            _become(orders, streams, news, owner if privileged else None, sysctl)
        orders.close()
        os.close(news)
    except OSError as error:
        _give_up(news, error)
    os.write(status, struct.pack("i", _bury_until(run)))
    os._exit(0)


def _bury_until(run: int) -> int:
    while True:
        pid, status = os.wait()
        if pid == run:
            return status


def _become(orders: socket.socket, streams: list[int], news: int, owner: int | None, sysctl: int) -> NoReturn:
    """Never returns: the program, or an end."""
    try:
        os.setsid()
        os.chdir(JOB)
        os.umask(0o077)
        kernel.leave_keyring()
        if owner is None or _drop_rights(owner, news):
            kernel.no_more_namespaces(sysctl)  # in one, a run would have capabilities again
        job, artifact, standard_input = _await_orders(orders)
        # behind the namespace: a limit from before it counts the processes of all runs, whose user is the same
        _set_limits(job, spare=0 if owner is not None else 2)  # without root the launcher and we count as the same user
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        if refuse_calls():
            os.write(news, b"calls\n")
        _keep_only([standard_input, *streams, artifact, news])
        news = NEWS
        _execute(job)
    except (OSError, ValueError, MemoryError) as error:
        _give_up(news, error)


def _await_orders(orders: socket.socket) -> tuple[Job, int, int]:
    """The job, its artifact, and its standard input. Raises OSError, ValueError."""
    data, descriptors, _, _ = socket.recv_fds(orders, MESSAGE_MAX, 2)
    if not data:
        os._exit(1)  # the launcher is gone
    standard_input = descriptors[1] if len(descriptors) > 1 else os.open("/dev/null", os.O_RDONLY)
    return Job(**json.loads(data)), descriptors[0], standard_input


def _set_limits(job: Job, *, spare: int) -> None:
    # more than the limit by one byte: what is cut there is seen to be too much
    for which, value in (
        (resource.RLIMIT_CPU, job.seconds + 1), (resource.RLIMIT_FSIZE, job.output + 1), (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, job.processes + spare), (resource.RLIMIT_NOFILE, DESCRIPTORS_MAX),
    ):  # fmt: skip
        _set_limit(which, value)


def _set_limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    least = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (least, least))


def _drop_rights(owner: int, news: int) -> bool:
    """From root to nobody; whether in a user namespace of its own, which the kernel may not allow. Raises OSError."""
    os.setgroups([])
    os.setresgid(owner, owner, owner)
    os.setresuid(owner, owner, owner)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # or /proc/self is root's
    try:
        kernel.unshare(kernel.CLONE_NEWUSER)
        kernel.map_self(owner, owner, inside=owner)
    except OSError:
        return False  # the kernel does not allow it: the result says so
    os.write(news, b"user\n")
    return True


def _keep_only(kept: list[int]) -> None:
    """0, 1, 2, then the artifact, then what closes by itself when the program begins; nothing else."""
    moved = [_above(one, 2 * len(kept)) for one in kept]
    for number, one in enumerate(moved):
        os.dup2(one, number, inheritable=number != NEWS)
    os.closerange(len(kept), DESCRIPTORS_MAX)


def _close_on_exec(descriptor: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)


def _above(descriptor: int, least: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD, least)


def _execute(job: Job) -> NoReturn:
    """The bytes behind the descriptor, whatever any name leads to by now. Raises OSError."""
    path = f"/proc/self/fd/{ARTIFACT}"
    if not job.python and os.pread(ARTIFACT, len(SCRIPT), 0) != SCRIPT:
        _close_on_exec(ARTIFACT)  # only the interpreter of a script has to open it once more
    _set_limit(resource.RLIMIT_AS, job.memory)  # last: it holds for us, too
    if job.python:
        os.execve(job.python, [job.python, "-I", "-B", path, *job.argv], job.environment)  # noqa: S606 (this is its job)
    os.execve(ARTIFACT, ["artifact", *job.argv], job.environment)  # noqa: S606


def _give_up(news: int, error: Exception) -> NoReturn:
    os.write(news, f"failed\n{error}".encode())
    os._exit(127)
