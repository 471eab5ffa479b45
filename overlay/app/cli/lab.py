"""`overlay lab`: the options of the lab; `overlay/app/lab/` is the lab."""

from pathlib import Path
from typing import Any

import click

from overlay.app.lab.catalogue import EVERYTHING
from overlay.app.lab.main import run_lab
from overlay.app.lab.options import LabOptions
from overlay.app.output import say, say_json


@click.command()
@click.option("--nodes", type=int, metavar="NUMBER", help="How many machines; else 5, or 9 where the mesh key changes hands.")
@click.option("--evidence", type=click.Choice(["tpm", "software"]), help="Else: a TPM if this host can.")
@click.option("--network", type=click.Choice(["namespaces", "loopback"]), help="Else: namespaces if this host can.")
@click.option("--rekey-after", default=60.0, show_default=True, metavar="SECONDS", help="Age at which keys change.")
@click.option("--attest-every", default=60.0, show_default=True, metavar="SECONDS", help="Time between two proofs.")
@click.option("--once", is_flag=True, help="End when all scenes have played: within 120 seconds, 10 minutes with authority.")
@click.option("--json", "as_json", is_flag=True, help="Print a report as JSON and nothing else; implies --once.")
@click.option("--scenes", metavar="A,B", help="Play these scenes only; authority or attestation: all acts of that kind.")
@click.option("--list", "list_scenes", is_flag=True, help="List the scenes and end.")
@click.option("--keep", type=Path, metavar="DIR", help="Put everything into this folder, and leave it there.")
def lab(*, scenes: str | None, once: bool, as_json: bool, list_scenes: bool, **options: Any) -> int:
    """A mesh of machines in a box, and attacks on it that must fail. Each has its own network and TPM."""
    if list_scenes:
        _list_scenes(as_json=as_json)
        return 0
    names = None if scenes is None else tuple(name.strip() for name in scenes.split(",") if name.strip())
    return run_lab(LabOptions(once=once or as_json, json=as_json, scenes=names, **options))


def _list_scenes(*, as_json: bool) -> None:
    if as_json:
        say_json([{"name": scene.name, "about": scene.about, "expected": scene.expected.name} for scene in EVERYTHING.scenes])
        return
    for scene in EVERYTHING.scenes:
        say(f"{scene.name:20} {scene.about}")
