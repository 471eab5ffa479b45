"""`overlay join`: this machine becomes a member, by a token, through the mesh itself."""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from overlay.app.authority.joining import PATIENCE, join_mesh
from overlay.app.cli.common import Invocation, chosen_tpm, run, setting_option, standard_options
from overlay.app.cli.tokens import read_token
from overlay.app.config import SETTING
from overlay.app.output import say, say_json
from overlay.core.token import parse_token
from overlay.store.identity import has_identity
from overlay.store.state import FORMAT_FILE, IDENTITY_TPM, StateFolder

if TYPE_CHECKING:
    pass

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
    found = parse_token(read_token(token))
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


def _folder(invocation: Invocation) -> StateFolder:
    """A new folder, or one with an identity that has not joined yet."""
    if (invocation.folder / FORMAT_FILE).exists():
        return StateFolder.open(invocation.folder, exclusive=True)
    return StateFolder.create(invocation.folder)
