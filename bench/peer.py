"""The other end, in a process of its own: `python -m bench.peer FOLDER CERTIFICATES REKEY_AFTER` says its ports, and serves."""

import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

import overlay
from bench import tls

TOPIC = "bench"
ACK = b"!"
BLOCK = 1024 * 1024
PATTERN = hashlib.shake_256(b"bench").digest(BLOCK)


async def echo(request: overlay.Request) -> bytes:
    """What calls call."""
    return request.body


class Ear:
    """Hears transient publications, and says so when there were as many as a call asks for."""

    def __init__(self) -> None:
        self._count = 0
        self._digest = hashlib.sha256()
        self._due = 0  # how many somebody waits for
        self._enough = trio.Event()
        self._kept = trio.Event()

    async def listen(self, items: AsyncIterator[overlay.TopicItem]) -> None:
        """Until cancelled. A kept item is not counted."""
        async for item in items:
            if item.seq is not None:
                self._kept.set()
                continue
            self._count += 1
            self._digest.update(item.body)
            if self._count == self._due:
                self._enough.set()

    async def ready(self, request: overlay.Request) -> bytes:
        """Answers when a kept item has come: from then on we know who may sign transient ones."""
        await self._kept.wait()
        return b""

    async def heard(self, request: overlay.Request) -> bytes:
        """Answers with the hash over all bodies when so many have come, and starts anew."""
        self._due, self._enough = int(request.body), trio.Event()
        if self._count < self._due:
            await self._enough.wait()
        found, self._count, self._digest = self._digest.digest(), 0, hashlib.sha256()
        return found


# --- streams, ours and TLS's ----------------------------------------------------------------------------------------------


async def sink(stream: overlay.Stream) -> None:
    """Take all, look at none of it, say so at the end."""
    while await stream.receive_some():
        pass
    await stream.send_all(ACK)


async def hashing_sink(stream: overlay.Stream) -> None:
    """Compare every byte with what it must be."""
    place = 0
    while data := await stream.receive_some():
        at = place % BLOCK
        expected = (PATTERN[at:] + PATTERN * (len(data) // BLOCK + 1))[: len(data)]
        assert data == expected, f"another byte at {place}"
        place += len(data)
    await stream.send_all(ACK)


async def echo_stream(stream: trio.abc.Stream) -> None:
    """What comes goes back."""
    while data := await stream.receive_some(65_536):
        await stream.send_all(data)


async def bulk(stream: trio.abc.Stream) -> None:
    """A length, then so many bytes, then the answer."""
    left = int.from_bytes(await stream.receive_some(8), "big")
    while left > 0:
        left -= len(await stream.receive_some())
    await stream.send_all(ACK)
    await stream.receive_some(1)


async def idle(stream: trio.abc.Stream) -> None:
    """Until the client goes."""
    await stream.receive_some(1)


async def main(folder: str, certificates: str, rekey_after: str) -> None:
    """Serve until we are ended."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    ear, secure = Ear(), tls.context(Path(certificates), "server")
    config = overlay.Config(listen=("127.0.0.1", 0), mdns=False, evidence="software", rekey_after=float(rekey_after))
    services = {"echo": echo, "ready": ear.ready, "heard": ear.heard}
    streams = {"sink": sink, "hashing sink": hashing_sink, "echo": echo_stream}
    async with (
        overlay.open_node(folder, services=services, streams=streams, config=config) as node,
        node.subscribe(TOPIC) as items, trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ear.listen, items)
        ports = {"port": node.engine.port, "tcp": await _listen(nursery, bulk)}
        for name, handler in (("tls", idle), ("bulk_tls", bulk), ("echo_tls", echo_stream)):
            ports[name] = await _listen(nursery, partial(tls.serve, context=secure, handler=handler))
        sys.stdout.write(json.dumps(ports) + "\n")
        sys.stdout.flush()
        await trio.sleep_forever()


async def _listen(nursery: trio.Nursery, handler: Callable[[trio.SocketStream], Awaitable[None]]) -> int:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, handler, listeners)
    return int(listeners[0].socket.getsockname()[1])


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
