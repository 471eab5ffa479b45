"""Call a service of a peer, from asyncio: `python examples/aio_ask.py bob hello`."""

import asyncio
import sys

import overlay.aio


async def main(name: str, text: str) -> None:
    async with overlay.aio.connect_local() as node:
        peer = await node.wait_peer(name)
        print((await peer.call("shout", text.encode())).decode())


asyncio.run(main(*sys.argv[1:3]))
