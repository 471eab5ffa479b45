"""Publish on a topic and read what everybody says there: `python examples/newsroom.py "stop press" 2` reads two."""

import sys

import trio

import overlay


async def main(text: str, count: int) -> None:
    async with overlay.connect_local() as node, node.subscribe("news") as news:
        await node.publish("news", text.encode())
        for _ in range(count):
            item = await anext(news)
            print(item.author.name, item.author.level, item.body.decode())


trio.run(main, sys.argv[1], int(sys.argv[2]))
