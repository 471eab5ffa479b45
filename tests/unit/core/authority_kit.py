"""A throw-away mesh for tests: a founding authority, members with all their keys, fixed seeds and a fixed calendar."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from overlay.core.authority.issuance import FoundingAuthority
from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificate_request import build_request, verify_request
from overlay.core.certificates import Root
from overlay.core.endorsement import make_endorsement
from overlay.core.keys import P256_ORDER, Ed25519Signer, MeshId, NodeId, Signer, X25519Pair, low_s
from overlay.core.policy import Policy, verify_policy
from overlay.core.trust import Credentials, TrustSet, VerifiedPeer
from overlay.registry import COSE_ES256

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(hours=24)
HOUR = timedelta(hours=1)


def seed(*words: str) -> bytes:
    """32 bytes that depend on the words only."""
    return hashlib.sha256("\0".join(words).encode()).digest()


class P256Signer:
    """A Signer as a TPM gives it, with the key in memory."""

    algorithm = COSE_ES256

    def __init__(self, secret: bytes) -> None:
        self._key = ec.derive_private_key(int.from_bytes(secret, "big") % (P256_ORDER - 1) + 1, ec.SECP256R1())
        public = self._key.public_key()
        self.public_key = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, data: bytes) -> bytes:
        """r || s, low s; RFC 6979, so that the same data give the same signature."""
        return low_s(*decode_dss_signature(self._key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))))


@dataclass(frozen=True, slots=True)
class Mesh:
    """A founding authority and what follows from it."""

    authority: FoundingAuthority
    trust: TrustSet
    at: datetime

    @property
    def root(self) -> Root:
        """The founding root."""
        return self.authority.root

    @property
    def mesh_id(self) -> MeshId:
        """The mesh."""
        return self.root.mesh_id


@dataclass(frozen=True, slots=True)
class Member:
    """A node of a test mesh with all its keys; `peer` is what others make of its credentials."""

    name: str
    credentials: Credentials
    signer: Signer = field(repr=False)  # identity key
    noise: X25519Pair
    message: Ed25519Signer = field(repr=False)
    start_id: bytes
    peer: VerifiedPeer
    witness: Ed25519Signer | None = field(default=None, repr=False)

    @property
    def node_id(self) -> NodeId:
        """Who it is."""
        return self.peer.node_id

    @property
    def kid(self) -> bytes:
        """Hash of its endorsement."""
        return self.peer.kid


def make_mesh(name: str = "lab", *, policy: Policy | None = None, at: datetime = NOW) -> Mesh:
    """A mesh founded a month before `at`; another name gives another mesh."""
    authority = FoundingAuthority.create(name, seed("root", name), at - 30 * DAY)
    signed = authority.sign_policy(policy or Policy.default())
    return Mesh(authority, TrustSet(authority.root, verify_policy(signed, authority.root)), at)


def make_member(
    mesh: Mesh,
    name: str,
    *,
    facts: LeafFacts | None = None,
    tpm_like: bool = False,
    start: int = 1,
    noise_key: str = "",
    not_before: datetime | None = None,
    life: timedelta = DAY,
    endorsement_life: timedelta | None = None,
    witness: bool = False,
) -> Member:
    """A member whose certificate and endorsement began a minute before the mesh's `at`.

    Args:
        tpm_like: an identity key on P-256 instead of Ed25519.
        start: another number gives other Noise and message keys and another start id.
        noise_key: another word gives another Noise key of the same start.
        endorsement_life: as long as the certificate, at most a day, unless said.
        witness: with a key to cosign checkpoints.
    """
    begin = not_before or mesh.at - timedelta(minutes=1)
    secret = seed("identity", mesh.root.name, name)
    signer: Signer = P256Signer(secret) if tpm_like else Ed25519Signer(secret)
    request = verify_request(build_request(signer, name))
    facts = facts or LeafFacts()
    leaf = mesh.authority.issue(request, name=name, facts=facts, not_before=begin, not_after=begin + life)
    noise = X25519Pair.from_private(seed("noise", mesh.root.name, name, str(start) + noise_key))
    message = Ed25519Signer(seed("message", mesh.root.name, name, str(start)))
    start_id = seed("start", mesh.root.name, name, str(start))[:16]
    cosigner = Ed25519Signer(seed("witness", mesh.root.name, name, str(start))) if witness else None
    endorsement = make_endorsement(
        signer,
        mesh_id=mesh.mesh_id,
        leaf=leaf,
        noise_public=noise.public,
        message=message,
        start_id=start_id,
        not_before=begin,
        not_after=begin + (endorsement_life or min(life, DAY)),
        witness=cosigner,
    )
    credentials = Credentials(endorsement, leaf)
    return Member(name, credentials, signer, noise, message, start_id, mesh.trust.verify(credentials, begin), cosigner)
