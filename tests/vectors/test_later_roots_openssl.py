"""The `openssl` command as judge of later roots: a leaf leads to the founding root by cross-certificates, or to its own."""

import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from overlay.core import certificate_profile as profile
from overlay.core.certificate_profile import LeafFacts, Life, seal
from overlay.core.certificates import Root, verify_leaf
from overlay.core.keys import Signer
from tests.unit.core.authority.generations_kit import MESH, THIEF, cross_for, founding, node
from tests.unit.core.authority_kit import DAY, HOUR, NOW

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not here")

ONE = founding().rollover("one")
TWO = ONE.reshared("bcde", 3).rollover("two", "abc", 2, NOW + HOUR)
RESCUE = ONE.recovered("rescue")
AT = NOW + 2 * HOUR


def leaf(root: Root, key: Signer) -> bytes:
    life = Life.between(AT, AT + DAY)
    content = profile.leaf_to_be_signed(root.issuer, node("a").spki, "alice", LeafFacts(), life)
    return seal(content, profile.ED25519_OID, key.sign(content))


UNDER_ONE = leaf(ONE.contents.root, ONE.key)
UNDER_TWO = leaf(TWO.contents.root, TWO.key)
CROSS_ONE, CROSS_TWO = ONE.contents.cross or b"", TWO.contents.cross or b""


def pem(*ders: bytes) -> str:
    return "".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode() for der in ders)


def openssl_accepts(folder: Path, end: bytes, root: bytes, *chain: bytes, at: datetime = AT) -> bool:
    (folder / "root.pem").write_text(pem(root))
    (folder / "leaf.pem").write_text(pem(end))
    (folder / "chain.pem").write_text(pem(*chain))
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-attime", str(int(at.timestamp()))]
    command += ["-no-CApath", "-no-CAstore", "-CAfile", "root.pem"] + (["-untrusted", "chain.pem"] if chain else [])
    return subprocess.run([*command, "leaf.pem"], cwd=folder, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("end", "root", "chain"),
    [
        (UNDER_ONE, MESH.root, [CROSS_ONE]),
        (UNDER_ONE, ONE.contents.root, []),
        (UNDER_TWO, MESH.root, [CROSS_TWO, CROSS_ONE]),
        (UNDER_TWO, ONE.contents.root, [CROSS_TWO]),
        (UNDER_TWO, TWO.contents.root, []),
        (leaf(RESCUE.contents.root, RESCUE.key), RESCUE.contents.root, []),
    ],
)
def test_openssl_and_we_accept_a_leaf_up_to_the_founding_root_and_under_its_own(
    tmp_path: Path, end: bytes, root: Root, chain: list[bytes]
) -> None:
    assert openssl_accepts(tmp_path, end, root.der, *chain)
    assert verify_leaf(end, chain, root, AT).name == "alice"


@pytest.mark.parametrize(
    ("end", "root", "chain"),
    [
        (UNDER_ONE, MESH.root, []),
        (UNDER_TWO, MESH.root, [CROSS_TWO]),
        (UNDER_TWO, MESH.root, [CROSS_ONE]),
        (UNDER_TWO, ONE.contents.root, []),
        (UNDER_ONE, TWO.contents.root, []),
        (UNDER_ONE, MESH.root, [cross_for(MESH.root, THIEF, ONE.key)]),
        (leaf(RESCUE.contents.root, RESCUE.key), MESH.root, [CROSS_ONE]),
        (leaf(ONE.contents.root, THIEF), MESH.root, [CROSS_ONE]),
    ],
)
def test_openssl_refuses_what_no_root_vouches_for(tmp_path: Path, end: bytes, root: Root, chain: list[bytes]) -> None:
    assert not openssl_accepts(tmp_path, end, root.der, *chain)


def test_no_two_certificates_of_roots_have_one_serial_number() -> None:
    every = [MESH.root.der, ONE.contents.root.der, CROSS_ONE, TWO.contents.root.der, CROSS_TWO]
    read = [x509.load_der_x509_certificate(der) for der in every]
    assert {certificate.issuer for certificate in read} == {read[0].issuer}
    assert len({certificate.serial_number for certificate in read}) == len(read)
