"""The search on the local links: a station per interface, names resolved a few at a time, candidates out of that.

Stations block and run in threads; what they hear crosses into trio through the trio token.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import trio

from discovery.announcement import Announcement
from discovery.interfaces import Interface, rank
from overlay.core.mesh.found import Address, AnnouncementFacts, Candidate
from overlay.errors import Refused

RESOLVES_MAX: Final = 8  # names asked for at once
WAITING_MAX: Final = 256  # names heard and not yet asked for; more are dropped, and heard again later
NAMES_MAX: Final = 16  # names that one start may have: two per interface that we share with it
TAGS_MAX: Final = 1024  # starts remembered: five times the largest full mesh
ADDRESSES_MAX: Final = 16  # of one candidate
CLOSE_TIMEOUT: Final = 1.0  # seconds for goodbyes, which take 0.25


@dataclass(frozen=True, slots=True)
class Heard:
    """A resolved name."""

    txt: Mapping[bytes, bytes | None]
    hosts: tuple[str, ...]  # as they are dialled from here, best first


class Station(Protocol):
    """Announces and listens on one interface. Every method blocks and may raise OSError."""

    def start(self) -> None:
        """Listen, and announce ourselves."""
        ...

    def follow(self, interface: Interface) -> None:
        """Bring it in line with what the interface is now."""
        ...

    def resolve(self, name: str) -> Heard | None:
        """Ask for what is behind a name; None if nothing comes in time."""
        ...

    def close(self) -> None:
        """Say goodbye."""
        ...


OpenStation = Callable[[Interface, Callable[[str], None]], Station]  # the second hears names, in any thread
Source = tuple[int, str]  # interface index and instance name


class Sightings:
    """Under which addresses a start, told by its tag, was heard: on several interfaces, and perhaps from impostors.

    Anyone can repeat an announcement under another name, with other addresses. So a name never takes another's
    addresses away, and those of the name heard first come first.
    """

    def __init__(self) -> None:
        self._by_tag: dict[bytes, dict[Source, tuple[Address, ...]]] = {}
        self._places: dict[bytes, int] = {}  # of the newest gate key with which each start was recognised

    def add(self, tag: bytes, source: Source, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        """All addresses of this start so far, with these of this source instead of its earlier ones; best first."""
        names = self._by_tag.get(tag, {})
        if source in names or len(names) < NAMES_MAX:
            names = names | {source: addresses}
        others = {known: kept for known, kept in self._by_tag.items() if known != tag}
        self._by_tag = dict(list(others.items())[-(TAGS_MAX - 1) :]) | {tag: names}
        self._places = {known: place for known, place in self._places.items() if known in self._by_tag}
        known = dict.fromkeys(address for found in names.values() for address in found)
        return tuple(sorted(known, key=lambda address: rank(address[0]))[:ADDRESSES_MAX])


    def newest_key(self, tag: bytes, key: bytes | None, gate_keys: tuple[bytes, ...]) -> bytes | None:
        """The newest gate key that this start has ever shown to know; it announces under two."""
        if key is None:
            return None
        place = self._places[tag] = min(gate_keys.index(key), self._places.get(tag, len(gate_keys)))
        return gate_keys[place]


class Search:
    """The stations of one run, by interface index."""

    def __init__(
        self,
        facts: AnnouncementFacts,
        found: Callable[[Candidate], None],
        *,
        open_station: OpenStation,
        nursery: trio.Nursery,
    ) -> None:
        self._facts = facts
        self._found = found
        self._open_station = open_station
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self._stations: dict[int, Station] = {}
        self._waiting: set[Source] = set()
        self._sightings = Sightings()
        self._closed = False
        self._resolving = trio.CapacityLimiter(RESOLVES_MAX)

    async def follow(self, interfaces: tuple[Interface, ...]) -> bool:
        """Bring the stations in line with the interfaces; whether there is any station."""
        for index in self._stations.keys() - {interface.index for interface in interfaces}:
            await trio.to_thread.run_sync(self._stations.pop(index).close)
        for interface in interfaces:
            with contextlib.suppress(OSError):  # it went away, or cannot do multicast: the next look tells
                if interface.index in self._stations:
                    await trio.to_thread.run_sync(self._stations[interface.index].follow, interface)
                else:
                    await self._open(interface)
        return bool(self._stations)

    async def _open(self, interface: Interface) -> None:
        heard = partial(self._cross, interface.index)
        with trio.CancelScope(shield=True):  # 10 ms; or the station would be lost, open
            self._stations[interface.index] = await trio.to_thread.run_sync(self._open_station, interface, heard)
        try:
            await trio.to_thread.run_sync(self._stations[interface.index].start)
        except OSError:  # to be opened again at the next look
            await trio.to_thread.run_sync(self._stations.pop(interface.index).close)
            raise

    async def close(self) -> None:
        """Goodbye on all interfaces at once, for at most a second."""
        self._closed = True  # the nursery takes no more tasks once it has ended
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            async with trio.open_nursery() as nursery:
                for station in self._stations.values():
                    nursery.start_soon(partial(trio.to_thread.run_sync, station.close, abandon_on_cancel=True))

    def _cross(self, index: int, name: str) -> None:
        """Called in any thread: over to trio, unless that has ended."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._heard, index, name)

    def _heard(self, index: int, name: str) -> None:
        known = (index, name) in self._waiting or len(self._waiting) >= WAITING_MAX
        if not (known or self._closed):
            self._waiting.add((index, name))
            self._nursery.start_soon(self._resolve, index, name)

    async def _resolve(self, index: int, name: str) -> None:
        async with self._resolving:
            self._waiting.discard((index, name))  # a change from now on is news
            station = self._stations.get(index)
            if station is None:
                return
            with contextlib.suppress(Refused, OSError):  # a stranger's nonsense, or the interface went away
                heard = await trio.to_thread.run_sync(station.resolve, name, abandon_on_cancel=True)
                if heard is not None:
                    self._saw((index, name), heard)

    def _saw(self, source: Source, heard: Heard) -> None:
        """Say what an announcement means to us, unless it is our own. Raises Refused for one of the wrong form."""
        said = Announcement.from_txt(heard.txt)
        if said.tag == self._facts.tag:
            return
        gate_keys = self._facts.gate_keys
        key = said.key_among(gate_keys)
        candidate = Candidate(
            addresses=self._sightings.add(said.tag, source, tuple((host, said.port) for host in heard.hosts)),
            tag=said.tag,
            node_id=said.recognise(gate_keys, self._facts.known()),
            gate_key=self._sightings.newest_key(said.tag, key, gate_keys),
            ours=key is not None,
            source="mdns",
        )
        self._found(candidate)
