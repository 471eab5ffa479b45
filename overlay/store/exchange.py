"""Request and bundle files outside the state folder: read up to a limit, never overwritten, private if need be."""

import os
from pathlib import Path
from typing import Final

from overlay.core.enrolment_files import FILE_MAX
from overlay.errors import UsageError
from overlay.store.files import sync_folder

_PUBLIC: Final = 0o644
_PRIVATE: Final = 0o600


def read_text(path: Path) -> str:
    """A file that a user named; raises UsageError if it cannot be read or is too long."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > FILE_MAX:
        raise UsageError(f"{path} is longer than {FILE_MAX} bytes")
    return data.decode("utf-8", "replace")


def write_text(path: Path, text: str, *, private: bool) -> None:
    """A new file, 0600 where `private`, else 0644; raises UsageError if there is one already or it cannot be made."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, _PRIVATE if private else _PUBLIC)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError as error:
        hint = "nothing is overwritten: remove it, or name another file" if isinstance(error, FileExistsError) else ""
        raise UsageError(f"cannot write {path}: {error.strerror}", hint=hint) from None
