"""The certificate of the EK comes out of the TPM's own storage."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from attest.structures import der_of
from attest.tpm import Tpm
from tests.tpm.conftest import Swtpm, Tool

pytestmark = pytest.mark.tpm

CERTIFICATE = b"\x30\x82\x03\xe8" + bytes(range(250)) * 4
INDEX = "0x01C0000A"


def store(swtpm: Swtpm, tool: Tool, folder: Path, data: bytes) -> None:
    if shutil.which("tpm2_nvdefine") is None:
        pytest.skip("this host lacks tpm2-tools")
    (folder / "data").write_bytes(data)
    attributes = "ownerread|ownerwrite|authread|authwrite|no_da"
    for command in (
        ("tpm2_nvdefine", INDEX, "-C", "o", "-s", str(len(data)), "-a", attributes, "-T", swtpm.tcti),
        ("tpm2_nvwrite", INDEX, "-C", "o", "-i", folder / "data", "-T", swtpm.tcti),
    ):
        done = tool.run(*command)
        assert done.returncode == 0, done.stderr


def test_a_tpm_without_a_certificate_has_none(tpm: Tpm) -> None:
    assert tpm.endorsement_certificate() is None


@pytest.mark.parametrize("filling", [b"", b"\xff" * 300, bytes(24)])
def test_the_certificate_is_read_without_what_it_was_filled_up_with(
    swtpm: Swtpm, tpm: Tpm, tool: Tool, tmp_path: Path, filling: bytes
) -> None:
    store(swtpm, tool, tmp_path, CERTIFICATE + filling)
    assert tpm.endorsement_certificate() == CERTIFICATE


def test_what_is_no_certificate_is_none(swtpm: Swtpm, tpm: Tpm, tool: Tool, tmp_path: Path) -> None:
    store(swtpm, tool, tmp_path, b"\xff" * 600)
    assert tpm.endorsement_certificate() is None


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x82\x01", b"\x30\x80\x00\x00\x00", b"\x30\x82\x01\x00" + bytes(255)])
def test_der_that_is_cut_short_is_none(data: bytes) -> None:
    assert der_of(data) is None
