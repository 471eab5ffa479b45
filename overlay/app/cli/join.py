"""`overlay join`: this machine becomes a member, by a token, through the mesh itself."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from overlay.app.authority.joining import PATIENCE, join_mesh
from overlay.app.cli.common import Invocation, chosen_tpm, run, setting_option, standard_options
from overlay.app.config import SETTING
from overlay.app.output import say, say_json
from overlay.core.token import TEXT_MAX, parse_token
from overlay.errors import UsageError
from overlay.store.exchange import read_text
from overlay.store.identity import has_identity
from overlay.store.state import FORMAT_FILE, IDENTITY_TPM, StateFolder

if TYPE_CHECKING:
    from overlay.core.token import Token

STREAM: Final = "-"


@click.command()
@click.argument("token")
@click.option("--name", metavar="NAME", help="Name of this node, where the invite gives none.")
@click.option("--wait", default=PATIENCE, show_default=True, metavar="SECONDS", help="How long to look for signers.")
@setting_option(SETTING["evidence"])
@setting_option(SETTING["tcti"])
@setting_option(SETTING["interfaces"])
@setting_option(SETTING["mdns"])
@standard_options
def join(
    invocation: Invocation, token: str, name: str | None, wait: float, *, evidence: str | None, tcti: str | None,
    interfaces: list[str] | None, mdns: bool | None,
) -> None:
    """Become a member with a TOKEN that `overlay invite` printed. - reads it from the input, @FILE from a file."""
    found = _token(token)
    config = invocation.config(evidence=evidence, tcti=tcti, interfaces=interfaces, mdns=mdns)
    with _folder(invocation) as folder:
        if has_identity(folder):  # of the kind that it is
            config = replace(config, evidence="tpm" if folder.file(IDENTITY_TPM).exists() else "software")
        with chosen_tpm(config) as tpm:
            certificate = run(lambda: join_mesh(folder, found, config, tpm, name=name, patience=wait))
    if invocation.json:
        say_json({
            "name": certificate.name, "node": str(certificate.node_id), "mesh": str(found.mesh_id),
            "roles": list(certificate.roles), "level": certificate.level, "not_after": certificate.not_after.isoformat(),
        })
        return
    say(f"this machine is {certificate.name}, level {certificate.level}; start it with: overlay run")
    say(f"node  {certificate.node_id}")
    say(f"mesh  {found.mesh_id}")


def _token(text: str) -> "Token":
    """Raises Refused(BAD_TOKEN), UsageError."""
    if text == STREAM:
        text = sys.stdin.read(TEXT_MAX + 1)
    elif text.startswith("@"):
        text = read_text(Path(text[1:]))
    if not text.strip():
        raise UsageError("there is no token", hint="`overlay invite` prints one on a node of an operator")
    return parse_token(text)


def _folder(invocation: Invocation) -> StateFolder:
    """A new folder, or one with an identity that has not joined yet."""
    if (invocation.folder / FORMAT_FILE).exists():
        return StateFolder.open(invocation.folder, exclusive=True)
    return StateFolder.create(invocation.folder)
