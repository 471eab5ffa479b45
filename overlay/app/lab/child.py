"""Starts a program that ends when its parent does; a script that runs on its own, with the standard library.

    python -I child.py PARENT_PID USER_FD NETWORK_FD PROGRAM ARGUMENT...

It enters the namespaces (-1: none), asks to be killed with its parent, and becomes the program. Doing this between fork
and exec inside the parent is not safe once the parent has threads.
"""

import ctypes
import os
import signal
import sys
from typing import Final

CLONE_NEWUSER: Final = 0x10000000  # <sched.h>
CLONE_NEWNET: Final = 0x40000000
PR_SET_PDEATHSIG: Final = 1  # <sys/prctl.h>

libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: int, kind: int) -> None:
    """setns(2), and let go of the descriptor; raises OSError."""
    if libc.setns(namespace, kind):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.close(namespace)


def die_with(parent: int) -> None:
    """SIGKILL for us when the parent's main thread ends; at once if that has happened already."""
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """See the first lines of this file."""
    parent, user, network = (int(text) for text in arguments[:3])
    os.setsid()  # Ctrl-C at the terminal is for the parent, which ends us in order
    if user >= 0:
        enter(user, CLONE_NEWUSER)
    if network >= 0:
        enter(network, CLONE_NEWNET)
    die_with(parent)  # after the namespaces: new credentials clear the request (prctl(2))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # background jobs of a shell inherit that it is ignored
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(arguments[3], arguments[3:])  # noqa: S606 (this is its job)
    except OSError as error:
        sys.stderr.write(f"{arguments[3]}: {error.strerror}\n")
        os._exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
