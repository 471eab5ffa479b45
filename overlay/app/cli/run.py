"""`overlay run`: the node of this machine, with one line for each event, until a signal or `overlay stop` ends it."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click
import trio

from overlay.app.cli.common import INTERRUPTED, Invocation, Signals, setting_option, standard_options
from overlay.app.compose import open_node
from overlay.app.config import TABLE, Config
from overlay.app.event_lines import describe
from overlay.app.output import plain, say, say_json
from overlay.events import NodeEvent
from overlay.net.background import background
from overlay.net.system import wall_clock


def _all_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    for setting in reversed(TABLE):
        function = setting_option(setting)(function)
    return function


@click.command()
@_all_settings
@standard_options
def run(invocation: Invocation, **options: object) -> int:
    """Run the node until SIGTERM or Ctrl-C ends it."""
    config = invocation.config(**options)
    logging.basicConfig(level=config.log_level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    number = trio.run(_serve, invocation, config)
    return INTERRUPTED if number == signal.SIGINT else 0


async def _serve(invocation: Invocation, config: Config) -> int | None:
    """The signal that ended it. While it starts a signal cancels; later it ends in order."""
    tell = _tell_json if invocation.json else _tell
    async with background() as tasks:
        with trio.CancelScope() as scope:
            signals = Signals(scope)
            await tasks.start(signals.watch)
            async with open_node(invocation.folder, config=config, observers=(partial(_quietly, tell),)) as node:
                signals.gently = True
                await _first(signals.told.wait, node.wait_stopped)
    return signals.number


async def _first(*waits: Callable[[], Any]) -> None:
    """Until one of them returns."""

    async def wait(one: Callable[[], Any], scope: trio.CancelScope) -> None:
        await one()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        for one in waits:
            nursery.start_soon(wait, one, nursery.cancel_scope)


def _tell(event: NodeEvent) -> None:
    say(f"{wall_clock().astimezone():%H:%M:%S} {plain(describe(event))}")


def _tell_json(event: NodeEvent) -> None:
    say_json(event.fields())


def _quietly(tell: Callable[[NodeEvent], None], event: NodeEvent) -> None:
    """A node does not end because nobody reads its lines any more."""
    try:
        tell(event)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
