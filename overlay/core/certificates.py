"""Our X.509 profile: bytes -> VerifiedCertificate, or Refused.

Nothing inside a certificate is read before its signature has verified, and what was read must give the same bytes again
when the certificate is built anew (`certificate_profile.py`). Rules:

- the chain goes from the leaf's issuer up to a certificate by the founding root, and is empty where that root signed
  (who knows more roots than that one lets it begin below any of them: `roots.py`)
- every signature is Ed25519, by the key of the next certificate up; a root that recovery keys have put in place has only its
  own, and counts where the holder of the founding root says that it is in force
- every certificate is in force at `at`, give or take five minutes
- every certificate is of this mesh
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from overlay.core import certificate_profile as profile
from overlay.core.certificate_profile import Issuer, LeafFacts, Life, Signed, bad_certificate, open_signed
from overlay.core.keys import IdentityKey, MeshId, NodeId, point_has_prime_order, verify_ed25519
from overlay.core.limits import CERTIFICATE_LIFE_MAX, CHAIN_BYTES_MAX, CHAIN_DEPTH_MAX, CLOCK_TOLERANCE
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import COSE_EDDSA, Reason

TOLERANCE: Final = timedelta(seconds=CLOCK_TOLERANCE)
LEAF_LIFE_MAX: Final = timedelta(seconds=CERTIFICATE_LIFE_MAX)


@dataclass(frozen=True, slots=True)
class Root:
    """A root of a mesh: the founding one, which the holder of this value has decided to trust, or one that followed it."""

    der: bytes = field(repr=False)
    spki: bytes = field(repr=False)
    public_key: bytes = field(repr=False)  # 32
    mesh_id: MeshId  # by the founding root
    name: str  # of the mesh
    life: Life
    recovered: "Callable[[], Recovered]" = field(default=dict, repr=False, compare=False)  # of the founding one: those of today

    @property
    def key_hash(self) -> bytes:
        """SHA-256 of the key: what a lineage of roots is made of. 32 bytes."""
        return sha256(self.spki)

    @property
    def issuer(self) -> Issuer:
        """What a certificate says of the one who signed it."""
        return Issuer(self.mesh_id, self.name, self.spki)

    @property
    def identity(self) -> IdentityKey:
        """The mesh key's public half."""
        return IdentityKey(self.spki, COSE_EDDSA, self.public_key)


# Roots that no other one has signed, because recovery keys have put them in place, by their certificates; with each the hash
# of the root before it. Whoever makes this value has verified the authority objects, and has them in force.
Recovered = Mapping[bytes, tuple[bytes, Root]]


@dataclass(frozen=True, slots=True)
class VerifiedCertificate:
    """A node's certificate that has passed every check of `verify_leaf`, or those of `grace.py`: then see `in_grace`."""

    der: bytes = field(repr=False)
    hash: bytes = field(repr=False)  # SHA-256 of der
    node_id: NodeId
    name: str
    facts: LeafFacts
    identity: IdentityKey
    not_before: datetime
    not_after: datetime
    serial: int = field(repr=False)
    lineage: tuple[bytes, ...] = field(default=(), repr=False)  # key hashes of the roots, from the founding one to the issuer
    in_grace: bool = False  # it has ended, and counts for its own renewal only

    @property
    def roles(self) -> tuple[str, ...]:
        """What the node may be, sorted."""
        return self.facts.roles

    @property
    def level(self) -> int:
        """The level found at enrolment, 0 to 5."""
        return self.facts.level

    @property
    def ak_name(self) -> bytes | None:
        """TPM name of the attestation key."""
        return self.facts.ak_name

    @property
    def ak_qualified_name(self) -> bytes | None:
        """TPM qualified name of the attestation key."""
        return self.facts.ak_qualified_name


def parse_root(der: bytes) -> Root:
    """A self-signed Ed25519 root of our profile. Whether to trust it is the caller's decision.

    Raises:
        Refused: BAD_CERTIFICATE.
    """
    content = _Content.read(open_signed(der))
    key = IdentityKey.parse(content.spki)
    if key.algorithm != COSE_EDDSA or not point_has_prime_order(key.public_key):
        bad_certificate("the root's key is not a good Ed25519 key")
    root = Root(der, content.spki, key.public_key, MeshId.of_root(content.spki), content.name, content.life)
    check_signature(der, key.public_key)
    _same(content, profile.authority_to_be_signed(root.issuer, content.spki, content.name, content.life))
    return root


def verify_leaf(der: bytes, chain: Sequence[bytes], root: Root, at: datetime) -> VerifiedCertificate:
    """Check a node's certificate and all above it, up to the founding root.

    Raises:
        Refused: BAD_CERTIFICATE, OTHER_MESH, CERTIFICATE_EXPIRED or CERTIFICATE_NOT_YET_VALID.
    """
    check_sizes(der, chain)
    roots, recovered = [root], root.recovered()
    for authority in reversed(chain):
        before, found = recovered.get(authority, (b"", None))
        roots.append(found if found and before == roots[-1].key_hash else verify_later_root(authority, roots[-1]))
    return verify_under(der, roots, at)


def check_sizes(der: bytes, chain: Sequence[bytes]) -> None:
    """Raises Refused(BAD_CERTIFICATE) for what is too long to be looked at."""
    if len(chain) > CHAIN_DEPTH_MAX or len(der) + sum(map(len, chain)) > CHAIN_BYTES_MAX:
        bad_certificate(f"a chain has at most {CHAIN_DEPTH_MAX} certificates and {CHAIN_BYTES_MAX} bytes")


def verify_under(der: bytes, roots: Sequence[Root], at: datetime) -> VerifiedCertificate:
    """`verify_leaf` below verified roots, from the founding one to the issuer."""
    found = leaf_of_any_time(der, roots, at)
    check_life(f"{found.name}'s certificate", Life(found.not_before, found.not_after), at)
    return found


def leaf_of_any_time(der: bytes, roots: Sequence[Root], at: datetime) -> VerifiedCertificate:
    """`verify_under` without the leaf's own life: whoever calls this has to look at it (`verify_under`, `grace.py`)."""
    check_life("the mesh's root", roots[0].life, at)
    for root in roots[1:]:
        check_life("a later root", root.life, at)
    issuer = roots[-1].issuer
    content = _read_signed(der, issuer, roots[-1].public_key)
    if content.life.not_after - content.life.not_before > LEAF_LIFE_MAX:
        bad_certificate(f"lives longer than {LEAF_LIFE_MAX}")
    facts = content.facts()
    identity = IdentityKey.parse(content.spki)
    _same(content, profile.leaf_to_be_signed(issuer, content.spki, content.name, facts, content.life))
    return VerifiedCertificate(
        der=der, hash=sha256(der), node_id=identity.node_id, name=content.name, facts=facts, identity=identity,
        not_before=content.life.not_before, not_after=content.life.not_after, serial=content.serial,
        lineage=tuple(root.key_hash for root in roots),
    )


def verify_later_root(der: bytes, above: Root) -> Root:
    """A later root, by the certificate that the root before it signed. When it is in force is for others to ask.

    Raises:
        Refused: BAD_CERTIFICATE or OTHER_MESH.
    """
    issuer = above.issuer
    content = _read_signed(der, issuer, above.public_key)
    key = IdentityKey.parse(content.spki)
    if key.algorithm != COSE_EDDSA or content.name != issuer.name or content.spki == issuer.spki:
        bad_certificate("a later root has another Ed25519 key and the same name")
    _same(content, profile.authority_to_be_signed(issuer, content.spki, content.name, content.life))
    return Root(der, content.spki, key.public_key, above.mesh_id, content.name, content.life)


def _read_signed(der: bytes, issuer: Issuer, issuer_key: bytes) -> "_Content":
    """Read a certificate once its signature has verified."""
    domain = profile.trust_domain(issuer.mesh_id).encode()
    if b"spiffe://" in der and domain not in der:
        raise Refused(Reason.OTHER_MESH, "the certificate names another mesh")
    check_signature(der, issuer_key)
    return _Content.read(open_signed(der))


def check_signature(der: bytes, issuer_key: bytes, *, limit: int = CHAIN_BYTES_MAX) -> None:
    """Ed25519 over the content, and nothing in the envelope that is not in ours; raises Refused(BAD_CERTIFICATE)."""
    signed = open_signed(der, limit=limit)
    content = asn1.encode_der(signed.content)
    signature = signed.signature.as_bytes()
    try:
        verify_ed25519(issuer_key, signature, content)
    except Refused:
        bad_certificate("not signed by the mesh's root")
    if profile.seal(content, profile.ED25519_OID, signature) != der:
        bad_certificate("envelope")


@dataclass(frozen=True, slots=True)
class _Content:
    """What a certificate says, read leniently: `_same` then shows that it was all there is."""

    certificate: x509.Certificate
    spki: bytes
    name: str
    life: Life

    @classmethod
    def read(cls, signed: Signed) -> "_Content":
        """Raises Refused(BAD_CERTIFICATE)."""
        try:
            certificate = x509.load_der_x509_certificate(asn1.encode_der(signed))
            spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            (common_name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            life = Life.between(certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
            bad_certificate("content")
        name = str(common_name.value)
        if not profile.is_name(name):
            bad_certificate("subject is not a name")
        return cls(certificate, spki, name, life)

    @property
    def serial(self) -> int:
        """As `profile.serial_number` makes it, once `_same` has said so."""
        return self.certificate.serial_number

    def facts(self) -> LeafFacts:
        """What our extension says; raises Refused(BAD_CERTIFICATE)."""
        try:
            extension = self.certificate.extensions.get_extension_for_oid(profile.EXTENSION_OID).value
            return LeafFacts.unpack(extension.public_bytes())
        except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            bad_certificate("extensions")
        except Refused as error:
            bad_certificate(f"our extension: {error}")


def _same(content: _Content, expected: bytes) -> None:
    """Our own builder would have made these very bytes: serial, names, extensions, encoding."""
    if content.certificate.tbs_certificate_bytes != expected:
        bad_certificate("not of our profile")


def check_life(whose: str, life: Life, at: datetime) -> None:
    """Refuse before and after; the error shows both times."""
    if at + TOLERANCE < life.not_before:
        detail = f"{whose} is valid from {show_time(life.not_before)}, it is now {show_time(at)}"
        raise Refused(Reason.CERTIFICATE_NOT_YET_VALID, detail)
    if at - TOLERANCE > life.not_after:
        detail = f"{whose} expired on {show_time(life.not_after)}, it is now {show_time(at)}"
        raise Refused(Reason.CERTIFICATE_EXPIRED, detail)


def show_time(time: datetime) -> str:
    """UTC, ISO 8601, for errors."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
