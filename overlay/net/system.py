"""Randomness and the calendar of this machine, for the ports of the core."""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from overlay.core.epochs import MlKem768
from overlay.core.keys import X25519Pair

Calendar = Callable[[], datetime]


class SystemChance:
    """The `Chance` port over the kernel's generator."""

    kem: Final = MlKem768()

    def token(self, size: int) -> bytes:
        """That many random bytes."""
        return secrets.token_bytes(size)

    def x25519(self) -> X25519Pair:
        """A new key pair."""
        return X25519Pair.from_private(secrets.token_bytes(32))

    def fraction(self) -> float:
        """A number from 0 up to 1."""
        return secrets.randbelow(1 << 30) / (1 << 30)


def wall_clock() -> datetime:
    """The machine's clock; the only place of the library that reads it."""
    return datetime.now(UTC)


def calendar(floor: Callable[[], datetime | None], clock: Callable[[], datetime] = wall_clock) -> Calendar:
    """max(wall clock, floor): validity never moves backwards (docs/protocol/clocks.md)."""

    def at() -> datetime:
        now, low = clock(), floor()
        return now if low is None else max(now, low)

    return at
