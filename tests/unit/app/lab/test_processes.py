"""Processes that end with us: real ones, and launchers that are really killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from overlay.app.lab.processes import CHILD, LINE_MAX, Child, end_all, start
from overlay.errors import LocalProtocolError, OverlayError

ROOT = Path(__file__).parents[4]
SLEEP = [sys.executable, "-ISc", "import signal; print('up', flush=True); signal.pause()"]
STUBBORN = [
    sys.executable, "-ISc",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()",
]  # fmt: skip


def python(code: str, folder: Path, **options: bool) -> Child:
    return start([sys.executable, "-ISc", code], name="child", folder=folder, **options)


async def up(child: Child) -> Child:
    assert await anext(child.lines) == "up"
    return child


async def gone(*pidfds: int, within: float = 2.0) -> None:
    """Until the processes behind these descriptors have ended."""
    with trio.fail_after(within):
        for pidfd in pidfds:
            await trio.lowlevel.wait_readable(pidfd)
            os.close(pidfd)


async def test_what_a_child_writes_is_read_line_by_line(tmp_path: Path) -> None:
    child = python("import sys; print('one'); print(); sys.stdout.write('no end')", tmp_path)
    assert [line async for line in child.lines] == ["one", "", "no end"]
    assert await child.wait() == 0


async def test_standard_error_and_unread_output_go_to_files(tmp_path: Path) -> None:
    child = python("import sys; print('out'); print('err', file=sys.stderr)", tmp_path, read_output=False)
    await child.wait()
    assert (tmp_path / "child.out").read_text() == "out\n"
    assert child.log.read_text() == "err\n"
    with pytest.raises(LocalProtocolError):
        _ = child.lines


async def test_a_line_without_end_is_an_error_and_not_more_and_more_memory(tmp_path: Path) -> None:
    child = python(f"print('x' * {LINE_MAX * 4})", tmp_path)
    with pytest.raises(OverlayError, match="line"):
        await anext(child.lines)
    await child.end()


async def test_the_return_code_tells_how_it_ended(tmp_path: Path) -> None:
    assert await python("raise SystemExit(7)", tmp_path).wait() == 7
    child = await up(start(SLEEP, name="sleep", folder=tmp_path))
    assert child.returncode is None
    assert await child.kill() == -signal.SIGKILL


async def test_several_tasks_may_wait_for_one_child(tmp_path: Path) -> None:
    child = await up(start(SLEEP, name="sleep", folder=tmp_path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.wait)
        nursery.start_soon(child.wait)
        await trio.testing.wait_all_tasks_blocked()
        child.send_signal(signal.SIGTERM)
    assert child.returncode == -signal.SIGTERM


async def test_a_program_that_is_not_there_ends_with_127_and_a_line(tmp_path: Path) -> None:
    child = start(["/nonesuch/program"], name="none", folder=tmp_path)
    assert await child.wait() == 127
    assert child.log.read_text() == "/nonesuch/program: No such file or directory\n"


async def test_stopping_is_polite_at_first_and_certain_in_the_end(tmp_path: Path) -> None:
    polite = await up(start(SLEEP, name="polite", folder=tmp_path))
    stubborn = await up(start(STUBBORN, name="stubborn", folder=tmp_path))
    await end_all([polite, stubborn], grace=0.2)
    assert (polite.returncode, stubborn.returncode) == (-signal.SIGTERM, -signal.SIGKILL)


async def test_stopping_is_done_even_when_cancelled(tmp_path: Path) -> None:
    child = await up(start(SLEEP, name="sleep", folder=tmp_path))
    with trio.CancelScope() as scope:
        scope.cancel()
        await child.stop()
    assert child.returncode == -signal.SIGTERM


async def test_what_a_stopped_child_wrote_can_still_be_read_until_it_is_ended(tmp_path: Path) -> None:
    child = start(SLEEP, name="sleep", folder=tmp_path)
    await up(child)
    await child.stop()
    assert await anext(child.lines, "end") == "end"
    await child.end()
    assert await anext(child.lines, "closed") == "closed"


async def test_children_leave_no_descriptor_behind(tmp_path: Path) -> None:
    await python("pass", tmp_path).end()
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await python("print(1)", tmp_path).end()
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_children_are_made_in_the_main_thread_only(tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match="main thread"):
        await trio.to_thread.run_sync(lambda: start(SLEEP, name="sleep", folder=tmp_path))


async def test_a_child_has_a_session_of_its_own_so_that_ctrl_c_is_for_the_parent(tmp_path: Path) -> None:
    child = python("import os; print(os.getsid(0) == os.getpid())", tmp_path)
    assert await anext(child.lines) == "True"
    await child.end()


async def test_a_child_can_be_interrupted_also_when_we_ignore_it(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = python("import signal; print(signal.getsignal(2) is signal.default_int_handler)", tmp_path)
        assert await anext(child.lines) == "True"
    finally:
        signal.signal(signal.SIGINT, before)
        await child.end()


def test_a_child_whose_parent_is_gone_before_it_starts_kills_itself() -> None:
    argv = [sys.executable, "-IS", CHILD, "1", "-1", "-1", sys.executable, "-ISc", "print('alive')"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (-signal.SIGKILL, "")


LAUNCHER = """
import sys, trio
from pathlib import Path
from overlay.app.lab.processes import cancel_on_signal, end_all, start

async def main(folder, *argv):
    async with trio.open_nursery() as nursery:
        await nursery.start(cancel_on_signal, nursery.cancel_scope)
        children = [start(argv, name=f"child{number}", folder=Path(folder)) for number in range(3)]
        try:
            for child in children:
                await anext(child.lines)
            await trio.to_thread.run_sync(lambda: None)
            print(*(child.pid for child in children), flush=True)
            await trio.sleep_forever()
        finally:
            await end_all(children)

trio.run(main, *sys.argv[1:])
"""


def launched(folder: Path, *argv: str, ignore: bool = False) -> "tuple[subprocess.Popen[bytes], list[int]]":
    """A launcher, told nothing but what it needs, and descriptors of its three children."""
    command = [sys.executable, "-c", LAUNCHER, str(folder), *argv]
    if ignore:  # as a shell without job control does for what it puts into the background
        command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
    assert launcher.stdout is not None
    with launcher.stdout as output:
        return launcher, [os.pidfd_open(int(pid)) for pid in output.readline().split()]


async def test_a_launcher_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    launcher, children = launched(tmp_path, *STUBBORN)
    launcher.kill()
    await gone(*children)
    launcher.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ignore", [False, True])
async def test_a_launcher_that_is_asked_to_end_takes_its_children_along_within_two_seconds(
    tmp_path: Path, number: signal.Signals, ignore: bool
) -> None:
    launcher, children = launched(tmp_path, *STUBBORN, ignore=ignore)
    launcher.send_signal(number)
    await gone(*children)
    assert launcher.wait(timeout=2) == 0
