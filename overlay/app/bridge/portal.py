"""The way to trio from other threads: a thread that runs it, and portals through which it is asked.

`overlay.blocking` and `overlay.aio` stand on it. A portal that was forgotten is garbage, and its context is left in order; what
is open when the interpreter ends is left then.
"""

import atexit
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent import futures
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, TypeVar

import trio

from overlay.app.bridge.held import Held, Opening, Operation, Work
from overlay.errors import DeadlineExceeded, UsageError

PATIENCE: Final = 1.5  # seconds that an interrupted program, or one that ends, gives its nodes: our guess, so that 2 s hold
T = TypeVar("T")
U = TypeVar("U")

_threads: set[Held[Any]] = set()  # what is open, each in a thread of its own


class Portal(Generic[T]):
    """What another thread has of a context in trio."""

    def __init__(self, held: Held[T], outer: "Portal[Any] | None" = None) -> None:
        self._held = held
        self._outer = outer  # is not garbage as long as this is not
        weakref.finalize(self, held.leave).atexit = False

    @property
    def opened(self) -> "futures.Future[T]":
        """Settled when the context is open, or could not be opened."""
        return self._held.opened

    @property
    def ended(self) -> "futures.Future[None]":
        """Settled when nothing of the context is left; with what leaving it raised."""
        return self._held.ended

    @property
    def value(self) -> T:
        """What the context gave."""
        return self._held.opened.result()

    def soon(self, step: Callable[[], object]) -> None:
        """Have this done there, without hearing of it."""
        self._held.soon(step)

    def start(self, operation: Operation[U]) -> Work[U]:
        """Have something done in the context. Raises UsageError if trio has ended."""
        work = Work(self._held, operation)
        if not self._held.soon(work.begin):
            raise self._held.closed_error()
        return work

    def open(self, what: str, opening: Opening[U]) -> "Portal[U]":
        """A context that ends with this one at the latest. Raises UsageError if trio has ended."""
        inner: Held[U] = Held(what)

        async def hold() -> None:
            try:
                await inner.hold(opening)
            finally:
                inner.end()

        def begin() -> None:
            if not self._held.start(hold):
                inner.end(self._held.closed_error())

        if not self._held.soon(begin):
            raise self._held.closed_error()
        return Portal(inner, outer=self)

    def leave(self, *, broken: bool = False) -> None:
        """Have it left; `broken` if by an exception. Returns at once, `ended` tells when it is done."""
        self._held.leave(broken=broken)

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        _threads.discard(self._held)

    def check_thread(self) -> None:
        """Whoever is about to wait must not be whom he waits for. Raises UsageError."""
        if threading.current_thread() is self._held.thread:
            raise UsageError("an observer must not wait for its own node", hint="hand the event to a thread of your own")


def open_thread(opening: Opening[T]) -> Portal[T]:
    """A thread that runs trio as long as the context is open, which it opens now."""
    held: Held[T] = Held("node")
    threading.Thread(target=_run, args=(held, opening), name="overlay", daemon=True).start()
    return Portal(held)


def _run(held: Held[T], opening: Opening[T]) -> None:
    failure: BaseException | None = None
    _threads.add(held)
    try:
        trio.run(held.hold, opening)
    except BaseException as error:  # noqa: BLE001 - a bug, for whoever opened it
        failure = error
    _threads.discard(held)
    held.end(failure)


def ends_soon(portal: Portal[Any], patience: float) -> bool:
    """Wait for the end so many seconds; after that it is left to itself, also when the interpreter ends."""
    futures.wait([portal.ended], timeout=patience)
    if not portal.ended.done():
        portal.abandon()
    return portal.ended.done()


@atexit.register
def leave_all() -> None:
    """Nodes that nobody closed say goodbye, as far as that takes no longer than we are patient."""
    left = tuple(_threads)
    for held in left:
        held.leave()
    futures.wait([held.ended for held in left], timeout=PATIENCE)


os.register_at_fork(after_in_child=_threads.clear)


@asynccontextmanager
async def lent(what: str, value: T) -> AsyncIterator[Portal[T]]:
    """A portal to something that a task of trio has, until the end of the block."""
    held: Held[T] = Held(what)
    held.is_here()
    try:
        async with held.lend(value):
            yield Portal(held)
    finally:
        held.end()


async def within(seconds: float | None, operation: Operation[T], late: str) -> T:
    """The operation, in time. Raises DeadlineExceeded with that text."""
    if seconds is None:
        return await operation()
    with trio.move_on_after(seconds):
        return await operation()
    raise DeadlineExceeded(f"{late} within {seconds:g} s")


class Next(Generic[T]):
    """The items of an async iterator, one after the other. Whoever gives up waiting loses none: the next to ask gets it."""

    def __init__(self, portal: Portal[AsyncIterator[T]]) -> None:
        self._portal = portal
        self._work: Work[T | None] | None = None

    def work(self) -> Work[T | None]:
        """What is waited for: an item, or None at the end. Raises UsageError if nobody listens any more."""
        if self._work is None:
            iterator = self._portal.value
            self._work = self._portal.start(lambda: anext(iterator, None))
        return self._work

    def taken(self) -> None:
        """It was delivered; the next one, please."""
        self._work = None
