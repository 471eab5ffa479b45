"""Nurseries that nobody sees: tasks that live as long as an `async with` block, and the only broad `except` of the shell.

The caller's own exception leaves the block bare. What a background task raises is our bug: it ends the block as
InternalError, never in silence.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from overlay.errors import InternalError


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """Tasks that end with the block; an exception of the block itself comes out as it was raised."""
    caller: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:  # noqa: BLE001
                caller = error
            nursery.cancel_scope.cancel()
    except* Exception as group:
        if caller is None:
            raise InternalError("a background task failed") from group
    if caller is not None:
        raise caller
