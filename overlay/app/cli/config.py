"""`overlay config show`: all settings, and where each value came from."""

import json

import click

from overlay.app.cli.common import Invocation, standard_options
from overlay.app.config import load_settings
from overlay.app.output import say_json, say_table


@click.group()
def config() -> None:
    """The settings of the node."""


@config.command()
@standard_options
def show(invocation: Invocation) -> None:
    """Print all settings and where each came from."""
    settings = load_settings(invocation.folder)
    if invocation.json:
        rows = {key: {"value": value, "from": origin} for key, value, origin in settings.shown()}
        say_json({"state": str(invocation.folder), "settings": rows})
        return
    say_table(
        ("SETTING", "VALUE", "FROM"),
        [(key, json.dumps(value, ensure_ascii=False), origin) for key, value, origin in settings.shown()],
    )
