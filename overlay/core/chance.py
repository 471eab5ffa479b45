"""The port through which the core gets randomness and new keys, so that a test can hand it the same ones again."""

from typing import Protocol

from overlay.core.epochs import Kem
from overlay.core.keys import X25519Pair


class Chance(Protocol):
    """Randomness as an argument."""

    @property
    def kem(self) -> Kem:
        """ML-KEM-768."""
        ...

    def token(self, size: int) -> bytes:
        """That many random bytes."""
        ...

    def x25519(self) -> X25519Pair:
        """A new key pair."""
        ...

    def fraction(self) -> float:
        """A number from 0 up to 1, for jitter; not a secret."""
        ...
