"""Makes network namespaces and hands them over as file descriptors; a script on its own, with the standard library.

    python -I keeper.py SOCKET_FD USER_FD HUB_FD FIRST COUNT

It works in a process of its own, so that whoever starts it never leaves its own namespaces. Where it may not make
network namespaces, it makes a user namespace first and is root there (user_namespaces(7)). A number of -1 means: make
one. It sends those it made over SOCKET_FD (SCM_RIGHTS), behind three bytes that count user namespaces, hubs and nodes,
and ends: the descriptors keep them alive, and with the last one they are gone. Nothing appears in /run/netns.

Exit code 3, with one line on standard error, when the host does not allow it.
"""

import ctypes
import os
import socket
import subprocess
import sys
from typing import Final

CLONE_NEWUSER: Final = 0x10000000  # <sched.h>
CLONE_NEWNET: Final = 0x40000000
BRIDGE: Final = "lab0"
PREFIX: Final = "10.77.0"  # the LAN in the box is 10.77.0.0/24; nothing of it is seen outside

libc = ctypes.CDLL(None, use_errno=True)


class NotAllowed(Exception):
    """The host does not let us, or lacks something."""


def unshare(flags: int) -> None:
    """unshare(2); raises OSError."""
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def enter(namespace: int, kind: int) -> None:
    """setns(2); raises OSError."""
    if libc.setns(namespace, kind):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def own_namespace(kind: str) -> int:
    """A descriptor of the namespace we are in: "net" or "user"."""
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def become_root() -> int:
    """A new user namespace in which we are root; its descriptor."""
    user, group = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    except OSError as error:
        raise NotAllowed(f"user namespaces are not allowed here ({error.strerror})") from None
    return own_namespace("user")


def new_network() -> int:
    """A new, empty network namespace, which we are in afterwards; its descriptor."""
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        raise NotAllowed(f"network namespaces are not allowed here ({error.strerror})") from None
    return own_namespace("net")


def ip(*commands: str) -> None:
    """Commands for ip(8), in the namespace that we are in; all or NotAllowed."""
    search = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    run = ["ip", "-batch", "-"]
    try:
        subprocess.run(
            run, input="\n".join(commands) + "\n", env={"PATH": search}, check=True, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise NotAllowed("the program ip is missing (Debian package iproute2)") from None
    except subprocess.CalledProcessError as error:
        raise NotAllowed(f"ip: {error.stderr.strip().splitlines()[0]}") from None


def make_hub() -> int:
    """The namespace with the bridge, as plain a switch as there is."""
    hub = new_network()
    ip(
        "link set lo up",
        f"link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        f"link set {BRIDGE} addrgenmode none",
        f"link set {BRIDGE} up",
    )
    return hub


def plug_in(hub: int, node: int, number: int) -> None:
    """A cable from the bridge to eth0 of the node: 10.77.0.NUMBER/24, and a link-local address ready at once."""
    enter(hub, CLONE_NEWNET)
    port, mac, there = f"port{number}", f"02:77:00:00:00:{number:02x}", f"/proc/{os.getpid()}/fd/{node}"
    ip(
        f"link add {port} type veth peer name eth0 address {mac} netns {there}",
        f"link set {port} addrgenmode none",
        f"link set {port} master {BRIDGE} up",
    )
    enter(node, CLONE_NEWNET)
    ip(
        "link set lo up",
        "link set eth0 addrgenmode none",
        f"address add {PREFIX}.{number}/24 brd + dev eth0",
        "link set eth0 up",
        f"address add fe80::77:{number:x}/64 dev eth0 nodad",
        "route add 224.0.0.0/4 dev eth0",
    )


def may_make_networks() -> bool:
    """Whether we can do without a user namespace."""
    try:
        unshare(CLONE_NEWNET)
    except OSError:
        return False
    return True


def main(arguments: list[str]) -> None:
    """See the first lines of this file."""
    channel, user, hub, first, count = (int(text) for text in arguments[:5])
    if user >= 0:
        enter(user, CLONE_NEWUSER)
        users = []
    else:
        users = [] if hub >= 0 or may_make_networks() else [become_root()]
    hubs = []
    if hub < 0:
        hub = make_hub()
        hubs = [hub]
    nodes = [new_network() for _ in range(count)]
    for number, node in enumerate(nodes, first):
        plug_in(hub, node, number)
    with socket.socket(fileno=channel) as sender:
        socket.send_fds(sender, [bytes([len(users), len(hubs), len(nodes)])], [*users, *hubs, *nodes])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except NotAllowed as refusal:
        sys.stderr.write(f"{refusal}\n")
        sys.exit(3)
