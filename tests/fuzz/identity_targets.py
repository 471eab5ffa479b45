"""Targets: certificates, requests, endorsements, signed policy and authority object, the files of enrolment."""

from contextlib import suppress

from overlay.core.authority.objects import verify_object_zero
from overlay.core.certificate_profile import ED25519_OID, LeafFacts, seal
from overlay.core.certificate_request import verify_request
from overlay.core.certificates import parse_root, verify_leaf
from overlay.core.endorsement import verify_endorsement
from overlay.core.enrolment_files import EnrolmentRequest, SealedBundle, armor, read_bundle
from overlay.core.keys import IdentityKey
from overlay.core.policy import Policy, verify_policy
from overlay.core.policy_file import parse_policy_toml
from overlay.core.wire import sign1
from overlay.errors import Refused, UsageError
from overlay.registry import Label
from tests.fuzz.kit import TPM_MEMBER, cut
from tests.unit.core.session_kit import ALICE, LAB


def certificate(data: bytes) -> None:
    """As it stands, and as content that the root signed: a leaf, a later root above a good leaf, a root."""
    first, rest = cut(data)
    kind = first % 5
    with suppress(Refused):
        if kind == 0:
            verify_leaf(rest, (), LAB.root, LAB.at)
        elif kind == 1:
            verify_leaf(_by_root(rest), (), LAB.root, LAB.at)
        elif kind == 2:
            verify_leaf(ALICE.credentials.leaf, (_by_root(rest),), LAB.root, LAB.at)
        else:
            parse_root(rest if kind == 3 else _by_root(rest))
    with suppress(Refused):
        LeafFacts.unpack(rest)


def _by_root(content: bytes) -> bytes:
    """A certificate with this content. `seal` takes DER only, so what it does not take is no certificate either."""
    try:
        return seal(content, ED25519_OID, LAB.authority.key.sign(content))
    except ValueError:
        return content


def request(data: bytes) -> None:
    """PKCS#10, as it stands and with a signature by the key of a member; public keys."""
    first, rest = cut(data)
    with suppress(Refused):
        verify_request(_by_member(rest) if first & 1 else rest)
    with suppress(Refused):
        IdentityKey.parse(rest)


def _by_member(content: bytes) -> bytes:
    try:
        return seal(content, ED25519_OID, ALICE.signer.sign(content))
    except ValueError:
        return content


def endorsement(data: bytes) -> None:
    """As it stands; as a payload signed by the identity key, on Ed25519 or on P-256. Signed policy and authority object."""
    first, rest = cut(data)
    member = TPM_MEMBER if first & 2 else ALICE
    raw = sign1(rest, signer=member.signer, aad=Label.ENDORSE + LAB.mesh_id, kid=None) if first & 1 else rest
    with suppress(Refused):
        verify_endorsement(raw, member.peer.certificate, LAB.mesh_id, LAB.at)
    with suppress(Refused):
        Policy.unpack(rest)
    by_root = sign1(rest, signer=LAB.authority.key, aad=Label.POLICY + LAB.mesh_id, kid=None) if first & 1 else rest
    with suppress(Refused):
        verify_policy(by_root, LAB.root)
    with suppress(Refused):
        verify_object_zero(rest, LAB.root)


def enrolment(data: bytes) -> None:
    """The files that travel by hand, as text and with their armour made here; the policy that a person writes."""
    first, rest = cut(data)
    text = rest.decode("utf-8", errors="replace")
    if first & 1:
        text = armor(("REQUEST", "BUNDLE", "SEALED BUNDLE")[first % 3], rest)
    with suppress(Refused):
        EnrolmentRequest.from_text(text)
    with suppress(Refused):
        found = read_bundle(text)
        if isinstance(found, SealedBundle):
            found.open(bytes(32))
    if first & 2:
        with suppress(UsageError, Refused):
            parse_policy_toml(text)
