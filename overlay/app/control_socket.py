"""The control socket of a state folder: its address, however long the path, its lines, and who is at the other end."""

import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from overlay.app.wire_json import LINE_MAX
from overlay.errors import HostLacks, Refused, StateDamaged
from overlay.registry import Reason
from overlay.store.files import FILE_MODE
from overlay.store.state import CONTROL_SOCKET

PATH_MAX: Final = 107  # unix(7): sun_path has 108 bytes, the last one zero
CREDIT: Final = 64  # items of one request under way: a slow reader stops its own request, and no other
CHUNK: Final = 64 * 1024
BACKLOG: Final = 64
CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


@contextmanager
def socket_address(folder: Path) -> Iterator[str]:
    """A path to the folder's socket that fits into a socket address, good within the block."""
    path = str(folder / CONTROL_SOCKET)
    if len(os.fsencode(path)) <= PATH_MAX:
        yield path
        return
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{CONTROL_SOCKET}"
    finally:
        os.close(descriptor)


async def open_listener(folder: Path) -> trio.SocketListener:
    """Listen on the folder's socket, 0600. The caller holds the folder's lock, so a socket that is there is a dead one.

    Raises:
        StateDamaged: something else lies there.
        HostLacks: this file system takes no sockets.
    """
    _remove_stale(folder / CONTROL_SOCKET)
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket_address(folder) as address:
            await listener.bind(address)
        (folder / CONTROL_SOCKET).chmod(FILE_MODE)  # before listen() nobody can connect
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        hint = "put the state folder on a local file system with --state"
        raise HostLacks(f"no socket can be made in {folder}: {error.strerror}", hint=hint) from None
    return trio.SocketListener(listener)


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StateDamaged(f"{path} is not a socket", hint="move it away; the node makes its own")
        path.unlink()
    except FileNotFoundError:
        return


def user_of(stream: trio.SocketStream) -> int:
    """The effective user id of the process that connected (unix(7), SO_PEERCRED)."""
    data = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(data)[1])


class LineReader:
    """Lines of a stream, none longer than the limit."""

    def __init__(self, stream: trio.abc.ReceiveStream, limit: int = LINE_MAX) -> None:
        self._stream = stream
        self._limit = limit
        self._rest = bytearray()
        self._searched = 0

    async def next_line(self) -> bytes | None:
        """The next line without its end; None when the other side is gone. Raises Refused(TOO_LARGE)."""
        while (end := self._rest.find(b"\n", self._searched)) < 0:
            self._searched = len(self._rest)
            if self._searched > self._limit:
                raise Refused(Reason.TOO_LARGE, f"a line of more than {self._limit} bytes")
            try:
                data = await self._stream.receive_some(CHUNK)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data:
                return None
            self._rest += data
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        self._searched = 0
        return line
