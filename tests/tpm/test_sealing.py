"""A secret that a real TPM 2.0 (swtpm) gives back: this one, in any state, and no other."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from attest.areas import SEALED_TEMPLATE, Attributes
from attest.sealed_key import SealedKey
from attest.tpm import Tpm
from overlay.core.wire import sha256
from overlay.errors import LocalProtocolError, OverlayError, Refused
from tests.tpm.conftest import Swtpm, Tool

pytestmark = pytest.mark.tpm

SECRET = sha256(b"a key that was planted")


@pytest.fixture
def other(tmp_path: Path, tpm_module: ModuleType) -> Iterator[Tpm]:
    """A second TPM."""
    folder = tmp_path / "other"
    folder.mkdir()
    emulator = Swtpm(folder)
    with tpm_module.Tpm.open(emulator.tcti, timeout=20) as opened:
        yield opened
    emulator.stop()


def test_the_tpm_gives_back_what_it_has_sealed(tpm: Tpm) -> None:
    assert tpm.unseal(tpm.seal(SECRET)) == SECRET


def test_it_gives_it_back_after_a_restart_and_with_other_measurements(swtpm: Swtpm, tpm: Tpm) -> None:
    sealed = tpm.seal(SECRET)
    swtpm.stop()
    swtpm.start()
    tpm.extend_pcr(0, sha256(b"new firmware"))
    assert tpm.unseal(sealed) == SECRET


def test_another_tpm_does_not_open_it(tpm: Tpm, other: Tpm) -> None:
    sealed = tpm.seal(SECRET)
    with pytest.raises(OverlayError, match="the TPM refused") as error:
        other.unseal(sealed)
    assert SECRET.hex() not in str(error.value) + repr(error.value)


def test_a_cleared_tpm_does_not_open_it(swtpm: Swtpm, tpm: Tpm, tool: Tool) -> None:
    sealed = tpm.seal(SECRET)
    assert tool.run("tpm2_clear", "-c", "p", "-T", swtpm.tcti).returncode == 0
    with pytest.raises(OverlayError, match="the TPM refused"):
        tpm.unseal(sealed)


@pytest.mark.parametrize("part", ["private", "public"])
def test_what_was_changed_on_the_disk_is_not_opened(tpm: Tpm, part: str) -> None:
    sealed = tpm.seal(SECRET)
    data = getattr(sealed, part)
    with pytest.raises(OverlayError):
        tpm.unseal(replace(sealed, **{part: data[:-1] + bytes([data[-1] ^ 1])}))


def test_a_tpm_that_is_gone_gives_nothing_back(swtpm: Swtpm, tpm: Tpm) -> None:
    sealed = tpm.seal(SECRET)
    swtpm.stop()
    with pytest.raises(OverlayError, match="cannot talk to the TPM"):
        tpm.unseal(sealed)


def test_nothing_stays_loaded(tpm: Tpm, swtpm: Swtpm, tool: Tool) -> None:
    for _ in range(4):
        tpm.unseal(tpm.seal(SECRET))
    for kind in ("handles-transient", "handles-loaded-session"):
        assert tool.run("tpm2_getcap", kind, "-T", swtpm.tcti).stdout.strip() == ""


def test_the_secret_does_not_cross_the_bus_in_the_clear(
    swtpm: Swtpm, tpm_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TCTI_PCAP_FILE", str(tmp_path / "bus"))
    with tpm_module.Tpm.open(f"pcap:{swtpm.tcti}", timeout=20) as watched:
        assert watched.unseal(watched.seal(SECRET)) == SECRET
    data = (tmp_path / "bus").read_bytes()
    assert len(data) > 2000
    assert SECRET not in data


def test_a_sealed_key_is_of_32_bytes_under_no_policy_and_for_this_tpm_only(tpm: Tpm) -> None:
    for size in (0, 31, 33):
        with pytest.raises(LocalProtocolError):
            tpm.seal(bytes(size))
    sealed = tpm.seal(SECRET)
    attributes = int.from_bytes(sealed.public[4:8], "big")
    assert attributes & Attributes.FIXED_TPM
    assert attributes & Attributes.FIXED_PARENT
    assert sealed.public[:10] == SEALED_TEMPLATE[:10]
    assert sealed.public[8:10] == bytes(2)


def test_a_sealed_key_hides_itself_and_is_of_its_kind(tpm: Tpm) -> None:
    sealed = tpm.seal(SECRET)
    assert repr(sealed) == "SealedKey()"
    assert SECRET not in sealed.private
    with pytest.raises(Refused):
        SealedKey(private=sealed.private, public=tpm.create_identity_key().public)
