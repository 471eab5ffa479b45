"""EK certificates as swtpm's own local authority issues them (swtpm_localca), and a TPM's NV memory to put them in."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attest.areas import PublicArea
from tests.tpm.conftest import Swtpm, Tool

EK_INDEX = 0x01C0000A
CHAIN_INDEX = 0x01C00100
WRITE_MAX = 2048  # what an NV index of swtpm takes


@dataclass(frozen=True, slots=True)
class LocalCa:
    """A root, an authority below it, and what they certify. DER."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "LocalCa":
        """Its keys are made with the first certificate."""
        if shutil.which("swtpm_localca") is None:
            pytest.skip("this host lacks swtpm_localca")
        (folder / "state").mkdir(parents=True)
        state = folder / "state"
        (folder / "conf").write_text(
            f"statedir = {state}\nsigningkey = {state}/signkey.pem\nissuercert = {state}/issuercert.pem\n"
            f"certserial = {state}/certserial\n"
        )
        (folder / "options").write_text("--platform-manufacturer Test\n--platform-version 1\n--platform-model Test\n")
        return cls(folder)

    def certify(self, ek: PublicArea, kind: str = "ek") -> bytes:
        """A certificate for that P-256 key."""
        point = f"x={ek.x.hex()},y={ek.y.hex()},id=secp256r1"
        done = subprocess.run(
            [
                "swtpm_localca", "--type", kind, "--ek", point, "--dir", str(self.folder), "--vmid", "test",
                "--tpm-spec-family", "2.0", "--tpm-spec-revision", "164", "--tpm-spec-level", "0", "--tpm-manufacturer",
                "id:00001014", "--tpm-model", "swtpm", "--tpm-version", "id:20191023", "--tpm2", "--configfile",
                str(self.folder / "conf"), "--optsfile", str(self.folder / "options"),
            ], capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return (self.folder / f"{kind}.cert").read_bytes()

    @property
    def between(self) -> bytes:
        """The authority that signs."""
        return self._read("issuercert.pem")

    @property
    def root(self) -> bytes:
        """The one above it."""
        return self._read("swtpm-localca-rootca-cert.pem")

    def _read(self, name: str) -> bytes:
        return x509.load_pem_x509_certificate((self.folder / "state" / name).read_bytes()).public_bytes(Encoding.DER)


def store(swtpm: Swtpm, tool: Tool, folder: Path, index: int, data: bytes) -> None:
    """Into the TPM's NV memory, readable without a password."""
    if shutil.which("tpm2_nvdefine") is None:
        pytest.skip("this host lacks tpm2-tools")
    (folder / "data").write_bytes(data)
    attributes = "ownerread|ownerwrite|authread|authwrite|no_da"
    for command in (
        ("tpm2_nvdefine", hex(index), "-C", "o", "-s", str(len(data)), "-a", attributes, "-T", swtpm.tcti),
        ("tpm2_nvwrite", hex(index), "-C", "o", "-i", folder / "data", "-T", swtpm.tcti),
    ):
        done = tool.run(*command)
        assert done.returncode == 0, done.stderr


def store_chain(swtpm: Swtpm, tool: Tool, folder: Path, own: bytes, *above: bytes) -> None:
    """As makers do: the EK's certificate at its index, those above it in a row over as many indices as it takes."""
    store(swtpm, tool, folder, EK_INDEX, own)
    row = b"".join(above)
    for number, start in enumerate(range(0, len(row), WRITE_MAX)):
        store(swtpm, tool, folder, CHAIN_INDEX + number, row[start : start + WRITE_MAX])
