"""The thread below `overlay.blocking` and `overlay.aio`, with contexts that behave badly."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from overlay.app.bridge.held import Opening, Work
from overlay.app.bridge.home import HomeLoop
from overlay.app.bridge.portal import Portal, open_thread
from overlay.app.bridge.waiting import Opened, result_of
from overlay.errors import UsageError
from tests.shell.bridge_kit import PATIENCE, InThread, script

HEAD = """
import threading, trio
from contextlib import asynccontextmanager
from functools import partial
from overlay.app.bridge.portal import open_thread
from overlay.app.bridge.waiting import Opened
async def stay():
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()
"""
WILL_NOT_END = HEAD + """
@asynccontextmanager
async def stubborn():
    try:
        yield
    finally:
        await stay()
opened = Opened(partial(open_thread, stubborn), lambda portal: portal)
"""
IN_A_BLOCK = WILL_NOT_END + """
with opened:
    print("open", flush=True)
    threading.Event().wait()
"""
FORGOTTEN = WILL_NOT_END + """
opened.__enter__()
print("open", flush=True)
"""
WILL_NOT_OPEN = HEAD + """
@asynccontextmanager
async def stubborn():
    print("open", flush=True)
    await stay()
    yield
with Opened(partial(open_thread, stubborn), lambda portal: portal):
    pass
"""
IN_A_BLOCK_OF_ASYNCIO = WILL_NOT_END.replace("bridge.waiting", "bridge.awaiting") + """
import asyncio
async def main():
    async with opened:
        print("open", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def opened(opening: Opening[str]) -> AbstractContextManager[Portal[str]]:
    return Opened(partial(open_thread, opening), lambda portal: portal)


@pytest.mark.parametrize("text", [IN_A_BLOCK, WILL_NOT_OPEN, IN_A_BLOCK_OF_ASYNCIO])
def test_ctrl_c_waits_no_longer_than_it_promises(text: str, tmp_path: Path) -> None:
    with script(text, home=tmp_path) as running:
        running.wait_line("open")
        assert running.interrupt() < 2
        assert running.end()[0] == -2


def test_the_interpreter_ends_also_when_a_context_does_not(tmp_path: Path) -> None:
    with script(FORGOTTEN, home=tmp_path) as running:
        running.wait_line("open")
        assert running.end() == (0, "")


def test_what_leaving_raises_comes_out_of_the_block() -> None:
    @asynccontextmanager
    async def fails() -> AsyncIterator[str]:
        yield "it"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), opened(fails) as portal:
        assert portal.value == "it"
    with pytest.raises(UsageError, match="the node is closed") as found:
        portal.start(partial(trio.sleep, 0))
    assert isinstance(found.value.__cause__, ZeroDivisionError)


def test_what_opening_raises_comes_out_of_the_block() -> None:
    @asynccontextmanager
    async def fails() -> AsyncIterator[str]:
        raise ZeroDivisionError
        yield "it"

    with pytest.raises(ZeroDivisionError), opened(fails):
        pass


def test_a_context_within_another_ends_with_it_whoever_holds_it() -> None:
    ended = threading.Event()

    @asynccontextmanager
    async def outer() -> AsyncIterator[str]:
        yield "outer"
        assert ended.is_set()

    @asynccontextmanager
    async def inner() -> AsyncIterator[str]:
        try:
            yield "inner"
        finally:
            ended.set()

    with opened(outer) as portal:
        held = portal.open("inner one", inner)
        assert held.opened.result(PATIENCE) == "inner"
        waiting = held.start(trio.sleep_forever)
    held.ended.result(PATIENCE)
    with pytest.raises(UsageError, match="the inner one is closed"):
        result_of(waiting)
    with pytest.raises(UsageError, match="the inner one is closed"):
        held.start(trio.sleep_forever)


def test_ctrl_c_cancels_what_was_waited_for() -> None:
    began, left = threading.Event(), threading.Event()

    async def stay() -> None:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            left.set()

    def interrupt() -> None:
        began.wait(PATIENCE)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    @asynccontextmanager
    async def outer() -> AsyncIterator[str]:
        yield "outer"

    with opened(outer) as portal:
        interrupting = InThread(interrupt)
        with pytest.raises(KeyboardInterrupt):
            result_of(portal.start(stay))
        interrupting.ended()
        assert left.wait(PATIENCE)


def test_cancelled_work_is_left_and_the_context_goes_on() -> None:
    @asynccontextmanager
    async def outer() -> AsyncIterator[str]:
        yield "outer"

    with opened(outer) as portal:
        work = portal.start(trio.sleep_forever)
        work.cancel()
        assert isinstance(work.done.exception(PATIENCE), UsageError)
        result_of(portal.start(partial(trio.sleep, 0)))


def test_a_coroutine_that_ends_its_program_does_not_end_trio() -> None:
    @asynccontextmanager
    async def outer() -> AsyncIterator[str]:
        yield "outer"

    async def leave() -> None:
        raise SystemExit(3)

    async def program(portal: Portal[str]) -> None:
        works.append(portal.start(partial(HomeLoop().run, leave)))
        await asyncio.Event().wait()

    works: list[Work[None]] = []
    with opened(outer) as portal:
        with pytest.raises(SystemExit):
            asyncio.run(program(portal))
        with pytest.raises(RuntimeError, match="SystemExit in a service"):
            works[0].done.result(PATIENCE)
        result_of(portal.start(partial(trio.sleep, 0)))
