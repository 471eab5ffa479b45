"""Signed work runs within its limits, on real nodes and in real processes; what is not as signed does not run."""

import os
import secrets
from pathlib import Path

import pytest
import trio

from overlay.app.work import contract
from overlay.app.work.launcher import Launcher
from overlay.core.wire import sha256
from overlay.core.work.workload import File, RunLimits
from overlay.errors import NotAllowed, Refused
from overlay.events import RevocationsChanged, WorkEnded, WorkRefused, WorkStarted
from overlay.net.stream import Stream
from overlay.registry import ArtifactType, Reason, WorkState
from tests.shell.work_kit import LIMITS, SLEEP, Crew, crew, sends, worker_of

HELLO = b"import sys\nprint('hello', *sys.argv[1:])\nopen('out.txt', 'w').write('written')\n"


async def refused(found: Crew, code: bytes, reason: Reason) -> None:
    """It is taken, and then does not start, because of its artifact."""
    result = await found.run(code)
    assert (result.state, result.reason) == (WorkState.NOT_STARTED, reason)
    assert not any(isinstance(event, WorkStarted) for event in found.events)


async def test_signed_work_runs_and_its_signed_result_names_every_output() -> None:
    async with crew() as found:
        result = await found.run(HELLO, arguments=("world",), outputs=("out.txt",))
        assert (result.state, result.number) == (WorkState.EXITED, 0)
        assert [one.name for one in result.files] == ["out.txt", "stderr", "stdout"]
        assert await found.output(result) == b"hello world\n"
        assert await found.output(result, "out.txt") == b"written"
        assert await found.logged() == ["start", "end"]


async def test_inputs_are_in_the_folder_and_one_called_stdin_is_standard_input() -> None:
    code = b"import os, sys\nprint(sorted(os.listdir('.')), open('a.txt').read(), sys.stdin.read())\n"
    files = {"a.txt": b"AAA", "stdin": b"typed"}
    async with crew() as found:
        for data in files.values():
            found.files[sha256(data)] = sends(data)
        inputs = tuple(File(name, sha256(data), len(data)) for name, data in files.items())
        result = await found.run(code, inputs=inputs)
        assert await found.output(result) == b"['a.txt'] AAA typed\n"


async def test_a_program_and_a_script_run_from_the_descriptor() -> None:
    async with crew() as found:
        for code in (Path("/bin/echo").read_bytes(), b'#!/bin/sh\necho "$@"\n'):
            result = await found.run(code, kind=ArtifactType.PROGRAM, arguments=("it", "runs"))
            assert await found.output(result) == b"it runs\n"


async def test_a_run_sees_nothing_of_the_machine_and_nothing_of_its_worker() -> None:
    code = b"""import os, sys
print(sorted(os.environ), os.getpid(), [int(n) for n in os.listdir('/proc/self/fd')], os.listdir('.'))
for path in sys.argv[1:]:
    print(os.path.exists(path))
print([line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'NoNewPrivs'))])
"""
    async with crew() as found:
        state = str(found.bob.folder)
        result = await found.run(code, arguments=(state, "/home", "/etc/passwd", f"/proc/{os.getpid()}"))
        lines = (await found.output(result)).decode().splitlines()
        assert lines == ["['LC_CTYPE'] 2 [0, 1, 2, 3, 4] []", *["False"] * 4, "['0000000000000000', '1']"]


# --- artifacts --------------------------------------------------------------------------------------------------------


async def test_an_artifact_without_end_is_refused_at_its_first_byte_too_many() -> None:
    async def endless(stream: Stream) -> None:
        while True:
            await stream.send_all(bytes(65_536))

    async with crew() as found:
        found.files[sha256(HELLO)] = endless
        await refused(found, HELLO, Reason.ARTIFACT_MISMATCH)


async def test_an_artifact_that_is_larger_than_said_is_refused() -> None:
    async with crew() as found:
        found.files[sha256(HELLO)] = sends(HELLO + b"#")
        await refused(found, HELLO, Reason.ARTIFACT_MISMATCH)


async def test_an_artifact_that_breaks_off_or_has_other_bytes_is_refused() -> None:
    async with crew() as found:
        for sent in (HELLO[:-1], HELLO[:-1] + b"#"):
            found.files[sha256(HELLO)] = sends(sent)
            await refused(found, HELLO, Reason.ARTIFACT_MISMATCH)


async def test_an_input_with_other_bytes_is_refused() -> None:
    async with crew() as found:
        found.files[sha256(b"AAA")] = sends(b"BBB")
        result = await found.run(HELLO, inputs=(File("a.txt", sha256(b"AAA"), 3),))
        assert (result.state, result.reason) == (WorkState.NOT_STARTED, Reason.ARTIFACT_MISMATCH)


async def test_what_never_began_uses_up_nothing_and_may_come_again() -> None:
    async with crew() as found:
        signed = found.sign(HELLO)
        found.files[sha256(HELLO)] = sends(b"")
        placement = await found.place(signed)
        assert (await found.result(placement)).state is WorkState.NOT_STARTED
        found.files[sha256(HELLO)] = sends(HELLO)
        await found.hand_over(signed, placement)
        await found.wait_event(WorkStarted)


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_a_run_ends_when_its_time_is_up() -> None:
    async with crew() as found:
        result = await found.run(SLEEP, limits=RunLimits(seconds=1, memory=LIMITS.memory))
        assert result.state is WorkState.TIMED_OUT
        assert await found.output(result) == b"begun\n"


@pytest.mark.parametrize("code", [
    b"while True: print('x' * 1000)",
    b"for n in range(99): open(f'{n}', 'wb').write(bytes(100_000))",
])  # fmt: skip
async def test_a_run_that_writes_more_than_its_limit_is_ended(code: bytes) -> None:
    async with crew() as found:
        assert (await found.run(b"try:\n  " + code + b"\nexcept OSError: pass")).state is WorkState.OUTPUT_TOO_LARGE


async def test_memory_is_bounded_for_each_process_and_for_all_of_them() -> None:
    alone = b"try: bytearray(1 << 30)\nexcept MemoryError: print('no')"
    together = b"""import os, time
for _ in range(4):
  if not os.fork():
    x = os.urandom(200 << 20)
    time.sleep(99)
time.sleep(99)
"""
    async with crew() as found:
        assert await found.output(await found.run(alone)) == b"no\n"
        assert (await found.run(together)).state is WorkState.OUT_OF_MEMORY


async def test_a_fork_bomb_stays_within_its_processes_and_ends_with_its_run() -> None:
    code = b"""import os, time
n = 0
try:
  while True:
    if not os.fork(): time.sleep(600)
    n += 1
except OSError:
  print(n < 16)
"""
    name = secrets.token_hex(16)  # what a process is called with, its children are seen with
    async with crew() as found:
        await found.place(found.sign(SLEEP, arguments=(name,)))
        await found.wait_event(WorkStarted)
        assert _processes(name) == 1
        name = secrets.token_hex(16)
        assert await found.output(await found.run(code, arguments=(name,))) == b"True\n"
        assert _processes(name) == 0


def _processes(argument: str) -> int:
    """Processes of this machine that were called with that argument."""
    return sum(argument.encode() in _words(path) for path in Path("/proc").glob("[0-9]*/cmdline"))


def _words(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\0")
    except OSError:
        return []  # it has ended


async def test_the_network_is_out_of_reach_unless_it_was_asked_for() -> None:
    code = b"import socket\nprint([name for _, name in socket.if_nameindex()])"
    async with crew() as found:
        assert await found.output(await found.run(code)) == b"['lo']\n"
        asked = RunLimits(seconds=20, memory=LIMITS.memory, network=True)
        if len(os.listdir("/sys/class/net")) > 1:
            assert await found.output(await found.run(code, limits=asked)) != b"['lo']\n"


# --- who may know, and who is refused ---------------------------------------------------------------------------------


async def test_a_placement_that_was_here_before_is_refused_told_once_and_logged() -> None:
    async with crew() as found:
        signed = found.sign(HELLO)
        placement = await found.place(signed)
        await found.result(placement)
        for _ in range(3):
            with pytest.raises(Refused) as caught:
                await found.hand_over(signed, placement)
            assert caught.value.reason is Reason.WORK_REPLAYED
        assert (await found.logged()).count("refused") == 1
        assert sum(isinstance(event, WorkRefused) for event in found.events) == 1


async def test_a_result_is_for_its_scheduler_and_its_originators_only() -> None:
    async with crew() as found:
        placement = await found.place(found.sign(HELLO))
        await found.result(placement)
        peer = await found.alice.wait_peer("bob")
        with pytest.raises(NotAllowed):
            await peer.call(contract.RESULT, contract.pack_hash(placement.hash))


async def test_a_revoked_scheduler_ends_its_runs_at_once() -> None:
    async with crew() as found:
        placement = await found.place(found.sign(SLEEP))
        await found.wait_event(WorkStarted)
        await found.alice.authority.revoke(["carol"], reason="key-compromise")
        with trio.fail_after(10):
            ended = await found.wait_event(WorkEnded)
        assert ended.state == "stopped"
        assert await found.logged() == ["start", "stop", "end"]
        stops = [entry.body for entry in await found.bob.audit.read(node="bob") if entry.body.get("event") == "stop"]
        assert stops[0]["reason"] == Reason.SCHEDULER_REVOKED.name.lower()
        assert stops[0]["placement"] == placement.hash.hex()


async def test_a_scheduler_that_is_revoked_while_the_artifact_comes_starts_nothing() -> None:
    coming, go = trio.Event(), trio.Event()

    async def slowly(stream: Stream) -> None:
        await stream.send_all(HELLO[:1])
        coming.set()
        await go.wait()

    async with crew() as found:
        found.files[sha256(HELLO)] = slowly
        await found.place(found.sign(HELLO))
        await coming.wait()
        await found.alice.authority.revoke(["carol"], reason="key-compromise")
        ended = await found.wait_event(WorkEnded)
        assert ended.state == "not_started"
        assert not any(isinstance(event, WorkStarted) for event in found.events)


async def test_a_scheduler_that_is_revoked_before_the_start_is_written_down_starts_nothing_and_leaves_nothing() -> None:
    """The launcher has the artifact by then, and waits for the word to go."""
    equipped: list[Launcher] = []

    async with crew() as found:
        worker = worker_of(found)
        get = worker._launchers.get

        async def get_late(*, network: bool) -> Launcher:
            launcher = await get(network=network)
            equipped.append(launcher)
            await found.alice.authority.revoke(["carol"], reason="key-compromise")
            await found.wait_event(RevocationsChanged)
            return launcher

        worker._launchers.get = get_late  # type: ignore[method-assign]
        await found.place(found.sign(HELLO))
        ended = await found.wait_event(WorkEnded)
        assert ended.state == "not_started"
        assert not any(isinstance(event, WorkStarted) for event in found.events)
        assert [launcher.process.poll() is None for launcher in equipped] == [False]


async def test_a_task_is_for_libraries_and_is_not_run_by_the_worker() -> None:
    async with crew() as found:
        result = await found.run(b"task", kind=ArtifactType.TASK)
        assert (result.state, result.reason) == (WorkState.NOT_STARTED, Reason.UNSUPPORTED)


