"""What trio does for other threads: a context that a task holds open for them, and the operations that they ask for in it.

Whoever asks has the futures; nothing here knows who that is. Only `soon` and what stands on it may be called from elsewhere.
"""

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

import trio

from overlay.errors import OverlayError, UsageError
from overlay.net.background import background

T = TypeVar("T")
Operation = Callable[[], Awaitable[T]]
Opening = Callable[[], AbstractAsyncContextManager[T]]


class BrokenOff(Exception):
    """Raised in a context whose user left it by an exception."""


class Held(Generic[T]):
    """A context that is held open until somebody has it left. `opened` has its value, `ended` is settled when all is over."""

    def __init__(self, what: str) -> None:
        self.opened: Future[T] = Future()
        self.ended: Future[None] = Future()
        self.token: Future[trio.lowlevel.TrioToken] = Future()
        self.thread: threading.Thread | None = None  # trio's
        self._what = what  # in errors
        self._process = os.getpid()
        self._opening = trio.CancelScope()
        self._leave = trio.Event()
        self._broken = False
        self._tasks: trio.Nursery | None = None
        self._failure: BaseException | None = None

    # --- from any thread --------------------------------------------------------------------------------------------

    def soon(self, step: Callable[[], object]) -> bool:
        """Have this done in trio's thread: False if it ended, or is the thread of another process. A finalizer may call it."""
        if os.getpid() != self._process or self.token.exception() is not None:
            return False
        try:
            self.token.result().run_sync_soon(step)
        except trio.RunFinishedError:
            return False
        return True

    def leave(self, *, broken: bool = False) -> None:
        """Have the context left, or its opening given up; returns at once."""
        if os.getpid() != self._process and not self.ended.done():
            self.end()  # there is no thread here
        self.soon(lambda: self._leave_now(broken=broken))

    def _leave_now(self, *, broken: bool) -> None:
        self._broken = broken
        self._leave.set()
        if not self.opened.done():
            self._opening.cancel()

    def closed_error(self) -> OverlayError:
        """For whoever asks too late."""
        if os.getpid() != self._process:
            return UsageError(f"the {self._what} belongs to another process", hint="open it after fork(), not before")
        error = UsageError(f"the {self._what} is closed", hint="use it inside its `with` block")
        error.__cause__ = self._failure
        return error

    # --- in trio ----------------------------------------------------------------------------------------------------

    async def hold(self, opening: Opening[T]) -> None:
        """Open it, and leave it when told. What it raises is for whoever opened it: `opened` or `ended` has it in the end."""
        self.is_here()
        try:
            with self._opening:
                async with opening() as value, self.lend(value):
                    await self._leave.wait()
                    if self._broken:
                        raise BrokenOff
        except BrokenOff:
            return
        except Exception as error:  # noqa: BLE001 - see above
            self._failure = error

    @asynccontextmanager
    async def lend(self, value: T) -> AsyncIterator[None]:
        """Others may use the value until the end of the block; what they then still wait for is cancelled."""
        async with background() as tasks:
            self._tasks = tasks
            self.opened.set_result(value)
            try:
                yield
            finally:
                self._tasks = None

    def is_here(self) -> None:
        """This is the thread."""
        self.thread = threading.current_thread()
        self.token.set_result(trio.lowlevel.current_trio_token())

    def start(self, run: Callable[[], Awaitable[None]]) -> bool:
        """A task that ends with the context at the latest; False if the context is not open."""
        if self._tasks is None:
            return False
        self._tasks.start_soon(run)
        return True

    def end(self, failure: BaseException | None = None) -> None:
        """Nothing goes on any more: settle what was not."""
        failure = self._failure = self._failure or failure
        if not self.token.done():
            self.token.set_exception(self.closed_error())
        if not self.opened.done():
            self.opened.set_exception(failure or self.closed_error())
            failure = None  # told
        if failure is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(failure)


class Work(Generic[T]):
    """An operation in a context that is held. `done` is settled when trio has left it, in whatever way."""

    def __init__(self, held: Held[Any], operation: Operation[T]) -> None:
        self.done: Future[T] = Future()
        self._held = held
        self._operation = operation
        self._scope = trio.CancelScope()

    def begin(self) -> None:
        """In trio."""
        if not self._held.start(self._run):
            self.done.set_exception(self._held.closed_error())

    def cancel(self) -> None:
        """From any thread; returns at once."""
        self._held.soon(self._scope.cancel)

    async def _run(self) -> None:
        try:
            with self._scope:
                self.done.set_result(await self._operation())
        except Exception as error:  # noqa: BLE001 - it goes to whoever asked
            self.done.set_exception(error)
        finally:
            if not self.done.done():  # cancelled
                self.done.set_exception(self._held.closed_error())
