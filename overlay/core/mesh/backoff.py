"""When to dial again: decorrelated jitter between 0.25 and 60 s; never giving up on a member."""

from dataclasses import dataclass

from overlay.core import limits


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait before the next dial, in seconds."""

    wait: float = limits.BACKOFF_MIN

    def failed(self, fraction: float) -> "Backoff":
        """After another failure; `fraction` is a random number from 0 up to 1."""
        low, high = limits.BACKOFF_MIN, max(limits.BACKOFF_MIN, self.wait * 3)
        return Backoff(min(limits.BACKOFF_MAX, low + (high - low) * fraction))
