"""The certificate of the EK, and those above it, come out of the TPM's own storage."""

from pathlib import Path

import pytest

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from attest.areas import parse_area
from attest.ek_certificates import certificates_in, chain_above
from attest.structures import der_of
from attest.tpm import Tpm
from overlay.core.join_frames import EK_CERTIFICATE_MAX, EK_CHAIN_MAX
from tests.tpm.conftest import Swtpm, Tool
from tests.tpm.local_ca import CHAIN_INDEX, EK_INDEX, LocalCa, store, store_chain

pytestmark = pytest.mark.tpm

CERTIFICATE = b"\x30\x82\x03\xe8" + bytes(range(250)) * 4


def test_a_tpm_without_a_certificate_has_none(tpm: Tpm) -> None:
    assert tpm.endorsement_chain() == ()


@pytest.mark.parametrize("filling", [b"", b"\xff" * 300, bytes(24)])
def test_the_certificate_is_read_without_what_it_was_filled_up_with(
    swtpm: Swtpm, tpm: Tpm, tool: Tool, tmp_path: Path, filling: bytes
) -> None:
    store(swtpm, tool, tmp_path, EK_INDEX, CERTIFICATE + filling)
    assert tpm.endorsement_chain() == (CERTIFICATE,)


def test_what_is_no_certificate_is_none(swtpm: Swtpm, tpm: Tpm, tool: Tool, tmp_path: Path) -> None:
    store(swtpm, tool, tmp_path, EK_INDEX, b"\xff" * 600)
    assert tpm.endorsement_chain() == ()


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x82\x01", b"\x30\x80\x00\x00\x00", b"\x30\x82\x01\x00" + bytes(255)])
def test_der_that_is_cut_short_is_none(data: bytes) -> None:
    assert der_of(data) is None


@pytest.fixture
def authority(tmp_path: Path) -> LocalCa:
    return LocalCa.make(tmp_path / "ca")


def test_certificates_above_the_ek_are_read_out_of_a_row_of_indices(
    swtpm: Swtpm, tpm: Tpm, tool: Tool, tmp_path: Path, authority: LocalCa
) -> None:
    own = authority.certify(parse_area(tpm.endorsement_public()))
    store_chain(swtpm, tool, tmp_path, own, authority.root, authority.between)
    assert len(authority.root + authority.between) > 2048 > len(authority.root)  # one stands over two indices
    assert tpm.endorsement_chain() == (own, authority.between, authority.root)


def test_what_does_not_lead_upwards_is_left_out(
    swtpm: Swtpm, tpm: Tpm, tool: Tool, tmp_path: Path, authority: LocalCa
) -> None:
    own = authority.certify(parse_area(tpm.endorsement_public()))
    store_chain(swtpm, tool, tmp_path, own, CERTIFICATE, authority.between, b"\xff" * 200)
    store(swtpm, tool, tmp_path, CHAIN_INDEX + 0x100, authority.root)  # beyond the last index of a chain
    assert tpm.endorsement_chain() == (own, authority.between)


def test_an_index_that_nobody_may_read_is_as_if_it_were_not_there(
    swtpm: Swtpm, tpm: Tpm, tool: Tool, tmp_path: Path, authority: LocalCa
) -> None:
    own = authority.certify(parse_area(tpm.endorsement_public()))
    store(swtpm, tool, tmp_path, EK_INDEX, own)
    defined = tool.run("tpm2_nvdefine", hex(CHAIN_INDEX), "-C", "o", "-s", "64", "-a", "ownerread|ownerwrite", "-T", swtpm.tcti)
    assert defined.returncode == 0, defined.stderr
    assert tpm.endorsement_chain() == (own,)


def test_a_chain_is_as_long_as_join_takes_it(authority: LocalCa, tpm: Tpm) -> None:
    own = authority.certify(parse_area(tpm.endorsement_public()))
    assert chain_above(authority.root, [authority.root] * 9) == (authority.root,)  # its own issuer, once
    assert chain_above(own, [authority.between[:-1]]) == ()
    assert len((own, *chain_above(own, [authority.between, authority.root]))) <= EK_CHAIN_MAX
    assert certificates_in(own + bytes(9)) == (own,)
    assert max(len(own), len(authority.root)) < EK_CERTIFICATE_MAX
