"""A node with a service, for asyncio: `python examples/aio_serve.py`, until Ctrl-C or `overlay stop`."""

import asyncio

import overlay.aio


async def shout(request: overlay.Request) -> bytes:
    print(request.peer.name, "at level", request.peer.level, "asks")
    return request.body.upper()


async def main() -> None:
    async with overlay.aio.open_node(services={"shout": shout}) as node:
        print("serving as", node.name)
        await node.wait_stopped()


asyncio.run(main())
