"""Bytes that come as they are hashed, and are held to what a workload said of them: never more, never others.

What runs must be these very bytes: the shell writes them to a file that nobody else can reach, and runs or opens that
descriptor, not a name that might lead elsewhere by then.
"""

import hashlib

from overlay.errors import Refused
from overlay.registry import Reason


class ExpectedBytes:
    """One artifact or input on its way in. A source without end is refused at its first byte too many."""

    def __init__(self, what: str, digest: bytes, size: int) -> None:
        """`what`: for messages. `digest`: SHA-256, 32 bytes. `size`: exactly so many bytes."""
        self._what = what
        self._wanted = digest
        self._size = size
        self._taken = 0
        self._hash = hashlib.sha256()

    @property
    def missing(self) -> int:
        """How many bytes are still to come."""
        return self._size - self._taken

    def take(self, data: bytes | memoryview) -> None:
        """Some bytes more; check before they are written anywhere. Raises Refused(ARTIFACT_MISMATCH) beyond the size."""
        if len(data) > self.missing:
            raise Refused(Reason.ARTIFACT_MISMATCH, f"{self._what} has more than {self._size} bytes")
        self._hash.update(data)
        self._taken += len(data)

    def finish(self) -> None:
        """All have come. Raises Refused(ARTIFACT_MISMATCH) if they are too few or others."""
        if self.missing:
            raise Refused(Reason.ARTIFACT_MISMATCH, f"{self._what} has {self._taken} of {self._size} bytes")
        if self._hash.digest() != self._wanted:
            raise Refused(Reason.ARTIFACT_MISMATCH, f"{self._what} is not what the workload names")
