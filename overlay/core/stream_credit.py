"""Credit: how much each direction of a stream may carry, so that a reader bounds what waits for it.

Windows begin at 256 KiB, or less if the opener says so, and double while they are read fast. All windows of a link together are
bounded, and growth leaves a quarter of that to streams that are opened later.
"""

from typing import Final

from overlay.core.limits import WINDOW_GROWS_WITHIN, WINDOW_MAX, StreamLimits
from overlay.errors import Refused
from overlay.registry import Reason

DEFAULT_LIMITS: Final = StreamLimits()


class Budget:
    """What all receiving windows of a link take."""

    __slots__ = ("_limits", "_taken")

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self._taken = 0

    def open(self, size: int) -> bool:
        """Whether there was room for one first window more; then it is taken."""
        return self._take(size, self._limits.windows)

    def grow(self, size: int) -> bool:
        """Whether there was room for a window to grow by so many bytes; then they are taken."""
        return self._take(size, self._limits.grown)

    def _take(self, size: int, most: int) -> bool:
        if self._taken + size > most:
            return False
        self._taken += size
        return True

    def give_back(self, size: int) -> None:
        """A window is closed."""
        self._taken -= size


class Window:
    """The receiving side of one stream. `limit` counts all bytes that the peer may ever have sent; it never falls."""

    __slots__ = ("_mark", "_mark_at", "consumed", "limit", "received", "size")

    def __init__(self, size: int, now: float) -> None:
        self.size = size
        self.limit = size
        self.received = 0
        self.consumed = 0
        self._mark = 0  # where in the stream, and when, the window under way began
        self._mark_at = now

    def has_room(self, size: int) -> bool:
        """Whether the peer may send so many bytes more."""
        return self.received + size <= self.limit

    def check(self, size: int) -> None:
        """Raises Refused(FLOW_CONTROL) if the peer may not send so many bytes more."""
        if not self.has_room(size):
            raise Refused(Reason.FLOW_CONTROL, f"{self.received + size} bytes where {self.limit} were allowed")

    def renew(self, now: float, budget: Budget) -> bool:
        """Raise the limit once half a window was read. Whether the peer must be told."""
        if self.consumed + self.size - self.limit < self.size // 2:
            return False
        if self.consumed - self._mark >= self.size:
            if now - self._mark_at <= WINDOW_GROWS_WITHIN and self.size < WINDOW_MAX and budget.grow(self.size):
                self.size *= 2
            self._mark, self._mark_at = self.consumed, now
        self.limit = self.consumed + self.size
        return True
