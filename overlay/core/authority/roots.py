"""Later roots: the certificate of root k by itself, and the cross-certificate of root k by root k-1.

Both say the same of the same key. The cross-certificate begins one second later: two certificates whose issuers bear one
name must not have one serial number (RFC 5280, section 4.1.2.2), and ours follow from the key and the beginning.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from overlay.core.certificate_profile import (
    ED25519_OID,
    Issuer,
    Life,
    authority_to_be_signed,
    bad_certificate,
    open_signed,
    seal,
)
from overlay.core.certificates import Root
from overlay.core.keys import point_has_prime_order, verify_ed25519
from overlay.errors import Refused

CROSS_LATER: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class NextRoot:
    """What the two certificates of a new key say, before anyone has signed them."""

    previous: Root
    spki: bytes
    life: Life

    @classmethod
    def of(cls, previous: Root, public_key: bytes, not_before: datetime, not_after: datetime) -> "NextRoot":
        """For the 32 bytes of a new group key; raises ValueError for what is no life or no key."""
        if not point_has_prime_order(public_key):
            raise ValueError("not a good Ed25519 key")
        key = ed25519.Ed25519PublicKey.from_public_bytes(public_key)
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(previous, spki, Life.between(not_before, not_after))

    @property
    def root_to_be_signed(self) -> bytes:
        """TBSCertificate for the new key."""
        issuer = Issuer(self.previous.mesh_id, self.previous.name, self.spki)
        return authority_to_be_signed(issuer, self.spki, self.previous.name, self.life)

    @property
    def cross_to_be_signed(self) -> bytes:
        """TBSCertificate for the key before it."""
        life = Life.between(self.life.not_before + CROSS_LATER, self.life.not_after)
        return authority_to_be_signed(self.previous.issuer, self.spki, self.previous.name, life)

    def seal_root(self, signature: bytes) -> Root:
        """The root, checked; raises Refused(BAD_CERTIFICATE) for a bad signature."""
        return parse_next_root(seal(self.root_to_be_signed, ED25519_OID, signature), self.previous)

    def seal_cross(self, signature: bytes) -> bytes:
        """The cross-certificate, checked, DER; raises Refused(BAD_CERTIFICATE) for a bad signature."""
        der = seal(self.cross_to_be_signed, ED25519_OID, signature)
        _check(der, self.cross_to_be_signed, self.previous.public_key)
        return der


def parse_next_root(der: bytes, previous: Root) -> Root:
    """A self-signed root of the same mesh and another key. That it follows `previous` is for others to show.

    Raises:
        Refused: BAD_CERTIFICATE.
    """
    open_signed(der)  # no more than so many bytes
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        life = Life.between(certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        bad_certificate("content of a later root")
    if not isinstance(key, ed25519.Ed25519PublicKey) or not point_has_prime_order(key.public_bytes_raw()):
        bad_certificate("a later root's key is not a good Ed25519 key")
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if spki == previous.spki:
        bad_certificate("a later root has another key")
    _check(der, NextRoot(previous, spki, life).root_to_be_signed, key.public_bytes_raw())
    return Root(der, spki, key.public_bytes_raw(), previous.mesh_id, previous.name, life)


def check_cross(der: bytes, root: Root, previous: Root) -> None:
    """That the previous root vouches for this one, and says of it nothing else.

    Raises:
        Refused: BAD_CERTIFICATE.
    """
    _check(der, NextRoot(previous, root.spki, root.life).cross_to_be_signed, previous.public_key)


def _check(der: bytes, content: bytes, issuer_key: bytes) -> None:
    """These are the bytes that we would have signed, in our envelope, and the key has signed them."""
    signature = open_signed(der).signature.as_bytes()
    if seal(content, ED25519_OID, signature) != der:
        bad_certificate("a root's certificate is not of our profile")
    try:
        verify_ed25519(issuer_key, signature, content)
    except Refused:
        bad_certificate("the signature of a root's certificate does not verify")
