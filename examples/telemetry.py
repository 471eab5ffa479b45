"""Count something of your own and let collectors have it, signed: `python examples/telemetry.py hub`."""

import sys

import trio
from prometheus_client import CollectorRegistry, Counter

import overlay

registry = CollectorRegistry()
visits = Counter("visits", "Visits so far.", registry=registry)


async def main(collector: str) -> None:
    async with overlay.open_node() as node, node.telemetry.send("shop", to=[f"node:{collector}"], registry=registry):
        while True:
            visits.inc()
            await trio.sleep(1)


trio.run(main, sys.argv[1])
