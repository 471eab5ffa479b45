"""What the launcher asks of Linux and Python has no function for: namespaces, mounts, one's own death with a parent."""

import ctypes
import errno
import os
import re
import signal
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000  # <sched.h>
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
MS_RDONLY: Final = 1  # <sys/mount.h>
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2
PR_SET_PDEATHSIG: Final = 1  # <sys/prctl.h>
PR_SET_DUMPABLE: Final = 4
PR_SET_NO_NEW_PRIVS: Final = 38
PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41, "riscv64": 41}  # system calls: glibc has no function for it
KEYCTL: Final = {"x86_64": 250, "aarch64": 219, "riscv64": 219}
KEYCTL_JOIN_SESSION_KEYRING: Final = 1  # <linux/keyctl.h>

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError."""
    texts = [text.encode() or None for text in (source, target, kind)]
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), options.encode() or None), target)


def bind(source: str, target: str) -> None:
    """Show a file or folder at another place, and what is below it. Raises OSError."""
    mount(source, target, "", MS_BIND | MS_REC)


def bind_to_read(source: str, target: str) -> None:
    """The same read-only, without set-uid programs and devices. Raises OSError."""
    bind(source, target)
    for place in mounts_below(target):  # a remount is of one file system, and there may be others further down
        kept = os.statvfs(place).f_flag & MS_NOEXEC  # a namespace of users may not take such a flag away
        mount("", place, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | kept)


def mounts_below(folder: str) -> list[str]:
    """Where something is mounted, at this place and further down. Raises OSError."""
    with open("/proc/self/mountinfo", "rb") as file:
        places = {os.fsdecode(_unescape(line.split(b" ")[4])) for line in file}
    return sorted(place for place in places if place == folder or place.startswith(f"{folder}/"))


def _unescape(name: bytes) -> bytes:
    """proc_pid_mountinfo(5): space, tab, newline and backslash are octal there."""
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), name)


def pivot_root(root: str) -> None:
    """Make `root` the root of all, and let go of the old one. Raises OSError."""
    os.chdir(root)
    _check(_libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def prctl(option: int, value: int, address: int = 0) -> None:
    """prctl(2) with one value. Raises OSError."""
    _check(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(address), 0, 0), "prctl")


def leave_keyring() -> None:
    """Let go of the session keyring that we were started with, and of all keys in it: keyrings(7). Raises OSError."""
    result = _libc.syscall(KEYCTL[os.uname().machine], KEYCTL_JOIN_SESSION_KEYRING, None)
    if result < 0 and ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM):  # without keys, for us and for what we start
        _check(result, "keyctl")


def no_more_namespaces(sysctl: int) -> None:
    """None of users in the one that we are in: namespaces(7). `sysctl`: /proc/sys, to be written. Raises OSError."""
    with open(os.open("user/max_user_namespaces", os.O_WRONLY, dir_fd=sysctl), "w") as file:
        file.write("0")


def die_with(parent: int) -> None:
    """SIGKILL for us when the thread that forked us ends; at once if that has happened. `parent`: 0 behind a PID namespace."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def map_self(user: int, group: int, *, inside: int) -> None:
    """In a user namespace that we have just entered: who we are there. Raises OSError."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{inside} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{inside} {group} 1")
