"""The state folder of a node: where it lies, its format number, its lock, and the names of all files in it."""

import fcntl
import os
import re
import stat
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from overlay.errors import HostLacks, LocalProtocolError, StateDamaged, StateInUse, UsageError
from overlay.store.files import (
    FILE_MODE,
    FOLDER_MODE,
    check_private,
    checked,
    damaged,
    read_checked,
    read_private,
    sync_folder,
    write_atomic,
)

FORMAT: Final = 1

# All that may lie in a state folder
FORMAT_FILE: Final = "format"
LOCK_FILE: Final = "lock"
SETTINGS: Final = "overlay.toml"
IDENTITY_SEED: Final = "identity.key"
IDENTITY_TPM: Final = "identity.tpm"
AK_TPM: Final = "ak.tpm"
MESH: Final = "mesh.cbor"
CERTIFICATE: Final = "certificate.cbor"
SESSION_KEYS: Final = "session.key"
FOUNDING_KEY: Final = "founding.key"
CLOCK_FLOOR: Final = "clock.cbor"
AUTHORITY: Final = "authority.cbor"
TRUST: Final = "trust.cbor"
ORDERS: Final = "orders.cbor"
INVITES: Final = "invites.cbor"
BINDINGS: Final = "bindings.cbor"
RENEWALS: Final = "renewals.cbor"
MEMBERS: Final = "members.cbor"
SHARE: Final = "share.key"
SHARE_NEXT: Final = "share-next.key"
ROLLOVER: Final = "rollover.cbor"
RECOVERY: Final = "recovery.key"
RENEWAL_ATTEMPT: Final = "renewal.cbor"
RESTORED: Final = "restored.cbor"
UPKEEP: Final = "upkeep.cbor"
GATE_KEYS: Final = "gate.key"
PEERS: Final = "peers.json"
AUDIT_STORE: Final = "audit.sqlite3"
TOPIC_STORE: Final = "topics.sqlite3"
WORK_STORE: Final = "work.sqlite3"
CONTROL_SOCKET: Final = "control.sock"

TRIES: Final = 4
PAUSE: Final = 0.02  # seconds
_NUMBER: Final = re.compile("[0-9]{1,9}")
SYSTEM_FOLDER: Final = Path("/var/lib/overlay/default")


def locate(option: str | None, environment: Mapping[str, str], *, home: Path, root: bool) -> Path:
    """Which folder is meant: option, then $OVERLAY_STATE, then the default place of this user."""
    if option:
        return Path(option)
    if environment.get("OVERLAY_STATE"):
        return Path(environment["OVERLAY_STATE"])
    if root:
        return SYSTEM_FOLDER
    configured = environment.get("XDG_STATE_HOME", "")
    # XDG base directory specification 0.8: relative paths are to be ignored
    base = Path(configured) if configured.startswith("/") else home / ".local" / "state"
    return base / "overlay" / "default"


def default_location(option: str | None = None) -> Path:
    """`locate` for this process. Raises UsageError if nothing is named and this user has no home."""
    home = Path(os.path.expanduser("~"))
    folder = locate(option, os.environ, home=home, root=os.geteuid() == 0)
    if home == Path("~") and home in folder.parents:
        raise UsageError("this user has no home folder", hint="name a state folder with --state")
    return folder


class StateFolder:
    """An open state folder. With the lock it may be written, without only read. A context manager: lets the lock go."""

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path: Final = path
        self._lock = lock

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a folder, 0700, or take an empty one, or one with settings only; locked.

        Raises:
            UsageError: there is something in it already.
            StateDamaged: others may look into it.
            StateInUse: another process is making it.
            HostLacks: it cannot be written.
        """
        try:
            path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make {path}: {error.strerror}") from None
        check_free(path)
        folder = cls(path, _take_lock(path))
        try:
            write_atomic(path / FORMAT_FILE, f"{FORMAT} {_release()}\n".encode())
            sync_folder(path.parent)
        except OSError as error:
            folder.close()
            raise _cannot_write(path, error) from None
        return folder

    @classmethod
    def open(cls, path: Path, *, exclusive: bool) -> Self:
        """Open a folder that `create` made.

        Raises:
            UsageError: there is no node in it.
            StateDamaged: it is of another format, damaged, or open to others.
            StateInUse: another process holds it, where `exclusive`.
        """
        _check_folder(path)
        _check_format(path)
        return cls(path, _take_lock(path) if exclusive else None)

    @property
    def locked(self) -> bool:
        """Whether we hold the lock."""
        return self._lock is not None

    def file(self, name: str) -> Path:
        """Where a file of the folder lies."""
        return self.path / name

    def read(self, name: str) -> bytes | None:
        """A checked file; None where there is none. Raises StateDamaged."""
        return read_checked(self.file(name))

    def remove(self, name: str) -> None:
        """Erase a file: its bytes are overwritten first, for what that is worth on this disk; durable when this returns."""
        path = self.file(name)
        if not path.exists():
            return
        if not self.locked:
            raise LocalProtocolError("a state folder is written by the holder of its lock only")
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
        sync_folder(self.path)

    def write(self, name: str, content: bytes) -> None:
        """Replace a checked file; durable when this returns. Raises HostLacks if the disk does not take it."""
        self._replace(name, checked(content))

    def write_text(self, name: str, text: str) -> None:
        """`write` for a file that people read: without a digest."""
        self._replace(name, text.encode())

    def _replace(self, name: str, data: bytes) -> None:
        if not self.locked:
            raise LocalProtocolError("a state folder is written by the holder of its lock only")
        try:
            write_atomic(self.file(name), data)
        except OSError as error:
            raise _cannot_write(self.file(name), error) from None

    def close(self) -> None:
        """Let the lock go."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.ftruncate(lock, 0)
            os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def check_free(path: Path) -> None:
    """Whether `create` could make a node there: nothing is there, or an empty folder, or one with settings only.

    Raises:
        UsageError: there is something in it already.
        StateDamaged: it is no folder, or others may look into it.
    """
    if not os.path.lexists(path):
        return
    _check_folder(path)
    if any(name not in (LOCK_FILE, FORMAT_FILE, SETTINGS) for name in os.listdir(path)):
        hint = "choose another folder with --state, or use the node that is there"
        raise UsageError(f"{path} is not empty", hint=hint)


def holder(path: Path) -> int | None:
    """The process that holds the folder's lock; None if nobody does, 0 if it has not yet said who it is."""
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(descriptor)
    finally:
        os.close(descriptor)
    return None


def _take_lock(path: Path) -> int:
    """Lock the folder for this process, for as long as the descriptor is open."""
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise _cannot_write(path / LOCK_FILE, error) from None
    if not _lock(descriptor):
        pid = _pid_in(descriptor)
        os.close(descriptor)
        raise StateInUse(str(path), pid)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _lock(descriptor: int) -> bool:
    """Whether it was to be had; `holder` looks at it for a moment, so one refusal is not the last word."""
    for _ in range(TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(PAUSE)
        else:
            return True
    return False


def _pid_in(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _cannot_write(path: Path, error: OSError) -> HostLacks:
    return HostLacks(f"cannot write {path}: {error.strerror}", hint="look at the disk, its space and its permissions")


def _no_node(path: Path) -> UsageError:
    return UsageError(f"there is no node in {path}", hint='make one with "overlay init" or "overlay request"')


def _check_folder(path: Path) -> None:
    """Raises UsageError if it is not there, StateDamaged if others may enter it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise _no_node(path) from None
    except OSError as error:
        raise UsageError(f"cannot look into {path}: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise StateDamaged(f"{path} is not a folder")
    check_private(path, status, FOLDER_MODE)


def _check_format(path: Path) -> None:
    """Raises UsageError where no node was made, StateDamaged for a format that we do not know."""
    data = read_private(path / FORMAT_FILE)
    if data is None:
        raise _no_node(path)
    number, _, release = data.decode("ascii", "replace").strip().partition(" ")
    if not _NUMBER.fullmatch(number):
        raise damaged(path / FORMAT_FILE, "it does not begin with a format number")
    if int(number) != FORMAT:
        raise StateDamaged(
            f"{path} has format {number} and this release knows format {FORMAT}",
            hint=f"use release {release or 'that made it'} of attested-overlay",
        )


def _release() -> str:
    try:
        return version("attested-overlay")
    except PackageNotFoundError:
        return "unreleased"
