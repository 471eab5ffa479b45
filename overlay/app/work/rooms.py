"""The room of a run: a root of its own, in memory, with the system's programs to read and one folder to write.

    /usr /bin /lib ...    the machine's, read-only; nothing of /home, /root, /var or the node's state folder is there
    /etc                  what the C library and TLS need, and names of hosts where the run has the network
    /job                  inputs, and what the run writes; begins with the inputs alone. /tmp is for scratch
    /dev                  null, zero, full, random, urandom
    /proc                 of its own processes only
"""

import errno
import math
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from overlay.app.work import kernel

JOB: Final = "/job"
STREAMS: Final = ("stdout", "stderr")
SYSTEM: Final = ("bin", "sbin", "lib", "lib32", "lib64", "usr")
FROM_ETC: Final = ("alternatives", "ld.so.cache", "localtime", "ssl", "ca-certificates", "pki")
FOR_NETWORK: Final = ("hosts", "nsswitch.conf", "resolv.conf", "services", "gai.conf")
DEVICES: Final = ("null", "zero", "full", "random", "urandom")
LINKS: Final = {"dev/fd": "/proc/self/fd", "dev/stdin": "/proc/self/fd/0", "dev/shm": "../tmp", "etc/mtab": "/proc/mounts"}
SPARE: Final = 1024 * 1024  # bytes beyond inputs and output, for pages that are not full: then the count has ended the run
PLAIN: Final = kernel.MS_NOSUID | kernel.MS_NODEV
FILES_MAX: Final = 4096  # our guess: what a run may make in /job, and as many in /tmp
DEPTH_MAX: Final = 64  # folders in folders: our guess; one that makes more is ended


class Room:
    """Made in the mount namespace of the launcher, before there is a run; `enter` is for the run's first process."""

    def __init__(self, place: str, *, owner: int) -> None:
        self._place = Path(place)
        self._space = self._place / "space"  # the folder and the streams of the run share one bounded file system
        self._files = self._space / "files"
        self._owner = owner
        self._inputs: dict[str, int] = {}

    def build(self, *, network: bool, more: Sequence[str]) -> None:
        """`more`: further folders of the machine to read. Raises OSError."""
        place = self._place
        kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("tmpfs", str(place), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
        for name in ("proc", "job", "tmp", "space"):
            (place / name).mkdir()
        for folder in (self._space, place / "tmp"):
            kernel.mount("tmpfs", str(folder), "tmpfs", PLAIN, f"nr_inodes={FILES_MAX},mode=711,size={SPARE}")
        (place / "tmp").chmod(0o1777)
        self._show_system(network=network, more=more)
        self._files.mkdir(0o700)
        os.chown(self._files, self._owner, self._owner)
        kernel.bind(str(self._files), str(place / "job"))
        for name in STREAMS:
            (self._space / name).touch(0o600)

    def _show_system(self, *, network: bool, more: Sequence[str]) -> None:
        place = self._place
        for name in SYSTEM:
            self._show(Path("/", name))
        for name in (*FROM_ETC, *(FOR_NETWORK if network else ())):
            self._show(Path("/etc", name))
        for folder in more:
            self._show(Path(folder))
        (place / "dev").mkdir()
        for name in DEVICES:
            (place / "dev" / name).touch()
            kernel.bind(f"/dev/{name}", str(place / "dev" / name))
        for name, target in LINKS.items():
            (place / name).symlink_to(target)

    def _show(self, source: Path) -> None:
        """At the same place; what is not there, or is there already, needs nothing."""
        target = self._place / source.relative_to("/")
        if not source.exists() or target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink() and source.parent == Path("/"):
            target.symlink_to(source.readlink())
        elif source.is_dir():
            target.mkdir()
            kernel.bind_to_read(str(source), str(target))
        else:
            target.touch()
            kernel.bind_to_read(str(source.resolve()), str(target))

    def widen(self, *, output: int, inputs: int) -> None:
        """Bytes that the run may write, and bytes of all its inputs. Raises OSError."""
        for folder, size in ((self._space, output + inputs), (self._place / "tmp", output)):
            kernel.mount("", str(folder), "", kernel.MS_REMOUNT | PLAIN, f"size={size + SPARE}")

    def put(self, name: str, descriptor: int, size: int) -> None:
        """An input. Raises OSError."""
        path = self._files / name
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            offset = 0
            while offset < size:
                offset += os.sendfile(target, descriptor, offset, size - offset)
        finally:
            os.close(target)
        self._inputs[name] = size

    def open_stream(self, name: str) -> int:
        """What the run writes on standard output or error."""
        return os.open(self._space / name, os.O_WRONLY | os.O_APPEND)

    def enter(self) -> int:
        """For the first process of the PID namespace, in a mount namespace of its own.

        Gives a descriptor of /proc/sys as it can be written, for what is set before the run begins. Raises OSError.
        """
        kernel.unshare(kernel.CLONE_NEWNS)
        place = str(self._place)
        kernel.mount("proc", f"{place}/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
        sysctl = os.open(f"{place}/proc/sys", os.O_RDONLY | os.O_DIRECTORY)
        kernel.bind_to_read(f"{place}/proc/sys", f"{place}/proc/sys")
        kernel.mount("", place, "", kernel.MS_REMOUNT | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV)
        kernel.pivot_root(place)
        return sysctl

    @property
    def written(self) -> float:
        """Bytes of all that the run has written, by what its files call their size; math.inf for folders without end."""
        streams = sum((self._space / name).stat().st_size for name in STREAMS)
        folder = _open_folder(self._files)
        return streams + (0 if folder is None else self._size(folder, 0))

    def _size(self, folder: int, depth: int) -> float:
        """Of all in an open folder, which is closed. By descriptors: the run may put a link in the place of any name."""
        found: float = 0 if depth < DEPTH_MAX else math.inf
        try:
            for entry in os.scandir(folder) if depth < DEPTH_MAX else ():
                found += self._size_of(folder, entry.name, depth)
        finally:
            os.close(folder)
        return found

    def _size_of(self, folder: int, name: str, depth: int) -> float:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return 0  # the run has removed it meanwhile
        if stat.S_ISDIR(status.st_mode):
            below = _open_folder(name, folder)
            return 0 if below is None else self._size(below, depth + 1)
        return 0 if not depth and self._inputs.get(name) == status.st_size else status.st_size

    def outputs(self, wanted: tuple[str, ...]) -> Mapping[str, int]:
        """Open descriptors of the streams and of those of the wanted files that are there, when nothing runs any more."""
        found = {name: os.open(self._space / name, os.O_RDONLY) for name in STREAMS}
        for name in wanted:
            path = self._files / name
            if path.is_file() and not path.is_symlink():  # a link would lead out of the room
                found[name] = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        return found


def _open_folder(name: str | Path, within: int | None = None) -> int | None:
    """None for what is no folder any more: one that is removed, or a link that leads out of the room."""
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=within)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
