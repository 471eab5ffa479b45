"""The recovery keys of a mesh: offline Ed25519 keys, m of which may name a new authority when the old one is lost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from overlay.core.keys import point_has_prime_order, verify_ed25519
from overlay.core.wire import Array, Bytes, Kind, Tuple, UInt
from overlay.errors import Refused
from overlay.registry import Reason

RECOVERY_MAX: Final = 16  # our guess
FIELD: Final[Kind] = Tuple((Array(Bytes(32), RECOVERY_MAX), UInt(RECOVERY_MAX)))
SIGNATURES: Final[Kind] = Array(Tuple((UInt(RECOVERY_MAX - 1), Bytes(64))), RECOVERY_MAX)


@dataclass(frozen=True, slots=True)
class RecoveryKeys:
    """Who may recover the mesh, 32 bytes each, and how many of them it takes. None: nobody ever may."""

    keys: tuple[bytes, ...] = ()
    threshold: int = 0

    @classmethod
    def of(cls, *keys: bytes, threshold: int | None = None) -> Self:
        """Keys that a user gives, and a majority of them (2 of 3) unless said; raises ValueError for what is refused."""
        try:
            return cls.checked(keys, len(keys) // 2 + 1 if threshold is None and keys else threshold or 0)
        except Refused as error:
            raise ValueError(error.detail) from None

    @classmethod
    def checked(cls, keys: tuple[bytes, ...], threshold: int) -> Self:
        """Raises Refused(BAD_AUTHORITY_OBJECT)."""
        if len(set(keys)) != len(keys) or len(keys) > RECOVERY_MAX:
            raise Refused(Reason.BAD_AUTHORITY_OBJECT, f"recovery keys are different, and at most {RECOVERY_MAX}")
        if not min(1, len(keys)) <= threshold <= len(keys):
            raise Refused(Reason.BAD_AUTHORITY_OBJECT, "at least one and at most all recovery keys are needed")
        if not all(map(point_has_prime_order, keys)):
            raise Refused(Reason.BAD_AUTHORITY_OBJECT, "a recovery key is not a good Ed25519 key")
        return cls(keys, threshold)

    def verify(self, signatures: Mapping[int, bytes], data: bytes) -> None:
        """That as many of the keys as it takes have signed, each named by its place, and that no signature is bad.

        Raises:
            Refused: BAD_AUTHORITY_OBJECT.
        """
        if not self.keys or len(signatures) < self.threshold:
            raise Refused(Reason.BAD_AUTHORITY_OBJECT, "too few recovery keys have signed")
        for place, signature in signatures.items():
            if place >= len(self.keys):
                raise Refused(Reason.BAD_AUTHORITY_OBJECT, "there is no such recovery key")
            try:
                verify_ed25519(self.keys[place], signature, data)
            except Refused:
                raise Refused(Reason.BAD_AUTHORITY_OBJECT, "a recovery key's signature does not verify") from None
