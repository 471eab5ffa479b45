"""A filter of system calls for runs: what gets around the other walls, or has had holes again and again, is not there.

Ordinary programs use none of it. Source: seccomp(2), <linux/filter.h>, <linux/seccomp.h>, <asm/unistd.h> of each architecture.
"""

import ctypes
import errno
import os
import struct
from typing import Final, NamedTuple

from overlay.app.work import kernel

LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
EQUALS: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K
ALLOW: Final = 0x7FFF0000
ERRNO: Final = 0x00050000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; the lower half of the argument comes first
X32: Final = 0x40000000  # numbers from here on are of another interface of the same architecture
FAMILIES: Final = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK; vsock is in no namespace, the others have had holes
PR_SET_SECCOMP: Final = 22  # <sys/prctl.h>
MODE_FILTER: Final = 2


class Numbers(NamedTuple):
    """Of one architecture."""

    audit: int  # AUDIT_ARCH_*
    socket: int
    refused: tuple[int, ...]  # bpf, perf_event_open, userfaultfd, open_by_handle_at, io_uring_setup, and the three of keys


OF_MACHINE: Final = {
    "x86_64": Numbers(0xC000003E, 41, (321, 298, 323, 304, 425, 248, 249, 250)),
    "aarch64": Numbers(0xC00000B7, 198, (280, 241, 282, 265, 425, 217, 218, 219)),
    "riscv64": Numbers(0xC00000F3, 198, (280, 241, 282, 265, 425, 217, 218, 219)),
}


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def filter_of(machine: str) -> bytes:
    """The filter, as the kernel reads it: no calls of other interfaces, none of the refused ones, few families of sockets."""
    numbers = OF_MACHINE[machine]
    refuse = _step(RETURN, ERRNO | errno.EPERM)
    steps = [
        _step(LOAD, ARCHITECTURE), _step(EQUALS, numbers.audit, yes=1), refuse,
        _step(LOAD, NUMBER), _step(AT_LEAST, X32, no=1), refuse,
    ]  # fmt: skip
    for number in numbers.refused:
        steps += [_step(EQUALS, number, no=1), refuse]
    steps += [_step(EQUALS, numbers.socket, yes=1), _step(RETURN, ALLOW), _step(LOAD, FIRST_ARGUMENT)]
    for family in FAMILIES:
        steps += [_step(EQUALS, family, no=1), _step(RETURN, ALLOW)]
    return b"".join([*steps, _step(RETURN, ERRNO | errno.EAFNOSUPPORT)])


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """struct sock_filter; `yes` and `no`: how many steps are left out then."""
    return struct.pack("=HBBI", code, yes, no, value)


def refuse_calls() -> bool:
    """From now on, for this process and all that it starts; whether the kernel can. Raises OSError."""
    content = filter_of(os.uname().machine)
    program = _Program(len(content) // 8, content)
    try:
        kernel.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.addressof(program))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False  # a kernel without filters: the result says so
    return True
