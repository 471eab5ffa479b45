"""Certificate requests (PKCS#10, RFC 2986): built with any Signer, also one in a TPM, and checked by the authority.

A request carries a name and a key, nothing else: what the certificate will say is for the authority to decide.
"""

from dataclasses import dataclass, field
from typing import Annotated, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from overlay.core.certificate_profile import ED25519_OID, bad_certificate, common_name, is_name, open_signed, seal
from overlay.core.keys import P256_ORDER, IdentityKey, NodeId, Signer, low_s, verify_signature
from overlay.errors import Refused
from overlay.registry import COSE_EDDSA, COSE_ES256

_OIDS: Final = {COSE_EDDSA: ED25519_OID, COSE_ES256: SignatureAlgorithmOID.ECDSA_WITH_SHA256}


@asn1.sequence
class RequestInfo:
    """CertificationRequestInfo (RFC 2986, section 4.1), here always without attributes."""

    version: int
    subject: asn1.TLV
    spki: asn1.TLV
    attributes: Annotated[asn1.SetOf[asn1.TLV], asn1.Implicit(0)]


@dataclass(frozen=True, slots=True)
class Request:
    """A verified request: whoever made it holds the key."""

    name: str
    identity: IdentityKey
    der: bytes = field(repr=False)

    @property
    def node_id(self) -> NodeId:
        """The id of the node that asks."""
        return self.identity.node_id


def build_request(signer: Signer, name: str) -> bytes:
    """PKCS#10 DER. Blocks as long as the signer does; raises ValueError for what is not a node's name."""
    if not is_name(name):
        raise ValueError(f"{name!r} is not a name")
    content = _content(name, signer.spki)
    signature = signer.sign(content)
    if signer.algorithm == COSE_ES256:
        signature = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    return seal(content, _OIDS[signer.algorithm], signature)


def verify_request(der: bytes) -> Request:
    """Check form and signature.

    Raises:
        Refused: BAD_CERTIFICATE.
    """
    signed = open_signed(der)
    try:
        request = x509.load_der_x509_csr(der)
        spki = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        (attribute,) = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        bad_certificate("not a certificate request")
    name, identity = str(attribute.value), IdentityKey.parse(spki)
    if not is_name(name):
        bad_certificate("the request's subject is not a name")
    content, signature = _content(name, spki), signed.signature.as_bytes()
    if seal(content, _OIDS[identity.algorithm], signature) != der:
        bad_certificate("the request is not of our profile")
    try:
        verify_signature(identity.algorithm, identity.public_key, _raw(identity.algorithm, signature), content)
    except (Refused, ValueError):
        bad_certificate("the request is not signed by the key in it")
    return Request(name, identity, der)


def _content(name: str, spki: bytes) -> bytes:
    """The bytes that are signed."""
    return asn1.encode_der(
        RequestInfo(
            version=0,
            subject=asn1.decode_der(asn1.TLV, common_name(name).public_bytes()),
            spki=asn1.decode_der(asn1.TLV, spki),
            attributes=asn1.SetOf([]),
        )
    )


def _raw(algorithm: int, signature: bytes) -> bytes:
    """r || s with low s (a TPM gives a high s half the time); raises ValueError for what is no signature."""
    if algorithm == COSE_EDDSA:
        return signature
    r, s = decode_dss_signature(signature)
    if not 0 < r < P256_ORDER or not 0 < s < P256_ORDER:
        raise ValueError("out of range")
    return low_s(r, s)
