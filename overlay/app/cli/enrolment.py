"""`overlay init`, `request`, `admit` and `install`: how machines become members, by file."""

import sys
from dataclasses import replace
from pathlib import Path

import click

from overlay.app.cli.common import Invocation, chosen_tpm, setting_option, standard_options
from overlay.app.cli.recovery_keys import KeyMaker, recovery_keys_option, recovery_out_option
from overlay.app.config import SETTING, EvidenceSetting
from overlay.app.enrol import admit_request, found_mesh, make_request
from overlay.app.enrol import install as install_bundle
from overlay.app.output import note, say, say_json
from overlay.core.enrolment_files import FILE_MAX
from overlay.core.keys import NodeId
from overlay.core.policy import Policy
from overlay.core.policy_file import parse_policy_toml
from overlay.errors import UsageError
from overlay.store.exchange import read_text, write_text
from overlay.store.identity import has_identity
from overlay.store.membership import load_mesh
from overlay.store.state import FORMAT_FILE, IDENTITY_TPM, StateFolder

STREAM = "-"
evidence_option = setting_option(SETTING["evidence"])
tcti_option = setting_option(SETTING["tcti"])


@click.command()
@click.argument("name")
@click.option("--mesh", metavar="NAME", required=True, help="Name of the new mesh.")
@click.option("--policy", "policy_file", metavar="FILE", type=Path, help="Policy of the mesh, TOML.")
@recovery_keys_option
@recovery_out_option
@evidence_option
@tcti_option
@standard_options
def init(
    invocation: Invocation, name: str, *, mesh: str, policy_file: Path | None, recovery_keys: str | None,
    recovery_out: Path | None, evidence: str | None, tcti: str | None,
) -> None:
    """Found a mesh, with this machine as its first node NAME."""
    policy = Policy.default() if policy_file is None else parse_policy_toml(read_text(policy_file))
    config = invocation.config(evidence=evidence, tcti=tcti)
    maker = KeyMaker.of(recovery_keys, recovery_out, mesh)
    with chosen_tpm(config) as tpm, StateFolder.create(invocation.folder) as folder:
        node_id = found_mesh(folder, name, mesh, policy, tpm, maker.make)
        mesh_id = _mesh_id(folder)
    if invocation.json:
        recovery = [str(file) for file in maker.files]
        fields = {"name": name, "node": str(node_id), "mesh_name": mesh, "mesh": mesh_id, "tpm": tpm is not None}
        say_json({**fields, "recovery_keys": recovery})
        return
    say(f"{name} has founded the mesh {mesh}")
    _say_ids(node_id, mesh_id)
    maker.tell()
    note(f"{invocation.folder} holds the key of the mesh: whoever reads it is the mesh")


@click.command()
@click.option("-o", "--output", metavar="FILE", type=Path, help="Write the request here and not to the output.")
@evidence_option
@tcti_option
@standard_options
def request(invocation: Invocation, output: Path | None, evidence: str | None, tcti: str | None) -> None:
    """Ask to become a member: prints a request for `overlay admit`."""
    config = invocation.config(evidence=evidence, tcti=tcti)
    with _request_folder(invocation) as folder:
        if has_identity(folder):  # of the kind that it is
            config = replace(config, evidence=_evidence_of(folder))
        with chosen_tpm(config) as tpm:
            text = make_request(folder, tpm)
    if output is not None:
        write_text(output, text, private=False)
    if invocation.json:
        say_json({"request": text, "file": None if output is None else str(output), "tpm": tpm is not None})
    elif output is None:
        say(text.rstrip("\n"))
    else:
        say(f"the request is in {output}; bring it to a machine that can admit it")


def _request_folder(invocation: Invocation) -> StateFolder:
    """A new folder, or one with an identity, which is read only: a running node can ask for its next certificate."""
    if not (invocation.folder / FORMAT_FILE).exists():
        return StateFolder.create(invocation.folder)
    folder = StateFolder.open(invocation.folder, exclusive=False)
    return folder if has_identity(folder) else StateFolder.open(invocation.folder, exclusive=True)


@click.command()
@click.argument("request_file", metavar="REQUEST")
@click.option("--name", required=True, help="Name of the node.")
@click.option("--role", "roles", metavar="ROLE", multiple=True, help="What it may be; may be repeated.")
@click.option("-o", "--output", metavar="BUNDLE", required=True, help="Where to write the answer; - for the output.")
@standard_options
def admit(invocation: Invocation, request_file: str, name: str, roles: tuple[str, ...], output: str) -> None:
    """Make the node that wrote REQUEST a member. Writes a bundle for `overlay install`; - stands for the input."""
    admitted = admit_request(invocation.folder, _read(request_file), name, roles)
    if output != STREAM:
        write_text(Path(output), admitted.bundle, private=True)
    if invocation.json:
        say_json({
            "name": name, "node": str(admitted.node_id), "level": admitted.facts.level,
            "roles": list(admitted.facts.roles), "not_after": admitted.not_after.isoformat(),
            "sealed": admitted.sealed, "bundle": admitted.bundle if output == STREAM else output,
        })
    elif output == STREAM:
        say(admitted.bundle.rstrip("\n"))
    else:
        say(f"{name} is admitted at level {admitted.facts.level} until {admitted.not_after:%Y-%m-%d %H:%M} UTC")
        say(f"node  {admitted.node_id}")
    if not admitted.sealed:
        note("the bundle holds a key of the mesh: bring it to that node on a private way, then delete it")


@click.command()
@click.argument("bundle_file", metavar="BUNDLE")
@tcti_option
@standard_options
def install(invocation: Invocation, bundle_file: str, tcti: str | None) -> None:
    """Become a member with the BUNDLE that `overlay admit` made. A - stands for the input."""
    text = _read(bundle_file)
    with StateFolder.open(invocation.folder, exclusive=True) as folder:
        config = replace(invocation.config(tcti=tcti), evidence=_evidence_of(folder))
        with chosen_tpm(config) as tpm:
            node_id = install_bundle(folder, text, tpm)
        mesh = load_mesh(folder)
    mesh_name, mesh_id = ("", "") if mesh is None else (mesh.root.name, str(mesh.root.mesh_id))
    if invocation.json:
        say_json({"node": str(node_id), "mesh_name": mesh_name, "mesh": mesh_id})
        return
    say(f"this machine is a member of the mesh {mesh_name}")
    _say_ids(node_id, mesh_id)


def _evidence_of(folder: StateFolder) -> EvidenceSetting:
    """The kind of identity that is there."""
    return "tpm" if folder.file(IDENTITY_TPM).exists() else "software"


def _mesh_id(folder: StateFolder) -> str:
    mesh = load_mesh(folder)
    return "" if mesh is None else str(mesh.root.mesh_id)


def _say_ids(node_id: NodeId, mesh_id: str) -> None:
    say(f"node  {node_id}")
    say(f"mesh  {mesh_id}")


def _read(file: str) -> str:
    if file != STREAM:
        return read_text(Path(file))
    text = sys.stdin.buffer.read(FILE_MAX + 1).decode("utf-8", "replace")
    if len(text) > FILE_MAX:
        raise UsageError(f"the input is longer than {FILE_MAX} bytes")
    return text
