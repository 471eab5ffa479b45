"""Local addresses for programs of this host: TCP ports, and Unix sockets for this user alone."""

import errno
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from overlay.core.forwarding import Place
from overlay.errors import HostLacks

BACKLOG: Final = 1024  # connections that the kernel keeps for us: thousands may come at once
SOCKET_MODE: Final = 0o600


@asynccontextmanager
async def listening(place: Place) -> AsyncIterator[tuple[trio.SocketListener, Place]]:
    """A listener for the length of the block, and where it is: port 0 has become a real one.

    Raises:
        HostLacks: there cannot be listened.
    """
    try:
        listener = await (_unix(place.path) if place.path else _tcp(place))
    except OSError as error:
        why = error.strerror or str(error)
        raise HostLacks(f"cannot listen on {place}: {why}", hint="choose another address or port") from None
    async with listener:
        try:
            yield listener, place if place.path else Place(host=place.host, port=listener.socket.getsockname()[1])
        finally:
            if place.path:
                _remove_stale(place.path)


async def _tcp(place: Place) -> trio.SocketListener:
    """A name with several addresses is listened for on the first: port 0 would be another one on each."""
    first, *others = await trio.open_tcp_listeners(place.port, host=place.host, backlog=BACKLOG)
    for other in others:
        await other.aclose()
    return first


async def _unix(path: str) -> trio.SocketListener:
    """What a dead process left there is taken away; anything else is not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(0)
        if trial.connect_ex(path) in {0, errno.EAGAIN}:  # somebody listens; or has too much to do (connect(2))
            raise OSError(errno.EADDRINUSE, "another process listens there")
    _remove_stale(path)
    made = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await made.bind(path)
        os.chmod(path, SOCKET_MODE)  # before listen() nobody can connect
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return trio.SocketListener(made)


def _remove_stale(path: str) -> None:
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        return
