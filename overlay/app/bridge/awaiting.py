"""How asyncio waits for trio's thread: for a result, in an `async with` statement, for the next item."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent import futures
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from overlay.app.bridge.held import Opening, Operation, Work
from overlay.app.bridge.portal import PATIENCE, Next, Portal

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
S = TypeVar("S")


def settling(future: "futures.Future[Any]") -> "asyncio.Future[None]":
    """Done when the other is; without its result, and without telling it of a cancellation."""
    loop = asyncio.get_running_loop()
    told = loop.create_future()

    def tell() -> None:
        if not told.done():
            told.set_result(None)

    def wake(_: object) -> None:
        with suppress(RuntimeError):  # the loop was closed: nobody waits
            loop.call_soon_threadsafe(tell)

    future.add_done_callback(wake)
    return told


async def until(future: "futures.Future[Any]", seconds: float | None = None) -> None:
    """Until it is settled, or so many seconds; a cancellation meanwhile is raised in the end."""
    told = settling(future)
    cancelled: asyncio.CancelledError | None = None
    while not told.done():
        try:
            if not (await asyncio.wait([told], timeout=seconds))[0]:
                break
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def result_of(work: Work[T]) -> T:
    """What it comes to. A cancellation is carried on to trio, and goes on here when trio has left the work."""
    try:
        await settling(work.done)
    except asyncio.CancelledError:
        work.cancel()
        await until(work.done)
        raise
    return work.done.result()


class Opened(AbstractAsyncContextManager[V], Generic[T, V]):
    """What an `async with` statement opens in trio's thread, and leaves there."""

    def __init__(self, start: Callable[[], Portal[T]], view: Callable[[Portal[T]], V]) -> None:
        self._start = start
        self._view = view
        self._portal: Portal[T] | None = None

    async def __aenter__(self) -> V:
        portal = self._portal = self._start()
        try:
            await settling(portal.opened)
        except asyncio.CancelledError:
            portal.leave()
            await self._ended_soon(portal)
            raise
        portal.opened.result()
        return self._view(portal)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        portal, self._portal = self._portal, None
        assert portal is not None
        portal.leave(broken=error is not None)
        if isinstance(error, asyncio.CancelledError):  # perhaps Ctrl-C
            await self._ended_soon(portal)
        else:
            await until(portal.ended)
        if portal.ended.done():
            portal.ended.result()

    @staticmethod
    async def _ended_soon(portal: Portal[T]) -> None:
        await until(portal.ended, PATIENCE)
        if not portal.ended.done():
            portal.abandon()


class Awaiting(Generic[T]):
    """Whoever has things done in a context of trio's thread, and awaits them."""

    def __init__(self, portal: Portal[T]) -> None:
        self._portal = portal

    async def _ask(self, operation: Operation[U]) -> U:
        """The result of an operation. Raises UsageError if the context is closed."""
        return await result_of(self._portal.start(operation))

    def _open(self, what: str, opening: Opening[S], view: Callable[[Portal[S]], V]) -> Opened[S, V]:
        """A context inside this one, and what the user shall have of it."""
        return Opened(lambda: self._portal.open(what, opening), view)


class Items(AsyncIterator[T], Generic[T]):
    """What comes, one after the other. Several tasks may share it: each item goes to one. None is lost to a cancellation."""

    def __init__(self, portal: Portal[Any]) -> None:
        self._next: Next[T] = Next(portal)
        self._turn = asyncio.Lock()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        async with self._turn:
            work = self._next.work()
            await settling(work.done)
            self._next.taken()
            item = work.done.result()
        if item is None:
            raise StopAsyncIteration
        return item
