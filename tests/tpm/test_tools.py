"""tpm2-tools, which share no code with ours, agree with us: on quotes, on attest structures, on credentials."""

from pathlib import Path

import pytest

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attest.areas import PublicArea
from attest.credential import Credential
from attest.quote import check_signature, parse_quote
from attest.structures import Reader, sized
from attest.tpm import Tpm
from overlay.core.wire import sha256
from overlay.errors import Refused
from tests.tpm.conftest import Tool

pytestmark = pytest.mark.tpm

DATA = sha256(b"qualifying data")
BITMAP = 1 << 0 | 1 << 14


def pem(area: PublicArea) -> bytes:
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), area.point)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Quoted:
    """A quote in the files that tpm2_checkquote reads."""

    def __init__(self, folder: Path, tool: Tool, tpm: Tpm) -> None:
        self._folder, self._tool = folder, tool
        ak = tpm.create_attestation_key()
        self.ak, self.other = ak.area, tpm.create_attestation_key().area
        self.attested, self.signature = tpm.quote(ak, DATA, BITMAP)
        self.pcrs = tpm.read_pcr(0) + tpm.read_pcr(14)
        self.key = pem(self.ak)

    def agrees(self, **changed: bytes) -> bool:
        """What tpm2_checkquote says, with some of the parts replaced."""
        parts = {"attested": self.attested, "signature": self.signature, "pcrs": self.pcrs, "key": self.key}
        for name, data in (parts | changed).items():
            (self._folder / name).write_bytes(data)
        files = {name: self._folder / name for name in parts}
        found = self._tool.run(
            "tpm2_checkquote", "-u", files["key"], "-m", files["attested"], "-s", files["signature"], "-g", "sha256",
            "-f", files["pcrs"], "-l", "sha256:0,14", "-q", changed.get("data", DATA).hex(),
        )  # fmt: skip
        return found.returncode == 0


@pytest.fixture
def quoted(tmp_path: Path, tool: Tool, tpm: Tpm) -> Quoted:
    tpm.extend_pcr(14, sha256(b"package"))
    return Quoted(tmp_path, tool, tpm)


def test_checkquote_accepts_our_quote(quoted: Quoted) -> None:
    assert quoted.agrees()


def test_checkquote_refuses_another_nonce(quoted: Quoted) -> None:
    assert not quoted.agrees(data=sha256(b"other"))
    assert parse_quote(quoted.attested).header.extra_data == DATA


def test_checkquote_refuses_another_key_and_so_do_we(quoted: Quoted) -> None:
    assert not quoted.agrees(key=pem(quoted.other))
    with pytest.raises(Refused):
        check_signature(quoted.other, quoted.attested, quoted.signature)


def test_checkquote_refuses_other_pcr_values(quoted: Quoted) -> None:
    assert not quoted.agrees(pcrs=quoted.pcrs[:-1] + bytes([quoted.pcrs[-1] ^ 1]))
    assert parse_quote(quoted.attested).pcr_digest == sha256(quoted.pcrs)


@pytest.mark.parametrize("place", [7, 40, 71])
def test_checkquote_refuses_another_signature_and_so_do_we(quoted: Quoted, place: int) -> None:
    bad = bytearray(quoted.signature)
    bad[place] ^= 1
    assert not quoted.agrees(signature=bytes(bad))
    with pytest.raises(Refused):
        check_signature(quoted.ak, quoted.attested, bytes(bad))


@pytest.mark.parametrize("place", [0, 5, 20, 60, 100, 144])
def test_checkquote_refuses_another_quote_and_so_do_we(quoted: Quoted, place: int) -> None:
    bad = bytearray(quoted.attested)
    bad[place] ^= 1
    assert not quoted.agrees(attested=bytes(bad))
    with pytest.raises(Refused):
        check_signature(quoted.ak, bytes(bad), quoted.signature)


def test_print_reads_what_we_read(quoted: Quoted, tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "quote").write_bytes(quoted.attested)
    printed = tool.run("tpm2_print", "-t", "TPMS_ATTEST", tmp_path / "quote").stdout
    words = dict(line.strip().split(": ", 1) for line in printed.splitlines() if ": " in line)
    quote = parse_quote(quoted.attested)
    assert words["qualifiedSigner"] == quote.header.qualified_signer.hex()
    assert words["extraData"] == DATA.hex()
    assert (int(words["resetCount"]), int(words["restartCount"]), int(words["clock"])) == quote.header.clock
    assert bytes.fromhex(words["firmwareVersion"])[::-1] == quote.header.firmware.to_bytes(8, "big")
    assert words["pcrDigest"] == quote.pcr_digest.hex()
    assert words["pcrSelect"] == "014000"


def test_a_credential_of_makecredential_opens_as_ours_do(tpm: Tpm, tool: Tool, tmp_path: Path) -> None:
    ak, ek_public, secret = tpm.create_attestation_key(), tpm.endorsement_public(), sha256(b"secret")
    (tmp_path / "ek").write_bytes(sized(ek_public))
    (tmp_path / "secret").write_bytes(secret)
    found = tool.run(
        "tpm2_makecredential", "-T", "none", "-u", tmp_path / "ek", "-s", tmp_path / "secret", "-n", ak.area.name.hex(),
        "-o", tmp_path / "credential",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    reader = Reader((tmp_path / "credential").read_bytes()[8:], "credential")  # behind a magic number and a version
    assert tpm.activate(ak, Credential(reader.sized(), reader.sized())) == secret
