"""DNS-SD over multicast DNS (RFC 6762, RFC 6763) with python-zeroconf: the only file that imports it.

One station per interface, so that each announces that interface's addresses only. zeroconf runs its own thread and loop
per station; nothing blocks in its callbacks.
"""

import asyncio
import contextlib
import ipaddress
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import trio
import zeroconf

from discovery.announcement import Announcement
from discovery.interfaces import Interface, list_interfaces, preference, scoped, usable
from discovery.search import Heard, Search
from overlay.core.keys import base32
from overlay.core.mesh.found import AnnouncementFacts, Candidate
from overlay.errors import HostLacks

SERVICE: Final = "_overlay._tcp.local."
TTL: Final = 60  # seconds, of every record: a node that lost its power is forgotten soon
POLL: Final = 5.0  # seconds between two looks at the addresses of this host
RESOLVE_TIMEOUT: Final = 3.0  # seconds to ask for the records behind a name
CHANGE_TIMEOUT: Final = 5.0  # seconds for a change of addresses, which takes 0.9

INSTANCE_SIZE: Final = 8  # random bytes in an instance name

IP_MULTICAST_ALL: Final = 49  # Linux, <linux/in.h>; Python does not name them
IPV6_MULTICAST_ALL: Final = 29  # Linux, <linux/in6.h>


class _Listener(zeroconf.ServiceListener):
    """Passes names on, in zeroconf's browser thread."""

    def __init__(self, heard: Callable[[str], None]) -> None:
        self._heard = heard

    def add_service(self, zc: zeroconf.Zeroconf, type_: str, name: str) -> None:
        self._heard(name)

    def update_service(self, zc: zeroconf.Zeroconf, type_: str, name: str) -> None:
        self._heard(name)

    def remove_service(self, zc: zeroconf.Zeroconf, type_: str, name: str) -> None:
        """A goodbye is a hint like all else: whoever has a link keeps it."""


class ZeroconfStation:
    """A Station with python-zeroconf. Every method blocks, and raises OSError where multicast does not work."""

    def __init__(
        self, announcements: Sequence[Announcement], interface: Interface, heard: Callable[[str], None]
    ) -> None:
        """Open the sockets; raises OSError where multicast does not work. `heard` is called in zeroconf's threads.

        Without announcements it only listens.
        """
        self.interface = interface
        # names of this start and interface, one for each announcement: caches cannot mix them up
        self._said = {base32(secrets.token_bytes(INSTANCE_SIZE)): announcement for announcement in announcements}
        bindings = _bindings(interface)
        with _as_os_errors():
            self._zeroconf = zeroconf.Zeroconf(bindings, ip_version=_version(bindings), use_asyncio=False)
        if not self._zeroconf.engine.senders:
            self._zeroconf.close()
            raise OSError(f"no multicast on {interface.name}")
        self._keep_to_interface()
        self._listener = _Listener(heard)
        self._browser: zeroconf.ServiceBrowser | None = None

    def start(self) -> None:
        """Listen, and announce ourselves, if that is wanted; 0.45 s. Random names need no probing."""
        with _as_os_errors():
            # No unicast answers: other responders on this host share port 5353, and any of them would get the answer.
            question = zeroconf.DNSQuestionType.QM
            self._browser = zeroconf.ServiceBrowser(
                self._zeroconf, SERVICE, listener=self._listener, question_type=question
            )
            for service in self._services():
                self._zeroconf.register_service(service, cooperating_responders=True)

    def follow(self, interface: Interface) -> None:
        """The interface's addresses changed, or were not ready before: 1 ms when nothing did, else 0.9 s."""
        moved = interface != self.interface
        self.interface = interface
        assert self._zeroconf.loop is not None
        with _as_os_errors():
            change = self._change(self._services() if moved else [])
            asyncio.run_coroutine_threadsafe(change, self._zeroconf.loop).result(CHANGE_TIMEOUT)
        self._keep_to_interface()

    async def _change(self, services: list[zeroconf.ServiceInfo]) -> None:
        """In zeroconf's loop. The records come first, or new sockets would announce the old addresses."""
        bindings = _bindings(self.interface)
        for service in services:
            self._zeroconf.registry.async_update(service)
        await self._zeroconf.async_update_interfaces(bindings, ip_version=_version(bindings))
        for service in services:
            await (await self._zeroconf.async_update_service(service))

    def resolve(self, name: str) -> Heard | None:
        """Ask for the records behind a name; None if they do not come in time, or are our own."""
        if name.removesuffix(f".{SERVICE}") in self._said:
            return None
        timeout = int(RESOLVE_TIMEOUT * 1000)
        with _as_os_errors():
            info = self._zeroconf.get_service_info(SERVICE, name, timeout, zeroconf.DNSQuestionType.QM)
        if info is None:
            return None
        hosts = {scoped(address, self.interface) for address in info.parsed_addresses()}
        return Heard(info.properties, tuple(sorted(hosts, key=preference)))

    def close(self) -> None:
        """Say goodbye and close the sockets; 0.25 s."""
        with contextlib.suppress(zeroconf.Error):  # its loop was too slow; its threads do not keep us alive
            if self._browser is not None:
                self._browser.cancel()
            self._zeroconf.close()

    def _services(self) -> list[zeroconf.ServiceInfo]:
        return [
            zeroconf.ServiceInfo(
                SERVICE,
                f"{instance}.{SERVICE}",
                port=announcement.port,
                properties=announcement.to_txt(),
                server=f"{instance}.local.",
                addresses=[_packed(address) for address in self.interface.addresses],
                host_ttl=TTL,
                other_ttl=TTL,
            )
            for instance, announcement in self._said.items()
        ]

    def _keep_to_interface(self) -> None:
        """Linux gives a socket the groups of all sockets: it would hear, and answer, other interfaces (ip(7))."""
        if sys.platform != "linux":
            return
        for reader in self._zeroconf.engine.readers:
            with contextlib.suppress(OSError):
                reader.sock.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
            with contextlib.suppress(OSError):
                reader.sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """What zeroconf raises when an interface has just gone away, and for names and records that are nonsense."""
    try:
        yield
    except (zeroconf.Error, RuntimeError, TimeoutError) as error:
        raise OSError(f"multicast DNS: {error}") from error


Binding = str | int | tuple[tuple[str, int, int], int]  # zeroconf's: an IPv4 address, or an interface's index for IPv6


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _bindings(interface: Interface) -> list[Binding]:
    """What zeroconf binds to: one IPv4 address, and the index for IPv6 (on loopback only where there is no IPv4)."""
    found: list[Binding] = [*interface.ipv4[:1]]
    if len(interface.ipv4) < len(interface.addresses) and not (found and interface.is_loopback):
        found.append(interface.index)
    return found


def _version(bindings: list[Binding]) -> zeroconf.IPVersion:
    """No IPv6 socket unless it is needed: a host may have none."""
    kinds = {type(binding) for binding in bindings}
    if kinds == {str}:
        return zeroconf.IPVersion.V4Only
    return zeroconf.IPVersion.All if str in kinds else zeroconf.IPVersion.V6Only


class MdnsFinder:
    """A Finder on the local links.

    `only` names the interfaces to use, whatever they are; `include_loopback` adds loopback to the others. Without
    either, loopback is used when nothing else is up, so that two nodes on a laptop without network find each other.
    Without `announce` it only listens, as somebody does who is no member yet.
    """

    def __init__(
        self,
        *,
        include_loopback: bool = False,
        only: tuple[str, ...] = (),
        interfaces: Callable[[], tuple[Interface, ...]] = list_interfaces,
        poll: float = POLL,
        announce: bool = True,
    ) -> None:
        self._announce = announce
        self._list = interfaces
        self._include_loopback = include_loopback
        self._only = only
        self._poll = poll

    async def run(
        self,
        announcement: AnnouncementFacts,
        found: Callable[[Candidate], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Announce, look, and follow the addresses of this host until cancelled; then say goodbye.

        Raises:
            HostLacks: no interface can do multicast at the start. Later the finder waits for one to come back.
        """
        async with trio.open_nursery() as nursery:
            open_station = partial(ZeroconfStation, Announcement.all_of(announcement) if self._announce else ())
            search = Search(announcement, found, open_station=open_station, nursery=nursery)
            try:
                works = await search.follow(await self._usable())
                if works:
                    task_status.started()
                while works:
                    await trio.sleep(self._poll)
                    await search.follow(await self._usable())
            finally:
                await search.close()
        raise HostLacks("multicast works on no interface of this host", hint="name seeds in the settings")

    async def _usable(self) -> tuple[Interface, ...]:
        listed = await trio.to_thread.run_sync(self._list)
        return usable(listed, include_loopback=self._include_loopback, only=self._only)
