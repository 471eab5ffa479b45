"""Files that are wholly old or wholly new: written beside, synced, renamed; 0600; checked by a digest when read.

A checked file is SHA-256 of its content and then the content: bit rot and bad copies show before anything is believed.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from overlay.core.wire import sha256
from overlay.errors import StateDamaged

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
FILE_MAX: Final = 16 * 1024 * 1024  # our guess: nothing that we keep this way comes near
DIGEST_SIZE: Final = 32


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file in one step; durable when this returns. One writer per folder: whoever holds its lock."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, *, overwrite: bool = True) -> Iterator[BinaryIO]:
    """`write_atomic` for what is written piece by piece: the file takes its place at the end of the block.

    Raises:
        FileExistsError: there is one by then, unless `overwrite`.
    """
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.replace(beside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            beside.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_private(path: Path) -> bytes | None:
    """The content of a file that nobody else may read; None where there is none.

    Raises:
        StateDamaged: others may read or write it, it is no plain file, or it is too long.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateDamaged(f"{path} cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StateDamaged(f"{path} is not a plain file")
        check_private(path, status, FILE_MODE)
        if status.st_size > FILE_MAX:
            raise StateDamaged(f"{path} is longer than {FILE_MAX} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(FILE_MAX)
    finally:
        os.close(descriptor)


def check_private(path: Path, status: os.stat_result, allowed: int) -> None:
    """Raises StateDamaged if the file or folder is open to others, or another user's."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & ~allowed & 0o777:
        raise StateDamaged(
            f"{path} is open to other users (mode {mode:04o})",
            hint=f'run "chmod {allowed:04o} {path}" if you trust its content',
        )
    if status.st_uid != os.geteuid():
        raise StateDamaged(f"{path} belongs to user {status.st_uid}, not to user {os.geteuid()}")


def checked(content: bytes) -> bytes:
    """The bytes of a checked file: the digest in front."""
    return sha256(content) + content


def read_checked(path: Path) -> bytes | None:
    """The content of a checked file; None where there is no file. Raises StateDamaged, which names the file."""
    data = read_private(path)
    if data is None:
        return None
    content = data[DIGEST_SIZE:]
    if sha256(content) != data[:DIGEST_SIZE]:
        raise damaged(path, "its content does not fit its digest")
    return content


def damaged(path: Path, what: str) -> StateDamaged:
    """The error for a file that does not hold what it should."""
    hint = "it was left as it is; restore it from a copy, or start a new state folder"
    return StateDamaged(f"{path} is damaged: {what}", hint=hint)
