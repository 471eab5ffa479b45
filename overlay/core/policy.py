"""The policy of a mesh: what evidence it asks for and which measurements are good. Signed by the mesh key."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Any, Final, NoReturn

from overlay.core.certificates import Root
from overlay.core.wire import Array, Bytes, Maybe, UInt, make_map, open_map, parse_sign1, sha256
from overlay.errors import Refused, UsageError
from overlay.registry import COSE_EDDSA, Label, Reason

DIGESTS_MAX: Final = 1024  # our guess: digests of each kind
DIGEST_SIZE: Final = 32
POLICY_MAX: Final = 128 * 1024  # two full lists and their envelope
PCRS: Final = 24  # TCG PC Client platform TPM profile, section 4.6
LEVEL_MAX: Final = 5


@unique
class Attestation(IntEnum):
    """Whether a node must show what it runs."""

    OFF = 0
    PREFER = 1
    REQUIRE = 2


@unique
class Mode(IntEnum):
    """What happens to a node whose measurements are not among the reference values."""

    LEARN = 0
    WARN = 1
    ENFORCE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the mesh asks of its nodes. Two policies with the same fields have the same bytes."""

    version: int  # from 1; only a higher one replaces another
    attestation: Attestation = Attestation.PREFER
    mode: Mode = Mode.ENFORCE
    minimum_level: int = 0
    pcr_bitmap: int = 0  # bit i: PCR i of the SHA-256 bank is quoted
    pcr_digests: tuple[bytes, ...] = ()  # allowed: SHA-256 over the values of those PCRs, 32 bytes each
    manifests: tuple[bytes, ...] = ()  # allowed package manifests, 32 bytes each

    @classmethod
    def default(cls) -> "Policy":
        """What `overlay init` signs, so that first nodes can join: prefer, learn, no reference values."""
        return cls(version=1, mode=Mode.LEARN)

    @property
    def has_tpm_references(self) -> bool:
        """Whether there is anything to compare a quote with; `enforce` without refuses TPM evidence."""
        return bool(self.pcr_bitmap and self.pcr_digests)

    @property
    def pcrs(self) -> tuple[int, ...]:
        """The PCRs that a quote covers, rising."""
        return tuple(index for index in range(PCRS) if self.pcr_bitmap >> index & 1)

    def pack(self) -> bytes:
        """The payload that the mesh key signs."""
        return make_map(
            self.version, int(self.attestation), int(self.mode), self.minimum_level, self.pcr_bitmap,
            list(self.pcr_digests), list(self.manifests),
        )

    @classmethod
    def unpack(cls, payload: bytes) -> "Policy":
        """A policy that names no mode means enforce. Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        version, attestation, mode, minimum_level, bitmap, digests, manifests = open_map(
            payload, UInt(), UInt(max(Attestation)), Maybe(UInt(max(Mode))), UInt(LEVEL_MAX), UInt(2**PCRS - 1),
            Array(Bytes(32), DIGESTS_MAX), Array(Bytes(32), DIGESTS_MAX), limit=POLICY_MAX,
        )
        return cls(
            version=version, attestation=Attestation(attestation), mode=Mode.ENFORCE if mode is None else Mode(mode),
            minimum_level=minimum_level, pcr_bitmap=bitmap, pcr_digests=tuple(digests), manifests=tuple(manifests),
        )


@dataclass(frozen=True, slots=True)
class VerifiedPolicy:
    """A policy that the mesh key has signed, with its signed bytes."""

    policy: Policy
    raw: bytes = field(repr=False)

    @property
    def hash(self) -> bytes:
        """SHA-256 of the signed bytes."""
        return sha256(self.raw)


def verify_policy(raw: bytes, root: Root) -> VerifiedPolicy:
    """Check the mesh key's signature.

    Raises:
        Refused: BAD_POLICY for the signature, MALFORMED, TOO_LARGE or UNSUPPORTED for the form.
    """
    signed = parse_sign1(raw, limit=POLICY_MAX, with_kid=False)
    if signed.algorithm != COSE_EDDSA:
        raise Refused(Reason.BAD_POLICY, "not signed by an Ed25519 key")
    try:
        payload = signed.verify(root.public_key, aad=Label.POLICY + root.mesh_id)
    except Refused:
        raise Refused(Reason.BAD_POLICY, "not signed by the mesh key") from None
    return VerifiedPolicy(Policy.unpack(payload), raw)


# --- from a file that people write ----------------------------------------------------------------------------


def parse_policy_toml(text: str) -> Policy:
    """Read `version`, `attestation`, `mode`, `minimum_level`, `pcrs`, `pcr_digests`, `manifests`; `version` is a must.

    Raises:
        UsageError: naming the key that is unknown or wrong.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"the policy is not TOML: {error}") from None
    unknown = sorted(table.keys() - _READERS.keys())
    if unknown:
        raise UsageError(f"unknown key in the policy: {unknown[0]}", hint=f"known keys: {', '.join(sorted(_READERS))}")
    if "version" not in table:
        raise UsageError("the policy has no version", hint="write `version = 1`, and a higher number with each change")
    fields: dict[str, Any] = {}
    for key, value in table.items():
        name, read = _READERS[key]
        fields[name] = read(key, value)
    return Policy(**fields)


def _whole_number(low: int, high: int) -> Callable[[str, object], int]:
    def read(key: str, value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            _wrong(key, f"a whole number from {low} to {high}")
        return value

    return read


def _choice(kind: type[IntEnum]) -> Callable[[str, object], IntEnum]:
    words: dict[object, IntEnum] = {member.name.lower(): member for member in kind}

    def read(key: str, value: object) -> IntEnum:
        if not isinstance(value, str) or value not in words:
            _wrong(key, " or ".join(f'"{word}"' for word in words))
        return words[value]

    return read


def _pcrs(key: str, value: object) -> int:
    good = isinstance(value, list) and all(type(item) is int and 0 <= item < PCRS for item in value)
    if not isinstance(value, list) or not good or len(set(value)) != len(value):
        _wrong(key, f"a list of different numbers from 0 to {PCRS - 1}")
    return sum(1 << item for item in value)


def _digests(key: str, value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > DIGESTS_MAX:
        _wrong(key, f"a list of at most {DIGESTS_MAX} SHA-256 digests")
    try:
        digests = tuple(bytes.fromhex(item) for item in value)
    except (TypeError, ValueError):
        digests = (b"",)
    if any(len(digest) != DIGEST_SIZE for digest in digests):
        _wrong(key, "a list of SHA-256 digests of 64 hexadecimal digits")
    return digests


def _wrong(key: str, wanted: str) -> NoReturn:
    raise UsageError(f"{key} in the policy is wrong", hint=f"write {wanted}")


_READERS: Final[Mapping[str, tuple[str, Callable[[str, object], Any]]]] = {
    "version": ("version", _whole_number(1, 2**32)),
    "attestation": ("attestation", _choice(Attestation)),
    "mode": ("mode", _choice(Mode)),
    "minimum_level": ("minimum_level", _whole_number(0, LEVEL_MAX)),
    "pcrs": ("pcr_bitmap", _pcrs),
    "pcr_digests": ("pcr_digests", _digests),
    "manifests": ("manifests", _digests),
}
