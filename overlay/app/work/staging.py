"""Bytes that were checked as they came, in memory that nobody can change any more: what runs is what was hashed.

A memfd has no name that could lead elsewhere, and its seals (F_ADD_SEALS, fcntl(2)) hold against everybody, us included.
"""

import fcntl
import os
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Final, Self

import trio

from overlay.core.work.artifact import ExpectedBytes
from overlay.errors import HostLacks, Refused
from overlay.registry import Reason

FILES_MAX: Final = 512  # of them, each a descriptor of this process, which has 1,024 by default: our guess
STAGED_MAX: Final = 1024 * 1024 * 1024  # bytes of artifacts and inputs in memory at once: our guess
MFD_EXEC: Final = 0x10  # <linux/memfd.h>, since Linux 6.3
SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
HASH_BESIDE: Final = 64 * 1024  # bytes from which on hashing has a thread of its own: our guess


@dataclass(frozen=True, slots=True)
class Staged:
    """An artifact or an input, sealed."""

    descriptor: int
    size: int


class Stage:
    """All that is held in memory for the runs of one worker; bounded."""

    def __init__(self, most: int = STAGED_MAX) -> None:
        self._most = most
        self._held = 0
        self._files = 0

    async def take(self, what: str, digest: bytes, size: int, source: AsyncIterable[bytes]) -> Staged:
        """Read a source to its end, as it hashes.

        Raises:
            Refused: ARTIFACT_MISMATCH for bytes that are too many, too few or others; BUSY where there is no room.
        """
        if self._held + size > self._most:
            raise Refused(Reason.BUSY, f"no room for {what}: {size} bytes", hint="artifacts and inputs are held in memory")
        if self._files >= FILES_MAX:
            raise Refused(Reason.BUSY, f"no room for {what}: {self._files} files are held already", hint="place it later")
        sheet = Sheet.make(what, digest, size)
        self._held += size
        self._files += 1
        try:
            async for data in source:
                if len(data) >= HASH_BESIDE:
                    await trio.to_thread.run_sync(sheet.write, data)
                else:
                    sheet.write(data)
            return sheet.seal()
        except BaseException:
            self._held -= size
            self._files -= 1
            sheet.close()
            raise

    def drop(self, staged: Staged) -> None:
        """It is not needed any more; what runs holds it by itself."""
        os.close(staged.descriptor)
        self._held -= staged.size
        self._files -= 1


class Sheet:
    """A memfd that is being filled."""

    def __init__(self, descriptor: int, expected: ExpectedBytes, size: int) -> None:
        self._descriptor = descriptor
        self._expected = expected
        self._size = size

    @classmethod
    def make(cls, what: str, digest: bytes, size: int) -> Self:
        """Empty. Raises HostLacks."""
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        try:
            descriptor = _memfd(flags)
        except OSError as error:
            raise HostLacks(f"no memory file for {what}: {error.strerror}") from None
        return cls(descriptor, ExpectedBytes(what, digest, size), size)

    def write(self, data: bytes) -> None:
        """Some bytes more. Raises Refused(ARTIFACT_MISMATCH) before any byte too many is written."""
        self._expected.take(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def seal(self) -> Staged:
        """All have come. Raises Refused(ARTIFACT_MISMATCH)."""
        self._expected.finish()
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, SEALS)
        return Staged(self._descriptor, self._size)

    def close(self) -> None:
        """Forget it."""
        os.close(self._descriptor)


def _memfd(flags: int) -> int:
    try:
        return os.memfd_create("overlay-work", flags | MFD_EXEC)
    except OSError:
        return os.memfd_create("overlay-work", flags)  # a kernel before 6.3
