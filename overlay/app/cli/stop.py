"""`overlay stop`: ends the node that runs here, and returns when its folder is free."""

from typing import Final

import click
import trio

from overlay.app.cli.common import Invocation, run, standard_options
from overlay.app.client import connect_local
from overlay.app.output import say_json
from overlay.errors import DeadlineExceeded
from overlay.store.state import holder

PATIENCE: Final = 10.0  # seconds; our guess: links say goodbye for up to 2
POLL: Final = 0.05


@click.command()
@standard_options
def stop(invocation: Invocation) -> None:
    """End the node that runs here, in order."""
    pid = holder(invocation.folder)

    async def work() -> None:
        async with connect_local(invocation.folder) as node:
            await node.stop()
        with trio.move_on_after(PATIENCE):
            while pid is not None and holder(invocation.folder) == pid:  # noqa: ASYNC110 (a lock tells nobody)
                await trio.sleep(POLL)
            return
        raise DeadlineExceeded(f"process {pid} still holds {invocation.folder}", hint="look at it, or end it by its number")

    run(work)
    if invocation.json:
        say_json({"stopped": True, "pid": pid})
