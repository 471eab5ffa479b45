"""Bytes <-> values: length-prefixed strings, our CBOR profile (RFC 8949, section 4.2) and COSE_Sign1 (RFC 9052, section 4.2).

The profile: definite lengths, shortest integers, unsigned integer keys in rising order, no floats, null or tags, depth 8.
`cbor2` alone lets too much through, so tags are refused inside the decoder, types are walked, and what re-encodes to other
bytes is refused.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import cbor2

from overlay.core.keys import NodeId, Signer, verify_signature
from overlay.errors import Refused
from overlay.registry import COSE_EDDSA, COSE_ES256, COSE_SIGN1_TAG_BYTE, Reason

Value = int | bytes | str | bool | Sequence[Any] | Mapping[int, Any]

DEPTH_MAX: Final = 8
UINT_MAX: Final = 2**64 - 1


def sha256(*parts: bytes) -> bytes:
    """H of the protocol: SHA-256 of the parts put together. 32 bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def lv(*parts: bytes) -> bytes:
    """Each part behind its u16 length."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def u32(value: int) -> bytes:
    """Four bytes, big-endian."""
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    """Eight bytes, big-endian."""
    return value.to_bytes(8, "big")


# --- CBOR -----------------------------------------------------------------------------------------------------------


def malformed(detail: str) -> NoReturn:
    """Refuse bytes that are not of the right form."""
    raise Refused(Reason.MALFORMED, detail)


class _NoTags(dict[int, Any]):
    """Stands in for cbor2's table of tag decoders and refuses every tag, the built-in ones too."""

    def get(self, key: int, default: Any = None) -> Any:
        malformed(f"CBOR tag {key}")

    def __missing__(self, key: int) -> Any:
        malformed(f"CBOR tag {key}")


_NO_TAGS: Final = _NoTags()
_UNREADABLE: Final = (
    cbor2.CBORDecodeError, cbor2.CBOREncodeError, RecursionError, ValueError, TypeError, OverflowError, MemoryError,
)


def encode(value: Value) -> bytes:
    """Encode a value of the profile; anything else is our own bug and raises TypeError."""
    try:
        rising = _walk(value)
    except Refused as error:
        raise TypeError(error.detail) from None
    return cbor2.dumps(value) if rising else cbor2.dumps(value, canonical=True)  # sorting takes longer than all the rest


def decode(data: bytes, *, limit: int) -> Any:
    """Decode exactly one value of the profile.

    Raises:
        Refused: TOO_LARGE above `limit` bytes, MALFORMED for anything that is not the one encoding of an allowed value.
    """
    if len(data) > limit:
        raise Refused(Reason.TOO_LARGE, f"{len(data)} bytes where {limit} are allowed")
    try:
        value = cbor2.loads(
            data, semantic_decoders=_NO_TAGS, max_depth=DEPTH_MAX, allow_indefinite=False, allow_duplicate_keys=False
        )
        if not _walk(value):
            malformed("keys of a map are not in rising order")
        if cbor2.dumps(value) != data:
            malformed("not the canonical encoding")
    except Refused:
        raise
    except _UNREADABLE as error:
        malformed(f"CBOR: {error}")
    return value


_PLAIN: Final = frozenset({bytes, str, bool, NodeId})


def _walk(value: object, depth: int = 1) -> bool:
    """Refuse any type that is not of the profile; whether the keys of all maps rise."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if isinstance(value, int):
        if not 0 <= value <= UINT_MAX:
            malformed("integer out of range")
        return True
    if depth > DEPTH_MAX:
        malformed("nested too deep")
    if isinstance(value, dict):
        return _walk_map(value, depth)
    if isinstance(value, list | tuple):
        return _walk_items(value, depth)
    if not isinstance(value, bytes):  # MeshId
        malformed(f"type {kind.__name__}")
    return True


def _walk_items(value: Sequence[object], depth: int) -> bool:
    rising = True
    for item in value:
        if type(item) not in _PLAIN:
            rising = _walk(item, depth + 1) and rising
    return rising


def _walk_map(value: dict[Any, Any], depth: int) -> bool:
    rising, last = True, -1
    for key, item in value.items():
        if type(key) is not int or not 0 <= key <= UINT_MAX:
            malformed("map key is not an unsigned integer")
        rising, last = rising and key > last, key
        if type(item) not in _PLAIN:
            rising = _walk(item, depth + 1) and rising
    return rising


# --- maps {0:1, 1:a, 2:b, ...} --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bytes:
    """A byte string of `low` to `high` bytes; with one number, exactly so many."""

    low: int
    high: int | None = None

    def check(self, value: object) -> None:
        """Raise Refused if the value does not fit."""
        high = self.low if self.high is None else self.high
        if not isinstance(value, bytes) or not self.low <= len(value) <= high:
            malformed(f"wanted {self.low} to {high} bytes")


@dataclass(frozen=True, slots=True)
class Text:
    """A text of at most `high` UTF-8 bytes."""

    high: int

    def check(self, value: object) -> None:
        """Raise Refused if the value does not fit."""
        if not isinstance(value, str) or len(value.encode()) > self.high:
            malformed(f"wanted text of at most {self.high} bytes")


@dataclass(frozen=True, slots=True)
class UInt:
    """An unsigned integer up to `high`."""

    high: int = UINT_MAX

    def check(self, value: object) -> None:
        """Raise Refused if the value does not fit."""
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= self.high:
            malformed(f"wanted an integer up to {self.high}")


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def check(self, value: object) -> None:
        """Raise Refused if the value does not fit."""
        if not isinstance(value, bool):
            malformed("wanted true or false")


@dataclass(frozen=True, slots=True)
class Array:
    """At most `high` items of one kind."""

    kind: "Kind"
    high: int

    def check(self, value: object) -> None:
        """Raise Refused if the value does not fit."""
        if not isinstance(value, list) or len(value) > self.high:
            malformed(f"wanted an array of at most {self.high}")
        for item in value:
            self.kind.check(item)


@dataclass(frozen=True, slots=True)
class Tuple:
    """An array of exactly these kinds."""

    kinds: "tuple[Kind, ...]"

    def check(self, value: object) -> None:
        """Raise Refused if the value does not fit."""
        if not isinstance(value, list) or len(value) != len(self.kinds):
            malformed(f"wanted an array of {len(self.kinds)}")
        for kind, item in zip(self.kinds, value, strict=True):
            kind.check(item)


@dataclass(frozen=True, slots=True)
class Maybe:
    """A field that may be absent; then `open_map` gives None for it."""

    kind: "Kind"

    def check(self, value: object) -> None:
        """Raise Refused if the value is there and does not fit."""
        if value is not None:
            self.kind.check(value)


@dataclass(frozen=True, slots=True)
class Anything:
    """Any value of the profile: for bodies whose form depends on another field."""

    def check(self, value: object) -> None:
        """Every decoded value fits."""


Kind = Bytes | Text | UInt | Flag | Array | Tuple | Maybe | Anything


def make_map(*values: object) -> bytes:
    """Encode {0:1, 1:a, 2:b, ...}; None leaves a field out."""
    return encode({0: 1} | {index: value for index, value in enumerate(values, 1) if value is not None})


def open_map(data: bytes, *kinds: Kind, limit: int) -> list[Any]:
    """Decode {0:1, 1:a, 2:b, ...} whose fields are of the given kinds: the values in order, None where one is absent.

    Raises:
        Refused: MALFORMED or TOO_LARGE; UNSUPPORTED for another format number.
    """
    return read_map(decode(data, limit=limit), *kinds)


def read_map(value: object, *kinds: Kind) -> list[Any]:
    """`open_map` for a value that is decoded already."""
    if not isinstance(value, dict):
        malformed("wanted a map")
    if value.get(0) != 1 or value.get(0) is True:
        raise Refused(Reason.UNSUPPORTED, "format number of a map is not 1")
    if max(value) > len(kinds):
        malformed("a map has a field too many")
    found = []
    for index, kind in enumerate(kinds, 1):
        item = value.get(index)
        if item is None and not isinstance(kind, Maybe):
            malformed(f"field {index} is missing")
        kind.check(item)
        found.append(item)
    return found


# --- COSE_Sign1 -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UnverifiedSign1:
    """A COSE_Sign1 of the right form whose signature nobody has checked yet: the payload must not be believed."""

    algorithm: int
    kid: bytes | None
    protected: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    raw: bytes = field(repr=False)

    def verify(self, public_key: bytes, *, aad: bytes) -> bytes:
        """Check the signature and give the payload.

        Args:
            public_key: raw 32 bytes for EdDSA, 65 bytes of the uncompressed point for ES256.
            aad: the label of the kind || mesh_id.

        Raises:
            Refused: BAD_SIGNATURE.
        """
        verify_signature(self.algorithm, public_key, self.signature, _to_be_signed(self.protected, aad, self.payload))
        return self.payload


def _protected(algorithm: int, kid: bytes | None) -> bytes:
    """The protected header {1: alg, 4: kid}, the only one in use."""
    if algorithm == COSE_EDDSA and kid is not None and len(kid) == 32:
        return _PREFIX_WITH_KID + kid
    return cbor2.dumps({1: algorithm} if kid is None else {1: algorithm, 4: kid})


def _to_be_signed(protected: bytes, aad: bytes, payload: bytes) -> bytes:
    """Sig_structure of RFC 9052, section 4.4."""
    return cbor2.dumps(["Signature1", protected, aad, payload])


def sign1(payload: bytes, *, signer: Signer, aad: bytes, kid: bytes | None) -> bytes:
    """Sign `payload` as a tagged COSE_Sign1. The signer may block (a TPM does)."""
    protected = _protected(signer.algorithm, kid)
    signature = signer.sign(_to_be_signed(protected, aad, payload))
    return bytes([COSE_SIGN1_TAG_BYTE]) + cbor2.dumps([protected, {}, payload, signature])


_PREFIX_WITH_KID: Final = cbor2.dumps({1: COSE_EDDSA, 4: bytes(32)})[:-32]
_PROTECTED_EDDSA: Final = _protected(COSE_EDDSA, None)
_PROTECTED_ES256: Final = _protected(COSE_ES256, None)


def parse_sign1(raw: bytes, *, limit: int, with_kid: bool = True) -> UnverifiedSign1:
    """Read a COSE_Sign1 as we write them: with_kid, protected {1: -8, 4: 32 bytes}; without, {1: -7} or {1: -8}.

    Raises:
        Refused: MALFORMED or TOO_LARGE.
    """
    if not raw or raw[0] != COSE_SIGN1_TAG_BYTE:
        malformed("not a COSE_Sign1")
    value = decode(raw[1:], limit=limit - 1)
    if not isinstance(value, list) or len(value) != 4:
        malformed("a COSE_Sign1 has four parts")
    protected, unprotected, payload, signature = value
    if not isinstance(protected, bytes) or unprotected != {} or not isinstance(payload, bytes):
        malformed("header or payload of a COSE_Sign1")
    if not isinstance(signature, bytes) or len(signature) != 64:
        malformed("signature of a COSE_Sign1")
    if with_kid:
        if len(protected) != len(_PREFIX_WITH_KID) + 32 or not protected.startswith(_PREFIX_WITH_KID):
            malformed("protected header of a COSE_Sign1")
        algorithm, kid = COSE_EDDSA, protected[-32:]
    else:
        if protected not in (_PROTECTED_EDDSA, _PROTECTED_ES256):
            malformed("protected header of a COSE_Sign1")
        algorithm, kid = COSE_EDDSA if protected == _PROTECTED_EDDSA else COSE_ES256, None
    return UnverifiedSign1(algorithm, kid, protected, payload, signature, raw)
