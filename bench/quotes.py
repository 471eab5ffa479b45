"""The row about evidence: judging a TPM's quote, against the one ECDSA signature in it."""

import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import overlay
from bench.row import Row, row
from overlay.app.compose import Assembly
from overlay.app.enrol import found_mesh
from overlay.app.lab.tpms import start_tpm
from overlay.app.tpm import open_tpm
from overlay.core.evidence import Appraisal, Binding
from overlay.core.policy import Policy
from overlay.registry import Role
from overlay.store.state import StateFolder

QUOTES = 200
LINKS = 64  # that share a quote


@dataclass
class Look:
    """Takes hold of a node's parts, and changes nothing."""

    assembly: Assembly | None = None

    def alter(self, assembly: Assembly) -> Assembly:
        self.assembly = assembly
        return assembly


async def quotes(runs: int) -> list[Row]:
    """Judged as a verifier does at each round: form, binding to the link, attestation key, clock, PCRs, policy."""
    async with _assembly() as assembly:
        return [row("quote_appraisal_vs_ecdsa", "us", *_measure(assembly, runs))]


@asynccontextmanager
async def _assembly() -> AsyncIterator[Assembly]:
    """The parts of a node whose keys are in a swtpm."""
    with tempfile.TemporaryDirectory(prefix="ob-") as name:
        path, look = Path(name), Look()
        tpm = await start_tpm(path / "tpm")
        try:
            await trio.to_thread.run_sync(_enrol, path / "alice", tpm.tcti)
            config = overlay.Config(listen=("127.0.0.1", 0), mdns=False, evidence="tpm", tcti=tpm.tcti)
            async with overlay.open_node(path / "alice", config=config, alter=look.alter):
                assert look.assembly is not None
                yield look.assembly
        finally:
            await tpm.child.end()


def _enrol(folder: Path, tcti: str) -> None:
    with StateFolder.create(folder) as alice, open_tpm(tcti) as tpm:
        found_mesh(alice, "alice", "bench", Policy.default(), tpm)


def _measure(assembly: Assembly, runs: int) -> tuple[list[float], list[float]]:
    """Microseconds of ours and of the bare verification."""
    parts = assembly.parts
    peer, binding = parts.identity.verified, _binding(assembly)
    evidence, *_ = parts.prover(parts.identity).prove([binding, *(_binding(assembly) for _ in range(LINKS - 1))])
    appraisal = parts.appraiser.appraise(evidence, binding, peer, None)
    assert isinstance(appraisal, Appraisal)
    assert (appraisal.level, len(evidence.path)) == (2, 6)
    key = ec.generate_private_key(ec.SECP256R1())
    signature, public = key.sign(evidence.quote, ec.ECDSA(hashes.SHA256())), key.public_key()
    ours, bare = [], []
    for _ in range(runs):
        began = time.perf_counter()
        for _ in range(QUOTES):
            parts.appraiser.appraise(evidence, binding, peer, None)
        ours.append((time.perf_counter() - began) / QUOTES * 1e6)
        began = time.perf_counter()
        for _ in range(QUOTES):
            public.verify(signature, evidence.quote, ec.ECDSA(hashes.SHA256()))
        bare.append((time.perf_counter() - began) / QUOTES * 1e6)
    return ours, bare


def _binding(assembly: Assembly) -> Binding:
    own = assembly.parts.identity.verified
    return Binding(
        mesh_id=assembly.parts.trust().mesh_id, h=secrets.token_bytes(32), role=Role.OPENER,
        attester_leaf=own.certificate.hash, verifier_leaf=secrets.token_bytes(32), nonce=secrets.token_bytes(32), epoch=1,
    )
