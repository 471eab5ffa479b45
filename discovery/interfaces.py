"""Which network interfaces are worth announcing on, and with which of their addresses."""

import array
import fcntl
import fnmatch
import ipaddress
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import ifaddr

# Containers and virtual machines: their addresses lead nowhere from the LAN, or straight back to us. Told by name and
# not by kind, because inside a container or a namespace of the lab `eth0` is the end of a veth pair too.
SKIPPED: Final = ("docker*", "br-*", "veth*", "virbr*", "cni*", "vEthernet*")

SIOCGIFFLAGS: Final = 0x8913  # Linux, <linux/sockios.h>
IFF_UP: Final = 0x1  # <linux/if.h>

Scoped = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface with its own addresses, as text and without scope; the one to dial first comes first."""

    name: str
    index: int
    addresses: tuple[str, ...]

    @property
    def is_loopback(self) -> bool:
        """Whether it leads nowhere but here."""
        return all(ipaddress.ip_address(address).is_loopback for address in self.addresses)

    @property
    def ipv4(self) -> tuple[str, ...]:
        """Its IPv4 addresses."""
        return tuple(address for address in self.addresses if ":" not in address)


def usable(
    interfaces: Iterable[Interface], *, include_loopback: bool, only: tuple[str, ...] = ()
) -> tuple[Interface, ...]:
    """Those to announce on: no containers; loopback only if asked for, named in `only`, or when nothing else is up."""
    named = [
        interface
        for interface in interfaces
        if interface.addresses and (interface.name in only if only else not _is_skipped(interface.name))
    ]
    outward = [interface for interface in named if not interface.is_loopback]
    return tuple(named if include_loopback or only or not outward else outward)


def _is_skipped(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in SKIPPED)


def list_interfaces() -> tuple[Interface, ...]:
    """Interfaces of this network namespace that are up, by index. It blocks for milliseconds at most."""
    found = []
    for adapter in ifaddr.get_adapters():
        addresses = [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for ip in adapter.ips]
        if adapter.index is not None and _is_up(adapter.name):
            found.append(Interface(adapter.name, adapter.index, tuple(sorted(addresses, key=preference))))
    return tuple(sorted(found, key=lambda interface: interface.index))


def rank(address: str) -> int:
    """Which to dial first: IPv4, then global or unique local IPv6, then link-local, which works on one link only."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return 2 if ip.is_link_local else 0 if ip.version == 4 else 1


def preference(address: str) -> tuple[int, str]:
    """Sorting key: by rank, and always in the same order."""
    return rank(address), address


def scoped(address: str, interface: Interface) -> str:
    """The address as it must be dialled from here: a link-local IPv6 one with the interface it was heard on."""
    bare = address.partition("%")[0]
    ip = ipaddress.ip_address(bare)
    return f"{bare}%{interface.name}" if ip.version == 6 and ip.is_link_local else bare


def _is_up(name: str) -> bool:
    """The flag UP; True when the system does not say (not Linux)."""
    request = array.array("B", struct.pack("16sH14x", name.encode()[:15], 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, SIOCGIFFLAGS, request)
        except OSError:
            return True
    flags: int = struct.unpack_from("H", request, 16)[0]
    return bool(flags & IFF_UP)
