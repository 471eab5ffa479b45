"""Founds the lab's mesh and makes its members: the same steps that an operator takes by command.

The launcher measures the package that a node will run into PCR 14 of that node's TPM. In the lab the launcher is thus the
root of trust, as firmware and boot loader are on a real machine.
"""

from dataclasses import dataclass
from pathlib import Path

import trio

from attest.manifest import installed_root, package_manifest
from overlay.app.enrol import admit, found_mesh, install, make_request
from overlay.app.lab.machine import Machine
from overlay.app.lab.world import Host
from overlay.app.tpm import open_tpm
from overlay.core.policy import Attestation, Mode, Policy
from overlay.core.wire import sha256
from overlay.store.state import StateFolder

MEASURED_PCR = 14  # where shim puts what it measures on Linux machines
MESH_NAME = "lab"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What all members of a lab share."""

    founder: Path  # state folder
    tpm: bool


def lab_policy(*, tpm: bool) -> Policy:
    """Only this package may run; with TPMs the quote over PCR 14 must show it, else the node's own claim."""
    manifest = package_manifest(installed_root())
    measured = measured_digest(manifest)
    return Policy(
        version=1, attestation=Attestation.REQUIRE if tpm else Attestation.PREFER, mode=Mode.ENFORCE,
        minimum_level=2 if tpm else 1,
        pcr_bitmap=1 << MEASURED_PCR if tpm else 0, pcr_digests=(measured,) if tpm else (), manifests=(manifest,),
    )


def measured_digest(manifest: bytes) -> bytes:
    """What a quote says of a machine on which this was measured: PCR after one extend, then the digest over that one PCR."""
    return sha256(sha256(bytes(32) + manifest))


async def found(host: Host, *, tpm: bool, mesh_name: str = MESH_NAME) -> tuple[Recipe, Machine]:
    """The first member, on its host."""
    return await trio.to_thread.run_sync(_found, host, tpm, mesh_name)


def _found(host: Host, tpm: bool, mesh_name: str) -> tuple[Recipe, Machine]:  # noqa: FBT001
    state = host.folder / "state"
    with_tpm = open_tpm(host.tcti) if tpm and host.tcti else None
    try:
        if with_tpm is not None:
            with_tpm.extend_pcr(MEASURED_PCR, package_manifest(installed_root()))
        with StateFolder.create(state) as folder:
            node_id = found_mesh(folder, host.name, mesh_name, lab_policy(tpm=tpm), with_tpm)
    finally:
        if with_tpm is not None:
            with_tpm.close()
    return Recipe(state, tpm), Machine(host.name, host, state, str(node_id))


async def enrol(
    recipe: Recipe, host: Host, *, name: str | None = None, package: Path | None = None, roles: tuple[str, ...] = ()
) -> Machine:
    """Another member: request, admit, install. `package` is what gets measured, the installed one unless said."""
    return await trio.to_thread.run_sync(_enrol, recipe, host, name or host.name, package or installed_root(), roles)


def _enrol(recipe: Recipe, host: Host, name: str, package: Path, roles: tuple[str, ...]) -> Machine:
    state = host.folder / f"state-{name}"
    tpm = open_tpm(host.tcti) if recipe.tpm and host.tcti else None
    try:
        if tpm is not None:
            tpm.extend_pcr(MEASURED_PCR, package_manifest(package))
        with StateFolder.create(state) as folder:
            request = make_request(folder, tpm)
            bundle = admit(recipe.founder, request, name, roles)
            node_id = install(folder, bundle, tpm)
    finally:
        if tpm is not None:
            tpm.close()
    return Machine(name, host, state, str(node_id))


def measure(host: Host, package: Path | None = None) -> None:
    """Measure a package, the installed one unless said, after a reset of the machine's TPM. Blocks; nothing without a TPM."""
    if host.tcti is None:
        return
    tpm = open_tpm(host.tcti)
    try:
        tpm.extend_pcr(MEASURED_PCR, package_manifest(package or installed_root()))
    finally:
        tpm.close()


def drift(host: Host) -> None:
    """Something else is measured on a running machine. Blocks."""
    if host.tcti is None:
        raise ValueError("only a machine with a TPM drifts")
    tpm = open_tpm(host.tcti)
    try:
        tpm.extend_pcr(MEASURED_PCR, sha256(b"something that the policy does not list"))
    finally:
        tpm.close()
