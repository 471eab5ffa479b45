"""State folders of one mesh, and nodes that are started on them one by one: for tests of restarts and of late joiners."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from overlay.app.compose import open_node
from overlay.app.config import Config
from overlay.app.enrol import admit, found_mesh, install, make_request
from overlay.app.local import LocalNode
from overlay.core.policy import Policy
from overlay.events import NodeEvent
from overlay.store.state import StateFolder

ALONE = Config(listen=("127.0.0.1", 0), mdns=False, evidence="software", witness_wait=2.0)


def enrolled(path: Path, *names: str) -> list[Path]:
    """A state folder for each, all of one mesh; the first founds it."""
    founder, *others = folders = [path / name for name in names]
    with StateFolder.create(founder) as folder:
        found_mesh(folder, names[0], "home", Policy.default(), None)
    for name, other in zip(names[1:], others, strict=True):
        with StateFolder.create(other) as folder:
            install(folder, admit(founder, make_request(folder, None), name, ()), None)
    return folders


class Started:
    """A running node, and everything it said."""

    def __init__(self) -> None:
        self.node: LocalNode
        self.events: list[NodeEvent] = []
        self._news = trio.Event()

    def take(self, event: NodeEvent) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    async def saw(self, event: NodeEvent) -> NodeEvent:
        """Such an event, as soon as it has come; fields that are empty here may be anything there."""
        wanted = {key: value for key, value in event.fields().items() if value != ""}
        with trio.fail_after(10):
            while True:
                for one in self.events:
                    if wanted.items() <= one.fields().items():
                        return one
                await self._news.wait()


@asynccontextmanager
async def started(folder: Path, *seeds: LocalNode) -> AsyncIterator[Started]:
    """The node of a folder; yields when it is linked to these."""
    config = replace(ALONE, seeds=tuple(f"127.0.0.1:{node.port}" for node in seeds))
    found = Started()
    async with open_node(folder, config=config, observers=[found.take]) as node:
        found.node = node
        with trio.fail_after(15):
            for seed in seeds:
                await node.wait_peer(seed.name)
                await seed.wait_peer(node.name)
        yield found
