"""The other end, in a process of its own: `python -m bench.peer FOLDER CERTIFICATES REKEY_AFTER` says its ports and serves."""

import hashlib
import json
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import trio

import overlay
from bench import tls

TOPIC = "bench"


async def echo(request: overlay.Request) -> bytes:
    """What calls call."""
    return request.body


class Ear:
    """Hears transient publications, and says so when there were as many as a call asks for."""

    def __init__(self) -> None:
        self._count = 0
        self._digest = hashlib.sha256()
        self._more = trio.Event()

    async def listen(self, items: AsyncIterator[overlay.TopicItem]) -> None:
        """Until cancelled. A kept item is not counted."""
        async for item in items:
            if item.seq is None:
                self._count += 1
                self._digest.update(item.body)
                self._more.set()
                self._more = trio.Event()

    async def heard(self, request: overlay.Request) -> bytes:
        """Answers with the hash over all bodies when so many have come, and starts anew."""
        while self._count < int(request.body):
            await self._more.wait()
        found, self._count, self._digest = self._digest.digest(), 0, hashlib.sha256()
        return found


async def main(folder: str, certificates: str, rekey_after: str) -> None:
    """Serve until we are ended."""
    ear, secure = Ear(), tls.context(Path(certificates), "server")
    config = overlay.Config(listen=("127.0.0.1", 0), mdns=False, evidence="software", rekey_after=float(rekey_after))
    services = {"echo": echo, "heard": ear.heard}
    async with (
        overlay.open_node(folder, services=services, config=config) as node,
        node.subscribe(TOPIC) as items, trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ear.listen, items)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, partial(tls.serve, context=secure), listeners)
        ports = {"port": node.engine.port, "tls": listeners[0].socket.getsockname()[1]}
        sys.stdout.write(json.dumps(ports) + "\n")
        sys.stdout.flush()
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
