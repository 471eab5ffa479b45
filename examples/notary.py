"""Write into the audit log, and wait until others hold a copy: `python examples/notary.py 7b`."""

import sys

import trio

import overlay


async def main(door: str) -> None:
    async with overlay.connect_local() as node:
        entry = await node.audit.append("door.opened", {"door": door})
        print("entry", entry.seq, "is durable here")
        copies = await node.audit.wait_replicated(entry)
        print("and held by", copies, "peer" if copies == 1 else "peers")


trio.run(main, sys.argv[1])
