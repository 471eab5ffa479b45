"""Seeds for `identity_targets.py`: good certificates, requests, endorsements, files of enrolment."""

from collections.abc import Iterator

from overlay.core import certificate_profile as profile
from overlay.core.certificate_profile import Issuer, LeafFacts, Life
from overlay.core.certificate_request import build_request
from overlay.core.enrolment_files import Bundle, EnrolmentRequest, TpmParts
from overlay.core.keys import Ed25519Signer
from overlay.core.wire import make_map, parse_sign1
from tests.fuzz.kit import TPM_MEMBER
from tests.fuzz.wire_targets import KEY
from tests.unit.attest.software_tpm import (
    show,
)
from tests.unit.core.authority_kit import DAY, seed
from tests.unit.core.session_kit import ALICE, LAB

AS_IT_IS, SIGNED = b"\0", b"\1"


def _content(der: bytes) -> bytes:
    """What is signed in a certificate or a request: the first element of the outer sequence, with its header."""
    body = der[4:]
    return body[: 4 + int.from_bytes(body[2:4], "big")] if body[1] == 0x82 else body[: 3 + body[2]]


def _later_root() -> bytes:
    key = Ed25519Signer(seed("later root"))
    root = LAB.root
    life = Life.between(LAB.at - DAY, LAB.at + 300 * DAY)
    return profile.authority_to_be_signed(Issuer(LAB.mesh_id, root.name, root.spki), key.spki, root.name, life)


def certificates() -> Iterator[bytes]:
    leaf, root = ALICE.credentials.leaf, LAB.root.der
    yield AS_IT_IS + leaf
    yield b"\1" + _content(leaf)
    yield b"\1" + _content(TPM_MEMBER.credentials.leaf)
    yield b"\2" + _later_root()
    yield b"\3" + root
    yield b"\4" + _content(root)
    yield AS_IT_IS + LeafFacts(roles=("audit", "store")).pack()
    yield b"\1" + _content(leaf).replace(b"\x17\x0d26", b"\x17\x0d52")  # UTCTime of 1952: RFC 5280, section 4.1.2.5.1
    yield b"\4" + _content(root).replace(b"\x17\x0d26", b"\x17\x0d52")


def requests() -> Iterator[bytes]:
    for member in (ALICE, TPM_MEMBER):
        csr = build_request(member.signer, member.name)
        yield AS_IT_IS + csr
        yield SIGNED + _content(csr)
        yield AS_IT_IS + member.signer.spki


def endorsements() -> Iterator[bytes]:
    for flag, member in ((0, ALICE), (2, TPM_MEMBER)):
        raw = member.credentials.endorsement
        yield bytes([flag]) + raw
        yield bytes([flag | 1]) + parse_sign1(raw, limit=4096, with_kid=False).payload
    policy = LAB.trust.policy.raw
    yield AS_IT_IS + policy
    yield SIGNED + parse_sign1(policy, limit=4096, with_kid=False).payload
    yield AS_IT_IS + LAB.authority.object_zero(ALICE.signer)


def enrolment() -> Iterator[bytes]:
    csr = build_request(ALICE.signer, "alice")
    shown = show()
    parts = TpmParts(
        ek_public=shown.ek_public, ak_public=shown.ak_public, identity_public=shown.identity_public,
        certify_attest=shown.attested, certify_signature=shown.signature, parent_name=shown.parent_name,
    )  # fmt: skip
    bundle = Bundle(
        mesh_name="lab", root=b"root", leaf=b"leaf", gate_number=1, gate_key=KEY, policy=b"policy", authority_object=b"object"
    )
    yield b"\2" + EnrolmentRequest(csr).to_text().encode()
    yield b"\3" + make_map(csr, *(getattr(parts, name) for name in TpmParts.__slots__))
    yield b"\2" + bundle.to_text().encode()
    yield b"\1" + bundle.pack()
    sealed = bundle.seal(bytes(32), credential_blob=b"blob", encrypted_secret=b"secret", nonce=bytes(12))
    yield b"\2" + sealed.to_text().encode()
    yield b'\2version = 3\nattestation = "require"\nmode = "enforce"\nminimum_level = 2\npcrs = [0, 7, 14]\n'
