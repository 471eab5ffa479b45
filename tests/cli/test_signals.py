"""Ctrl-C ends every command within two seconds, also while a thread is busy with something slow."""

import signal
import sys
from pathlib import Path

import pytest
import trio

from tests.cli.node_kit import Machine, make_pair
from tests.cli.script_kit import OVERLAY

BUSY = """
import time, trio
from overlay.app.cli.common import run

async def work() -> None:
    print("busy", flush=True)
    await trio.to_thread.run_sync(time.sleep, 60)

run(work)
"""


async def test_a_busy_thread_does_not_hold_up_ctrl_c(tmp_path: Path) -> None:
    async with Machine(tmp_path / "a").process([sys.executable, "-c", BUSY]) as process:
        await process.wait_line(lambda line: line == "busy")
        code, seconds = await process.end(signal.SIGINT)
    assert code == 130
    assert seconds < 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_command_that_waits_ends_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    alice, _ = await make_pair(tmp_path)
    async with alice.running():
        async with alice.process([*OVERLAY, "subscribe", "news", "--json"]) as process:
            with trio.fail_after(30):
                while not process.lines:  # it says nothing when it is ready
                    await alice.overlay("publish", "news", "x")
            code, seconds = await process.end(number)
        assert (code, seconds < 2) == (130, True)


async def test_a_reader_that_goes_ends_a_command_quietly(tmp_path: Path) -> None:
    script = f"{' '.join(OVERLAY)} config show | head -n 1"
    async with Machine(tmp_path / "a").process(["bash", "-o", "pipefail", "-c", script]) as process:
        assert (await process.wait_line(bool)).startswith("SETTING")
        assert (await process.end(signal.SIGCONT))[0] == 0
