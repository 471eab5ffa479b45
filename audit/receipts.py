"""COSE receipts (RFC 9942) as a form of export: the author of a log signs the root to which an entry leads.

    COSE_Sign1, protected {1: -8, 4: kid, 395: 1}, unprotected {396: {-1: [bytes of [size, index, [hash, ...]]]}}, payload nil

395: the tree is that of RFC 9162 over SHA-256. The payload is the root, which whoever verifies works out from the entry.
Signed with no external AAD, unlike everything else that a message key signs: any COSE library can check it.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import cbor2

from overlay.core.keys import Signer, verify_ed25519
from overlay.core.merkle import root_above
from overlay.core.wire import malformed
from overlay.errors import Refused, UsageError
from overlay.registry import COSE_EDDSA, COSE_SIGN1_TAG_BYTE, Reason

STRUCTURE: Final = 395  # RFC 9942: header parameter vds
PROOFS: Final = 396  # vdp
RFC9162_SHA256: Final = 1
INCLUSION: Final = -1
RECEIPT_MAX: Final = 4096  # bytes: a path has at most 53 hashes


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an entry stands in a log of some size, and the path that shows it."""

    index: int
    size: int
    path: tuple[bytes, ...] = field(repr=False)


def make_receipt(place: Place, leaf: bytes, *, signer: Signer, kid: bytes) -> bytes:
    """Sign where an entry stands.

    Args:
        leaf: hash of the entry.
        signer: the author's message key, whose endorsement has the hash `kid`.

    Raises:
        UsageError: the log has one entry only: a path has at least one hash (RFC 9942).
    """
    if not place.path:
        raise UsageError("a log of one entry has no receipts", hint="append another entry first")
    protected = cbor2.dumps({1: COSE_EDDSA, 4: kid, STRUCTURE: RFC9162_SHA256}, canonical=True)
    proof = cbor2.dumps([place.size, place.index, list(place.path)])
    signature = signer.sign(_signed(protected, root_above(leaf, place.index, place.size, place.path)))
    return _pack(protected, proof, signature)


def check_receipt(raw: bytes, leaf: bytes, message_public: bytes) -> Place:
    """Verify a receipt of the entry with this hash.

    Raises:
        Refused: MALFORMED, TOO_LARGE; CHAIN_BROKEN, the path leads nowhere; BAD_SIGNATURE, to another root or key.
    """
    if len(raw) > RECEIPT_MAX:
        raise Refused(Reason.TOO_LARGE, f"a receipt of {len(raw)} bytes, {RECEIPT_MAX} are allowed")
    protected, proof, signature = _open(raw)
    try:
        size, index, path = cbor2.loads(proof)
        place = Place(index=index, size=size, path=tuple(path))
        good = type(size) is int and type(index) is int and all(type(node) is bytes for node in path)
    except (cbor2.CBORDecodeError, ValueError, TypeError, RecursionError):
        good = False
    if not good or cbor2.dumps([size, index, list(path)]) != proof:
        malformed("the proof in a receipt")
    verify_ed25519(message_public, signature, _signed(protected, root_above(leaf, index, size, place.path)))
    return place


def kid_of(raw: bytes) -> bytes:
    """Under which endorsement a receipt claims to be signed. Raises Refused(MALFORMED)."""
    headers = cbor2.loads(_open(raw)[0])
    return bytes(headers[4])


def _open(raw: bytes) -> tuple[bytes, bytes, bytes]:
    """Protected header, proof and signature of a receipt in our form, and in no other."""
    try:
        value: Any = cbor2.loads(raw[1:]) if raw[:1] == bytes([COSE_SIGN1_TAG_BYTE]) else None
        protected, unprotected, payload, signature = value
        (proof,) = unprotected[PROOFS][INCLUSION]
        headers = cbor2.loads(protected)
        good = headers[1] == COSE_EDDSA and headers[STRUCTURE] == RFC9162_SHA256 and len(headers[4]) == 32 and payload is None
        good = good and len(headers) == 3 and _pack(protected, proof, signature) == raw and len(signature) == 64
        good = good and cbor2.dumps(headers, canonical=True) == protected
    except (cbor2.CBORDecodeError, cbor2.CBOREncodeError, ValueError, TypeError, KeyError, IndexError, RecursionError):
        good = False
    if not good:
        malformed("not a receipt of ours")
    return protected, proof, signature


def _pack(protected: bytes, proof: bytes, signature: bytes) -> bytes:
    return bytes([COSE_SIGN1_TAG_BYTE]) + cbor2.dumps([protected, {PROOFS: {INCLUSION: [proof]}}, None, signature])


def _signed(protected: bytes, root: bytes) -> bytes:
    """Sig_structure of RFC 9052, section 4.4, with the root as detached payload."""
    return cbor2.dumps(["Signature1", protected, b"", root])
