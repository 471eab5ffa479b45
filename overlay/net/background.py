"""Nurseries that nobody sees: tasks that live as long as an `async with` block, and the only broad `except` of the shell.

The caller's own exception leaves the block bare, and goes before ours. What a background task raises is our bug: it ends
the block as InternalError, never in silence, also where the block was being cancelled.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from overlay.errors import InternalError


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """Tasks that end with the block; an exception of the block itself comes out as it was raised."""
    caller: BaseException | None = None
    bug: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except trio.Cancelled:
                raise
            except BaseExceptionGroup as group:  # perhaps with cancellation in it, which must go on through the nursery
                cancelled, rest = group.split(trio.Cancelled)
                caller = group if cancelled is None else rest
                if cancelled is not None:
                    raise cancelled from None
            except BaseException as error:  # noqa: BLE001
                caller = error
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as failed:
        bug, _ = failed.split(Exception)
        if bug is None and caller is None:
            raise
    if caller is not None:
        raise caller
    if bug is not None:
        raise InternalError("a background task failed") from bug


def spawn(nursery: trio.Nursery, function: Callable[..., Awaitable[object]], *arguments: object) -> None:
    """Start a task, unless its nursery has ended: what comes in while a node goes down is for nobody any more."""
    try:
        nursery.start_soon(function, *arguments)
    except RuntimeError:  # trio's word for a nursery that is closed
        return
