"""Enrolment with TPMs, by the commands: a sealed bundle opens on the machine that asked, and nowhere else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.cli.node_kit import Machine
from tests.tpm.conftest import Swtpm

pytestmark = pytest.mark.tpm

QUIET = {"OVERLAY_MDNS": "false", "OVERLAY_LISTEN": "127.0.0.1:0"}


@asynccontextmanager
async def machine_with_tpm(folder: Path, name: str) -> AsyncIterator[Machine]:
    """A machine and its TPM."""
    state = folder / f"tpm-{name}"
    state.mkdir()
    emulator = Swtpm(state)
    with closing(_Stopper(emulator)):
        yield Machine(folder / name, {**QUIET, "OVERLAY_TCTI": emulator.tcti, "OVERLAY_EVIDENCE": "tpm"})


class _Stopper:
    def __init__(self, emulator: Swtpm) -> None:
        self.close = emulator.stop


async def test_two_machines_with_tpms_link_at_level_two(tmp_path: Path) -> None:
    async with machine_with_tpm(tmp_path, "alice") as alice, machine_with_tpm(tmp_path, "bob") as bob:
        founded = (await alice.overlay("init", "alice", "--mesh", "test", "--json")).json
        assert founded["tpm"]
        await bob.overlay("request", "-o", "request")
        admitted = (await alice.overlay("admit", "request", "--name", "bob", "-o", "bundle", "--json")).json
        assert (admitted["level"], admitted["sealed"]) == (2, True)
        await bob.overlay("install", "bundle")
        async with alice.running() as first, bob.running("--seed", f"127.0.0.1:{first.port}") as second:
            up = await second.wait(lambda event: event["event"] == "peer-up")
            assert (up["name"], up["level"]) == ("alice", 2)
            status = (await alice.overlay("status", "--json")).json
            assert (status["level"], status["evidence"]) == (2, "tpm")


async def test_a_sealed_bundle_opens_nowhere_else(tmp_path: Path) -> None:
    async with machine_with_tpm(tmp_path, "alice") as alice, machine_with_tpm(tmp_path, "bob") as bob:
        await alice.overlay("init", "alice", "--mesh", "test")
        await bob.overlay("request", "-o", "request")
        await alice.overlay("admit", "request", "--name", "bob", "-o", "bundle")
        assert "BEGIN OVERLAY SEALED BUNDLE" in (tmp_path / "bundle").read_text()

        software = Machine(tmp_path / "carol", {**QUIET, "OVERLAY_EVIDENCE": "software"})
        await software.overlay("request", "-o", "request.carol")
        assert "is for a node with a TPM" in (await software.overlay("install", "bundle", code=4)).errors

        async with machine_with_tpm(tmp_path, "dave") as dave:
            await dave.overlay("request", "-o", "request.dave")
            errors = (await dave.overlay("install", "bundle", code=1)).errors
            assert "overlay: error: the TPM refused" in errors


async def test_a_request_asks_again_with_the_same_keys(tmp_path: Path) -> None:
    async with machine_with_tpm(tmp_path, "alice") as alice, machine_with_tpm(tmp_path, "bob") as bob:
        await alice.overlay("init", "alice", "--mesh", "test")
        nodes = []
        for number in range(2):
            await bob.overlay("request", "-o", f"request.{number}")
            words = ("admit", f"request.{number}", "--name", "bob", "-o", f"bundle.{number}", "--json")
            nodes.append((await alice.overlay(*words)).json["node"])
            await bob.overlay("install", f"bundle.{number}")
        assert nodes[0] == nodes[1]


async def test_a_request_whose_certification_is_of_another_one_is_refused(tmp_path: Path) -> None:
    from overlay.core.enrolment_files import EnrolmentRequest

    async with machine_with_tpm(tmp_path, "alice") as alice, machine_with_tpm(tmp_path, "bob") as bob:
        await alice.overlay("init", "alice", "--mesh", "test")
        await bob.overlay("request", "-o", "request.bob")
        mallory = Machine(tmp_path / "mallory", {**QUIET, "OVERLAY_EVIDENCE": "software"})
        await mallory.overlay("request", "-o", "request.mallory")
        honest = EnrolmentRequest.from_text((tmp_path / "request.bob").read_text())
        own = EnrolmentRequest.from_text((tmp_path / "request.mallory").read_text())
        (tmp_path / "mixed").write_text(EnrolmentRequest(own.csr, honest.tpm).to_text())
        errors = (await alice.overlay("admit", "mixed", "--name", "bob", "-o", "bundle", code=4)).errors
        assert "overlay: error: attestation key mismatch" in errors
