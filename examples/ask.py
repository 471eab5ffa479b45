"""Call a service of a peer, through the node that runs here: `python examples/ask.py bob hello`."""

import sys

import trio

import overlay


async def main(name: str, text: str) -> None:
    async with overlay.connect_local() as node:
        peer = await node.wait_peer(name)
        print((await peer.call("shout", text.encode())).decode())


trio.run(main, *sys.argv[1:3])
