"""`overlay policy`: what the mesh asks of its members' software, through the node that runs here."""

from pathlib import Path

import click

from overlay.app.cli.authority import ask, dry_run_option
from overlay.app.cli.common import Invocation, standard_options
from overlay.store.exchange import read_text


@click.command()
@click.argument("file", type=Path)
@dry_run_option
@standard_options
def policy(invocation: Invocation, file: Path, *, dry_run: bool) -> None:
    """Put the policy in FILE, TOML, in force. `overlay attest learn` prints values for it, `overlay attest policy` shows it."""
    text = read_text(file)
    ask(invocation, lambda authority: authority.policy(text, dry_run=dry_run))
