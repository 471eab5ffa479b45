"""A page for Prometheus to read: `GET /metrics` over HTTP/1.1, one request a connection, and nothing else."""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from overlay.app.telemetry.prometheus import CONTENT_TYPE
from overlay.errors import OverlayError

HEAD_MAX: Final = 8192  # bytes of a request: our guess, what most servers take
WITHIN: Final = 10.0  # seconds for a request and its answer: Prometheus' own limit for a scrape
AT_ONCE: Final = 16  # our guess

Render = Callable[[], Awaitable[bytes]]


class Page:
    """Serves what `render` gives at that moment."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._places = trio.CapacityLimiter(AT_ONCE)

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection; what its other end does ends it and nothing more."""
        async with self._places, stream:
            with trio.move_on_after(WITHIN):
                try:
                    await stream.send_all(await self._answer(await _head(stream)))
                    await stream.send_eof()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return

    async def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request", b"not HTTP/1.1\n")
        method, path = words[0], words[1].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"only GET\n")
        if path != b"/metrics":
            return _response("404 Not Found", b"look at /metrics\n")
        try:
            body = await self._render()
        except OverlayError as error:
            return _response("503 Service Unavailable", f"{error}\n".encode())
        return _response("200 OK", body, CONTENT_TYPE, with_body=method == b"GET")


async def _head(stream: trio.SocketStream) -> bytes:
    """Until the empty line, or what came before the end or the limit."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_MAX:
        more = await stream.receive_some(HEAD_MAX)
        if not more:
            break
        head += more
    return head


def _response(status: str, body: bytes, kind: str = "text/plain; charset=utf-8", *, with_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
