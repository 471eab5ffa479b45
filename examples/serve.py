"""A node with a service that any member may call: `python examples/serve.py`, then ask.py on another machine."""

import trio

import overlay


async def shout(request: overlay.Request) -> bytes:
    print(request.peer.name, "at level", request.peer.level, "asks")
    return request.body.upper()


async def main() -> None:
    async with overlay.open_node(services={"shout": shout}) as node:
        print("serving as", node.name)
        await trio.sleep_forever()


trio.run(main)
