"""COSE_Sign (RFC 9052, section 4.1): one payload under several signatures, for work that two persons sign.

    d8 62 84 = tag 98, [h'', {}, payload, [[protected, {}, signature64], ...]]        protected = {1: -8, 4: kid}

The order of the signatures is part of the bytes and so of their hash: whoever reads them says which stands where.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import cbor2

from overlay.core.keys import Signer, verify_signature
from overlay.core.wire import decode, malformed
from overlay.registry import COSE_EDDSA, COSE_SIGN_TAG

SIGNATURE_SIZE: Final = 64
KID_SIZE: Final = 32
PER_SIGNATURE: Final = 128  # bytes of one signature and its header, rounded up

_PREFIX: Final = cbor2.dumps({1: COSE_EDDSA, 4: bytes(KID_SIZE)})[:-KID_SIZE]


@dataclass(frozen=True, slots=True)
class CoseSignature:
    """One signature, not verified. `kid`: hash of the endorsement that is said to verify it, 32 bytes."""

    kid: bytes
    signature: bytes = field(repr=False)  # 64

    def verify(self, payload: bytes, public_key: bytes, *, aad: bytes) -> None:
        """Check it under a raw Ed25519 key. Raises Refused(BAD_SIGNATURE)."""
        verify_signature(COSE_EDDSA, public_key, self.signature, to_be_signed(payload, self.kid, aad=aad))


@dataclass(frozen=True, slots=True)
class UnverifiedSign:
    """A COSE_Sign of the right form: nobody has checked its signatures, so the payload must not be believed."""

    payload: bytes = field(repr=False)
    signatures: tuple[CoseSignature, ...]


def to_be_signed(payload: bytes, kid: bytes, *, aad: bytes) -> bytes:
    """Sig_structure of RFC 9052, section 4.4, for one of several signers."""
    return cbor2.dumps(["Signature", b"", _PREFIX + kid, aad, payload])


def sign_one(payload: bytes, *, signer: Signer, kid: bytes, aad: bytes) -> CoseSignature:
    """One signature by an Ed25519 key."""
    return CoseSignature(kid, signer.sign(to_be_signed(payload, kid, aad=aad)))


def assemble_sign(payload: bytes, signatures: Sequence[CoseSignature]) -> bytes:
    """The tagged bytes."""
    rows = [[_PREFIX + one.kid, {}, one.signature] for one in signatures]
    return COSE_SIGN_TAG + cbor2.dumps([b"", {}, payload, rows])


def parse_sign(raw: bytes, *, limit: int, most: int) -> UnverifiedSign:
    """Read a COSE_Sign as we write them, with one to `most` signatures.

    Raises:
        Refused: MALFORMED or TOO_LARGE.
    """
    if not raw.startswith(COSE_SIGN_TAG):
        malformed("not a COSE_Sign")
    value = decode(raw[len(COSE_SIGN_TAG) :], limit=limit - len(COSE_SIGN_TAG))
    if not isinstance(value, list) or len(value) != 4:
        malformed("a COSE_Sign has four parts")
    protected, unprotected, payload, rows = value
    if protected != b"" or unprotected != {} or not isinstance(payload, bytes):
        malformed("header or payload of a COSE_Sign")
    if not isinstance(rows, list) or not 1 <= len(rows) <= most:
        malformed(f"a COSE_Sign has 1 to {most} signatures here")
    return UnverifiedSign(payload, tuple(_read_signature(row) for row in rows))


def _read_signature(row: object) -> CoseSignature:
    if not isinstance(row, list) or len(row) != 3:
        malformed("a COSE_Signature has three parts")
    protected, unprotected, signature = row
    if not isinstance(protected, bytes) or not protected.startswith(_PREFIX) or len(protected) != len(_PREFIX) + KID_SIZE:
        malformed("protected header of a COSE_Signature")
    if unprotected != {} or not isinstance(signature, bytes) or len(signature) != SIGNATURE_SIZE:
        malformed("signature of a COSE_Signature")
    return CoseSignature(protected[-KID_SIZE:], signature)
