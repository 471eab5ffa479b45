"""Services that are plain functions: trio calls them in worker threads, of which there are so many."""

import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, Final, TypeVar, cast

import trio

from overlay.net.request import Handler, Request

LAST_WORDS: Final = 0.5  # seconds that a generator has to end when nobody wants its parts any more: our guess
END: Final = object()
A = TypeVar("A")
R = TypeVar("R")
Service = Callable[[Request], bytes | Iterator[bytes]]


class Parts:
    """A generator that one thread after another moves on; it is closed when it stands still."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._turn = threading.Lock()

    def next(self) -> Any:
        """The next part, or END."""
        with self._turn:
            return next(self._parts, END)

    def close(self) -> None:
        """Waits for a step that nobody waits for any more."""
        with self._turn:
            if inspect.isgenerator(self._parts):
                self._parts.close()


class ServiceThreads:
    """Where the services of one node run."""

    def __init__(self, count: int) -> None:
        self._limiter = trio.CapacityLimiter(count)

    def handler(self, service: Service) -> Handler:
        """A plain function, or a plain generator function, as trio calls services."""

        async def handle(request: Request) -> bytes:
            return cast("bytes", await self.run(partial(service, request)))

        async def handle_parts(request: Request) -> AsyncIterator[bytes]:
            parts = Parts(cast("Iterator[bytes]", service(request)))  # it begins with the first step
            try:
                while (part := await self.run(parts.next)) is not END:
                    yield part
            finally:
                with trio.move_on_after(LAST_WORDS, shield=True):
                    await trio.to_thread.run_sync(parts.close, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))

        return handle_parts if inspect.isgeneratorfunction(service) else handle

    async def run(self, function: Callable[[], R]) -> R:
        """Call it in a thread; being cancelled leaves the thread to itself. Raises what the function raises."""

        def run() -> R:
            try:
                return function()
            except Exception:
                raise
            except BaseException as error:  # sys.exit() ends a thread, not the node
                raise RuntimeError(f"{type(error).__name__} in a worker thread") from error

        return await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=self._limiter)
