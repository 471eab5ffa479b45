"""Services that are coroutines of asyncio: trio has them run in the loop of the user, from another thread."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar, cast

import trio

from overlay.net.request import Handler, Request

LAST_WORDS: Final = 0.5  # seconds that a cancelled service has to end: our guess
END: Final = object()
T = TypeVar("T")
Service = Callable[[Request], Coroutine[Any, Any, bytes] | AsyncGenerator[bytes, None]]


class HomeLoop:
    """The loop that runs when this is made, for tasks of trio that want something done there."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()  # asyncio itself holds on to none

    def soon(self, step: Callable[..., object], *arguments: object) -> None:
        """Do this there. Raises RuntimeError if the loop was closed."""
        self._loop.call_soon_threadsafe(step, *arguments)

    def handler(self, service: Service) -> Handler:
        """A coroutine function, or an async generator function, as trio calls services."""

        async def handle(request: Request) -> bytes:
            return await self.run(partial(cast("Callable[[Request], Coroutine[Any, Any, bytes]]", service), request))

        async def handle_parts(request: Request) -> AsyncIterator[bytes]:
            parts = cast("AsyncGenerator[bytes, None]", service(request))  # it begins with the first step
            try:
                while (part := await self.run(partial(_next, parts))) is not END:
                    yield part
            finally:
                with trio.move_on_after(LAST_WORDS, shield=True):
                    await self.run(partial(_close, parts))

        return handle_parts if inspect.isasyncgenfunction(service) else handle

    async def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine there. Being cancelled cancels it, and waits a little for its end. Raises what it raises."""
        token = trio.lowlevel.current_trio_token()
        tasks: list[asyncio.Task[T]] = []
        ended = trio.Event()

        def finished(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(ended.set)

        def cancel() -> None:
            tasks[0].cancel()

        def begin() -> None:
            task = self._loop.create_task(make())
            tasks.append(task)
            self._tasks.add(task)
            task.add_done_callback(finished)

        self.soon(begin)
        try:
            await ended.wait()
        except trio.Cancelled:
            with suppress(RuntimeError), trio.move_on_after(LAST_WORDS, shield=True):
                self.soon(cancel)
                await ended.wait()
            raise
        return _result(tasks[0])


async def _next(parts: AsyncGenerator[bytes, None]) -> Any:
    return await anext(parts, END)


async def _close(parts: AsyncGenerator[bytes, None]) -> None:
    await parts.aclose()


def _result(task: "asyncio.Task[T]") -> T:
    """Nothing that would end trio gets there: a service may end itself, and its loop, but not the node."""
    if task.cancelled():
        raise RuntimeError("the service was cancelled")
    error = task.exception()
    if error is not None and not isinstance(error, Exception):
        raise RuntimeError(f"{type(error).__name__} in a service") from error
    return task.result()
