"""How plain threads wait for trio's: for a result, in a `with` statement, for the next item."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from overlay.app.bridge.held import Opening, Operation, Work
from overlay.app.bridge.portal import PATIENCE, Next, Portal, ends_soon, within
from overlay.errors import DeadlineExceeded

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
S = TypeVar("S")


def result_of(work: Work[T]) -> T:
    """What it comes to. If the wait is interrupted, by Ctrl-C above all, it is cancelled."""
    try:
        return work.done.result()
    except BaseException:
        if not work.done.done():
            work.cancel()
        raise


class Opened(AbstractContextManager[V], Generic[T, V]):
    """What a `with` statement opens in trio's thread, and leaves there."""

    def __init__(
        self, start: Callable[[], Portal[T]], view: Callable[[Portal[T]], V], *, patience: float = PATIENCE
    ) -> None:
        self._start = start
        self._view = view
        self._patience = patience  # seconds, after Ctrl-C
        self._portal: Portal[T] | None = None

    def __enter__(self) -> V:
        portal = self._portal = self._start()
        try:
            portal.opened.result()
        except KeyboardInterrupt:
            portal.leave()
            ends_soon(portal, self._patience)
            raise
        return self._view(portal)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        portal, self._portal = self._portal, None
        assert portal is not None
        portal.leave(broken=error is not None)
        if not isinstance(error, KeyboardInterrupt) or ends_soon(portal, self._patience):
            portal.ended.result()


class Waiting(Generic[T]):
    """Whoever has things done in a context of trio's thread, and waits for them."""

    def __init__(self, portal: Portal[T]) -> None:
        self._portal = portal

    def _ask(self, operation: Operation[U], *, timeout: float | None = None, late: str = "it was not done") -> U:
        """The result of an operation. Raises DeadlineExceeded with that text, and UsageError if the context is closed."""
        self._portal.check_thread()
        return result_of(self._portal.start(partial(within, timeout, operation, late)))

    def _open(self, what: str, opening: Opening[S], view: Callable[[Portal[S]], V]) -> Opened[S, V]:
        """A context inside this one, and what the user shall have of it."""

        def start() -> Portal[S]:
            self._portal.check_thread()
            return self._portal.open(what, opening)

        return Opened(start, view, patience=0.0)  # after Ctrl-C the block outside sees to it


class Items(Iterator[T], Generic[T]):
    """What comes, one after the other. Several threads may share it: each item goes to one of them."""

    def __init__(self, portal: Portal[Any]) -> None:
        self._portal = portal
        self._next: Next[T] = Next(portal)
        self._turn = threading.Lock()

    def __next__(self) -> T:
        return self.next()

    def next(self, *, timeout: float | None = None) -> T:
        """The next item. Waits for one, for so many seconds at most; none is lost when there was none in time.

        Raises:
            StopIteration: there will be none.
            DeadlineExceeded: there was none in time.
            UsageError: used after its `with` block.
        """
        self._portal.check_thread()
        until = None if timeout is None else time.monotonic() + timeout
        if not self._turn.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
            raise DeadlineExceeded("another thread waits for items, and none came")
        try:
            return self._take(self._next.work(), until)
        finally:
            self._turn.release()

    def _take(self, work: Work[T | None], until: float | None) -> T:
        futures.wait([work.done], None if until is None else max(until - time.monotonic(), 0))
        if not work.done.done():
            raise DeadlineExceeded("nothing came in time")
        self._next.taken()
        item = work.done.result()
        if item is None:
            raise StopIteration
        return item
