"""The `openssl` command as judge of our certificates: it accepts what we issue; we never accept what it refuses."""

import random
import shutil
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from overlay.core import certificate_profile as profile
from overlay.core.certificate_profile import Issuer, LeafFacts, Life, seal
from overlay.core.certificates import Root, verify_leaf
from overlay.core.keys import Ed25519Signer
from overlay.errors import Refused
from tests.unit.core.authority_kit import DAY, HOUR, NOW, make_member, make_mesh, seed

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not here")

MESH = make_mesh()
OTHER = make_mesh("other")
FACTS = LeafFacts(
    roles=("operator",), person="Ann", level=2, ak_name=bytes(34), ak_qualified_name=bytes(34), policy_version=3
)
LEAVES = {
    "Ed25519": make_member(MESH, "alice").credentials.leaf,
    "P-256 with all facts": make_member(MESH, "bob", tpm_like=True, facts=FACTS).credentials.leaf,
}
MUTATIONS = 200  # per kind of leaf: a few seconds


def pem(*ders: bytes) -> str:
    return "".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode() for der in ders)


class Judge:
    """`openssl verify` with files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def accepts(
        self,
        leaf: bytes,
        *,
        root: bytes = MESH.root.der,
        chain: tuple[bytes, ...] = (),
        purpose: str = "sslclient",
        at: datetime = NOW,
    ) -> bool:
        (self.folder / "root.pem").write_text(pem(root))
        # DER in base64: openssl is to read the mutated bytes itself
        (self.folder / "leaf.der").write_bytes(leaf)
        command = [
            "openssl",
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-attime",
            str(int(at.timestamp())),
            "-CAfile",
            "root.pem",
        ]
        if chain:
            (self.folder / "chain.pem").write_text(pem(*chain))
            command += ["-untrusted", "chain.pem"]
        done = subprocess.run([*command, "leaf.der"], cwd=self.folder, capture_output=True, check=False)
        return done.returncode == 0


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path)


def we_accept(leaf: bytes, *chain: bytes, root: Root = MESH.root, at: datetime = NOW) -> bool:
    try:
        verify_leaf(leaf, chain, root, at)
    except Refused:
        return False
    return True


@pytest.mark.parametrize("kind", LEAVES)
@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_openssl_accepts_what_we_issue_for_both_ends_of_a_connection(judge: Judge, kind: str, purpose: str) -> None:
    assert judge.accepts(LEAVES[kind], purpose=purpose)
    assert we_accept(LEAVES[kind])


@pytest.mark.parametrize("kind", LEAVES)
def test_both_refuse_another_root(judge: Judge, kind: str) -> None:
    assert not judge.accepts(LEAVES[kind], root=OTHER.root.der)
    assert not we_accept(LEAVES[kind], root=OTHER.root)


@pytest.mark.parametrize("kind", LEAVES)
@pytest.mark.parametrize("away", [-HOUR, DAY + HOUR])
def test_both_refuse_a_leaf_before_and_after_its_life(judge: Judge, kind: str, away: timedelta) -> None:
    assert not judge.accepts(LEAVES[kind], at=NOW + away)
    assert not we_accept(LEAVES[kind], at=NOW + away)


@pytest.mark.parametrize("kind", LEAVES)
def test_both_refuse_a_leaf_with_one_flipped_bit(judge: Judge, kind: str) -> None:
    source = random.Random(f"flip {kind}")
    for place in source.sample(range(len(LEAVES[kind])), 60):
        damaged = bytearray(LEAVES[kind])
        damaged[place] ^= 1 << source.randrange(8)
        assert not judge.accepts(bytes(damaged))
        assert not we_accept(bytes(damaged))


def mutated(leaf: bytes, source: random.Random) -> bytes:
    """One to three small changes anywhere; half the time in the content, which the root then signs anew."""
    sign_again = source.random() < 0.5
    data = bytearray(x509.load_der_x509_certificate(leaf).tbs_certificate_bytes if sign_again else leaf)
    for _ in range(source.randint(1, 3)):
        place = source.randrange(len(data))
        change = source.choice(["flip", "set", "cut", "add", "copy"])
        if change == "flip":
            data[place] ^= 1 << source.randrange(8)
        elif change == "set":
            data[place] = source.choice([0, 1, 0x30, 0x7F, 0x80, 0xFF])
        elif change == "cut":
            del data[place]
        elif change == "add":
            data.insert(place, source.randrange(256))
        else:
            data[place : place + 4] = data[source.randrange(len(data)) :][:4]
    if not sign_again:
        return bytes(data)
    try:
        return seal(bytes(data), profile.ED25519_OID, MESH.authority.key.sign(bytes(data)))
    except ValueError:
        return bytes(data)


@pytest.mark.filterwarnings("ignore:Parsed a serial")
@pytest.mark.parametrize("kind", LEAVES)
def test_we_never_accept_a_mutated_leaf_that_openssl_refuses(judge: Judge, kind: str) -> None:
    source = random.Random(f"mutate {kind}")
    ours = theirs = 0
    for _ in range(MUTATIONS):
        leaf = mutated(LEAVES[kind], source)
        accepted = judge.accepts(leaf)
        theirs += accepted
        if we_accept(leaf):
            ours += 1
            assert accepted, leaf.hex()
    assert ours <= theirs


def test_openssl_accepts_every_valid_leaf_that_the_authority_can_issue(judge: Judge) -> None:
    source = random.Random("valid")
    for number in range(40):
        facts = LeafFacts(
            roles=tuple(sorted(source.sample(["operator", "signer", "worker", "x"], source.randint(0, 4)))),
            person=source.choice([None, "Ånn", "x" * 128]),
            level=source.randint(0, 5),
            policy_version=source.randrange(2**64),
        )
        life = timedelta(seconds=source.randint(120, 7 * 86_400))
        name = source.choice(["a", "a" * 63, f"node-{number}"])
        leaf = make_member(MESH, name, facts=facts, life=life, tpm_like=bool(number % 2)).credentials.leaf
        assert judge.accepts(leaf)
        assert we_accept(leaf)


def test_both_accept_a_leaf_under_a_later_root_and_refuse_it_without_the_chain(judge: Judge) -> None:
    second = Ed25519Signer(seed("second root"))
    content = profile.authority_to_be_signed(MESH.root.issuer, second.spki, "lab", Life.between(NOW - HOUR, NOW + DAY))
    cross = seal(content, profile.ED25519_OID, MESH.authority.key.sign(content))
    below = Issuer(MESH.mesh_id, "lab", second.spki)
    node = Ed25519Signer(seed("node"))
    content = profile.leaf_to_be_signed(below, node.spki, "carol", LeafFacts(), Life.between(NOW - HOUR, NOW + HOUR))
    leaf = seal(content, profile.ED25519_OID, second.sign(content))
    assert judge.accepts(leaf, chain=(cross,))
    assert we_accept(leaf, cross)
    assert not judge.accepts(leaf)
    assert not we_accept(leaf)


def test_both_refuse_a_leaf_issued_by_a_leaf(judge: Judge) -> None:
    mallory = make_member(MESH, "mallory")
    issuer = Issuer(MESH.mesh_id, "mallory", mallory.signer.spki)
    content = profile.leaf_to_be_signed(
        issuer, Ed25519Signer(seed("node")).spki, "carol", LeafFacts(), Life.between(NOW - HOUR, NOW + HOUR)
    )
    leaf = seal(content, profile.ED25519_OID, mallory.signer.sign(content))
    assert not judge.accepts(leaf, chain=(mallory.credentials.leaf,))
    assert not we_accept(leaf, mallory.credentials.leaf)
