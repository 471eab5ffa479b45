"""Files by what is in them: programs and inputs that this node hands to workers, and what its own runs have written.

A file is named by its SHA-256. Whoever reads one hashes it again: a name here is a place to look, and proves nothing.
"""

import errno
import hashlib
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

from overlay.errors import HostLacks, UsageError

KEPT: Final = timedelta(days=7)  # our guess, as for results
CHUNK: Final = 1024 * 1024
HASH_SIZE: Final = 32
SPARE: Final = 256 * 1024 * 1024  # bytes of the disk that are left to the node, its logs and its state: our guess


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that is kept."""

    hash: bytes  # 32
    size: int


class ArtifactStore:
    """One folder; made when something is kept. All of it may block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, path: Path) -> Kept:
        """A copy of a file. Raises UsageError, HostLacks."""
        try:
            with path.open("rb") as source:
                return self.keep_open(source)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None

    def keep_open(self, source: BinaryIO, most: int | None = None) -> Kept:
        """A copy of what an open file holds from here on. Raises UsageError beyond `most` bytes; HostLacks.

        A disk that is nearly full takes none: who fills it with files shall not end the node.
        """
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            temporary = self._folder / f"new-{secrets.token_hex(8)}"
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as target:
                try:
                    kept = _copy(source, target, most)
                    temporary.replace(self._folder / kept.hash.hex())
                except BaseException:
                    temporary.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise HostLacks(f"{self._folder} takes nothing more: {error.strerror}", hint="look at the disk") from None
        return kept

    def open(self, digest: bytes) -> BinaryIO:
        """Raises KeyError if there is none."""
        try:
            return (self._folder / digest.hex()).open("rb")
        except OSError:
            raise KeyError(digest.hex()) from None

    def forget(self, at: datetime) -> None:
        """What was kept more than a week ago."""
        oldest = (at - KEPT).timestamp()
        for path in self._folder.glob("*"):
            with suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def _copy(source: BinaryIO, target: BinaryIO, most: int | None) -> Kept:
    digest, size = hashlib.sha256(), 0
    while data := source.read(CHUNK):
        disk = os.fstatvfs(target.fileno())
        if disk.f_bavail * disk.f_frsize < SPARE + len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        size += len(data)
        if most is not None and size > most:
            raise UsageError(f"more than {most} bytes")
        digest.update(data)
        target.write(data)
    return Kept(digest.digest(), size)
