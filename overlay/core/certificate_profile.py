"""The one X.509 form that we issue and accept (RFC 5280, X.509-SVID): from facts to signed bytes, and their envelope.

There is exactly one encoding for given facts, so a verifier builds it again and compares, not field by field.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NoReturn

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, SignatureAlgorithmOID

from overlay.core.keys import MeshId, NodeId, base32
from overlay.core.limits import CHAIN_BYTES_MAX
from overlay.core.wire import Array, Bytes, Maybe, Text, UInt, make_map, malformed, open_map, sha256, u64
from overlay.errors import Refused
from overlay.registry import CERTIFICATE_EXTENSION_OID, Label, Reason

ROLES_MAX: Final = 16  # our guess
ROLE_SIZE_MAX: Final = 32  # our guess
PERSON_MAX: Final = 128  # our guess, UTF-8 bytes
FACTS_MAX: Final = 2048  # twice what all fields at their largest need
LEVEL_MAX: Final = 5
TPM_NAME: Final = Bytes(34, 66)  # nameAlg and a digest of SHA-256 to SHA-512 (TPM 2.0 part 1, section 16)

EXTENSION_OID: Final = x509.ObjectIdentifier(CERTIFICATE_EXTENSION_OID)
ED25519_OID: Final = SignatureAlgorithmOID.ED25519

_PURPOSES: Final = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ROLE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")

# CertificateBuilder gives to-be-signed bytes only with a signature: this key, which is no secret, makes one that is
# thrown away.
THROW_AWAY: Final = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))


def bad_certificate(detail: str) -> NoReturn:
    """Refuse a certificate or a request for one."""
    raise Refused(Reason.BAD_CERTIFICATE, detail)


def is_name(text: str) -> bool:
    """Whether a mesh or a node may have this name: 1 to 63 of a-z, 0-9 and inner hyphens."""
    return _NAME.fullmatch(text) is not None


def is_role(text: str) -> bool:
    """Whether a role may have this name."""
    return _ROLE.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafFacts:
    """What the authority vouches for, beside the name and the key."""

    roles: tuple[str, ...] = ()  # sorted, no two equal
    person: str | None = None
    level: int = 1  # 0 to 5
    ak_name: bytes | None = None  # TPM name of the attestation key
    ak_qualified_name: bytes | None = None
    ek_tag: bytes | None = None  # 32
    policy_version: int = 1

    def pack(self) -> bytes:
        """The value of our certificate extension."""
        return make_map(
            list(self.roles), self.person, self.level, self.ak_name, self.ak_qualified_name, self.ek_tag,
            self.policy_version,
        )

    @classmethod
    def unpack(cls, data: bytes) -> "LeafFacts":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        roles, person, level, ak_name, ak_qualified_name, ek_tag, policy_version = open_map(
            data, Array(Text(ROLE_SIZE_MAX), ROLES_MAX), Maybe(Text(PERSON_MAX)), UInt(LEVEL_MAX), Maybe(TPM_NAME),
            Maybe(TPM_NAME), Maybe(Bytes(32)), UInt(), limit=FACTS_MAX,
        )
        if roles != sorted(set(roles)) or not all(map(is_role, roles)):
            malformed("roles are sorted, different and of a-z, 0-9 and inner hyphens")
        if (ak_name is None) != (ak_qualified_name is None):
            malformed("the attestation key has a name and a qualified name, or neither")
        return cls(
            roles=tuple(roles), person=person, level=level, ak_name=ak_name, ak_qualified_name=ak_qualified_name,
            ek_tag=ek_tag, policy_version=policy_version,
        )


def ek_tag(mesh_id: MeshId, ek_name: bytes) -> bytes:
    """Tells one machine from another within this mesh only: a raw hash would track hardware across meshes. 32 bytes."""
    return sha256(Label.EK, mesh_id, ek_name)


def serial_number(mesh_id: MeshId, key_id: bytes, not_before: datetime) -> int:
    """The only serial that a certificate may have: positive, 20 bytes (RFC 5280, section 4.1.2.2), no choice left."""
    digest = sha256(Label.SERIAL, mesh_id, key_id, u64(int(not_before.timestamp())))[:20]
    return int.from_bytes(bytes([digest[0] & 0x3F | 0x40]) + digest[1:], "big")


def trust_domain(mesh_id: MeshId) -> str:
    """The SPIFFE id of the mesh itself."""
    return f"spiffe://{base32(mesh_id)}"


def spiffe_id(mesh_id: MeshId, node_id: NodeId) -> str:
    """The SPIFFE id of a node: the only subject alternative name in its certificate."""
    return f"{trust_domain(mesh_id)}/node/{base32(node_id)}"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs: name and key of a root."""

    mesh_id: MeshId
    name: str
    spki: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Life:
    """From when to when, in whole seconds UTC."""

    not_before: datetime
    not_after: datetime

    @classmethod
    def between(cls, not_before: datetime, not_after: datetime) -> "Life":
        """Rounded down to seconds, as certificates hold them; raises ValueError for naive, reversed and very old times."""
        if not_before.tzinfo is None or not_after.tzinfo is None or not_after <= not_before:
            raise ValueError("a life has two aware times, the first before the second")
        if not_before.timestamp() < 0:
            raise ValueError("a life begins after 1970: serial numbers count from there")
        return cls(*(time.astimezone(UTC).replace(microsecond=0) for time in (not_before, not_after)))


def leaf_to_be_signed(issuer: Issuer, spki: bytes, name: str, facts: LeafFacts, life: Life) -> bytes:
    """TBSCertificate of a node, with all that `openssl verify -x509_strict -purpose sslclient` and `sslserver` want."""
    node_id = NodeId.of_key(spki)
    builder = (
        _start(issuer, spki, name, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_PURPOSES), critical=False)
        .add_extension(_alternative_name(spiffe_id(issuer.mesh_id, node_id)), critical=False)
        .add_extension(x509.UnrecognizedExtension(EXTENSION_OID, facts.pack()), critical=False)
    )
    return _to_be_signed(builder)


def authority_to_be_signed(issuer: Issuer, spki: bytes, name: str, life: Life) -> bytes:
    """TBSCertificate of a root (signed by itself) or of the next root (signed by the one before).

    The path length is 0: the next root bears the same name, and certificates that name their own issuer do not count
    (RFC 5280, section 4.2.1.9), so roots can follow each other while no authority of another name can stand below.
    """
    builder = (
        _start(issuer, spki, name, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(_alternative_name(trust_domain(issuer.mesh_id)), critical=False)
    )
    return _to_be_signed(builder)


def _start(issuer: Issuer, spki: bytes, name: str, life: Life) -> x509.CertificateBuilder:
    """What both kinds have in common; key identifiers are SHA-256 of the whole key (RFC 7093, section 2, method 4)."""
    return (
        x509.CertificateBuilder()
        .issuer_name(common_name(issuer.name))
        .subject_name(common_name(name))
        .public_key(load_der_public_key(spki))  # type: ignore[arg-type]
        .serial_number(serial_number(issuer.mesh_id, sha256(spki), life.not_before))
        .not_valid_before(life.not_before)
        .not_valid_after(life.not_after)
        .add_extension(x509.SubjectKeyIdentifier(sha256(spki)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(sha256(issuer.spki), None, None), critical=False)
    )


def common_name(name: str) -> x509.Name:
    """A distinguished name of one common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative_name(uri: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )


def _to_be_signed(builder: x509.CertificateBuilder) -> bytes:
    return builder.sign(THROW_AWAY, None).tbs_certificate_bytes


# --- the envelope of certificates and requests ----------------------------------------------------------------------


@asn1.sequence
class Algorithm:
    """AlgorithmIdentifier without parameters (RFC 8410, section 3; RFC 5758, section 3.2)."""

    oid: x509.ObjectIdentifier


@asn1.sequence
class Signed:
    """SIGNED{} of X.509: what is signed, by which algorithm, the signature."""

    content: asn1.TLV
    algorithm: Algorithm
    signature: asn1.BitString


def open_signed(der: bytes, *, limit: int = CHAIN_BYTES_MAX) -> Signed:
    """The three parts, none of them read; raises Refused(BAD_CERTIFICATE)."""
    if len(der) > limit:
        bad_certificate("too long")
    try:
        return asn1.decode_der(Signed, der)
    except ValueError:
        bad_certificate("not DER of the right form")


def seal(content: bytes, oid: x509.ObjectIdentifier, signature: bytes) -> bytes:
    """Put signed DER, the algorithm and its signature into one DER."""
    return asn1.encode_der(
        Signed(
            content=asn1.decode_der(asn1.TLV, content),
            algorithm=Algorithm(oid=oid),
            signature=asn1.BitString(data=signature, padding_bits=0),
        )
    )
