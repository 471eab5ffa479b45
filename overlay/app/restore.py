"""How a node comes back from a backup: all of the file is checked first, and what it numbers goes on from a higher number."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from overlay.app.backup import LOOK_AT_DISK
from overlay.errors import HostLacks
from overlay.store.backup import CHECKED, KEPT, BackupReader, Manifest
from overlay.store.files import replacing
from overlay.store.restored import save_count
from overlay.store.state import AUDIT_STORE, FORMAT_FILE, RESTORED, SETTINGS, StateFolder, check_free


def restore_backup(source: BinaryIO, state: Path, passphrase: bytes, at: datetime, *, dry_run: bool = False) -> Manifest:
    """Make the folder of the node anew; blocks. All of the file is checked before anything is written.

    What the node numbers by itself goes on from a number that it cannot have used since: see `overlay.store.restored`.

    Raises:
        UsageError: something is in the folder already, or the file is no backup.
        CheckFailed: the passphrase is wrong, or the file was cut or changed.
        HostLacks: the disk does not take it; nothing is left of what was written.
    """
    check_free(state)
    reader = BackupReader(source, passphrase)
    reader.check()
    if dry_run:
        return reader.manifest
    with StateFolder.create(state) as folder:
        own_settings = folder.file(SETTINGS).exists()
        try:
            _fill(folder, reader, at, own_settings=own_settings)
        except BaseException:
            for name in {*KEPT, RESTORED, FORMAT_FILE} - ({SETTINGS} if own_settings else set()):
                folder.file(name).unlink(missing_ok=True)
            raise
    return reader.manifest


def _fill(folder: StateFolder, reader: BackupReader, at: datetime, *, own_settings: bool) -> None:
    """The identity comes last: a folder that is not whole runs nobody."""
    save_count(folder, max(int(at.timestamp()), reader.manifest.counted + 1))
    waiting: dict[str, bytes] = {}
    for name, pieces in reader.files():
        if name == AUDIT_STORE:
            _write_store(folder, pieces)
        else:
            waiting[name] = b"".join(pieces)
    for name in reversed([name for name in KEPT if name in waiting]):
        if name in CHECKED:
            folder.write(name, waiting[name])
        elif name != SETTINGS or not own_settings:
            folder.write_text(name, waiting[name].decode("utf-8", "replace"))


def _write_store(folder: StateFolder, pieces: Iterator[bytes]) -> None:
    try:
        with replacing(folder.file(AUDIT_STORE)) as file:
            for piece in pieces:
                file.write(piece)
    except OSError as error:
        raise HostLacks(f"cannot write {folder.file(AUDIT_STORE)}: {error.strerror}", hint=LOOK_AT_DISK) from None
