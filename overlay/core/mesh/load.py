"""Whom to hear before anybody has proven anything: rates and places, by address. A machine without a clock of its own.

A connection first waits among the silent ones until its first bytes are there, and has then a place among the half-open
ones until it is admitted or ends. Strangers, those who hold our gate key, and those who hold it and come from an address
from which a member was linked lately, have quotas of their own: a flood of one kind takes nothing from the others.

Where all places are taken, the oldest gives way to the newest: first of the same address, else of the address that holds
the most. Whoever is honest is gone from there in a round trip; whoever holds places for nothing loses them. A peer whose
certificate has verified keeps its place.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from ipaddress import IPv6Address
from itertools import count
from typing import Final

from overlay.core.limits import (
    CROWDED,
    CROWDED_PATIENCE,
    HALF_OPEN_MAX,
    HALF_OPEN_PER_ADDRESS,
    HANDSHAKE_TIMEOUT,
    LOAD_ADDRESSES_MAX,
    MEMBER_KNOWN_FOR,
)

ROUNDING: Final = 1e-6  # seconds: sums of floats


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second, and so many at once after a pause. The state is one number: when the next one would be on time.

    Source: the virtual scheduling form of the leaky bucket (GCRA), ITU-T I.371, annex A.
    """

    per_second: float
    burst: int

    def allows(self, due: float, now: float) -> bool:
        """Whether one more fits; `due` is -math.inf for somebody new."""
        return due - now <= (self.burst - 1) / self.per_second + ROUNDING

    def after(self, due: float, now: float) -> float:
        """The state after one more."""
        return max(due, now) + 1 / self.per_second


class Kind(Enum):
    """What is known of a newcomer from its first bytes and its address."""

    STRANGER = auto()  # no gate key of ours
    GATED = auto()  # the newest gate key
    KNOWN = auto()  # the newest gate key, from an address from which a member was linked lately


# For one address, and in all. A handshake that leads to nothing costs its responder about two milliseconds: measured.
PER_ADDRESS: Final = {
    Kind.STRANGER: Rate(20, 5),  # docs/protocol/handshake.md
    Kind.GATED: Rate(20, 10),  # burst: our guess, some machines behind one address that start at once
    Kind.KNOWN: Rate(20, 10),
}
IN_ALL: Final = {
    Kind.STRANGER: Rate(20, 5),  # our guess: all that they get is a line in our log
    Kind.GATED: Rate(50, 10),  # our guess: a tenth of a processor; who is turned away comes again in half a second
    Kind.KNOWN: Rate(100, 10),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do: without a place the connection is closed at once, and so are those that gave way."""

    place: int | None
    evicted: tuple[int, ...] = ()


@dataclass(slots=True)
class _Place:
    address: str
    since: float
    proven: bool = False


@dataclass(slots=True)
class _Rates:
    """When the next one is due: of each address, the ones seen last, and in all."""

    each: Rate
    all: Rate
    due: dict[str, float] = field(default_factory=dict)
    all_due: float = -math.inf

    def take(self, address: str, now: float) -> bool:
        """Count one more, if both rates allow it."""
        due = self.due.get(address, -math.inf)
        if not self.each.allows(due, now) or not self.all.allows(self.all_due, now):
            return False
        self.all_due = self.all.after(self.all_due, now)
        remember(self.due, address, self.each.after(due, now))
        return True


class Load:
    """The machine. Places are numbers, never used again; `closed` and `progressed` may name one that is gone."""

    def __init__(self) -> None:
        self.turned_away = 0  # connections that were closed unheard
        self._silent: dict[int, _Place] = {}  # oldest first
        self._half_open: dict[int, _Place] = {}  # oldest first
        self._rates = {kind: _Rates(PER_ADDRESS[kind], IN_ALL[kind]) for kind in Kind}
        self._known: dict[str, float] = {}
        self._numbers = count(1)

    @property
    def silent(self) -> int:
        """Connections without their first bytes."""
        return len(self._silent)

    @property
    def half_open(self) -> int:
        """Connections in handshake or admission."""
        return len(self._half_open)

    def accept(self, host: str, now: float) -> Decision:
        """Somebody has connected and said nothing yet. There is always a place: an older one gives way."""
        return self._seat(self._silent, network_of(host), now)

    def enter(self, host: str, now: float, *, gated: bool) -> Decision:
        """The first bytes of a connection are there. One that was silent is told as `closed` before.

        Args:
            host: where it comes from, numeric.
            now: monotonic.
            gated: its first bytes are made with the newest gate key, and new.
        """
        address = network_of(host)
        if not self._rates[self._kind(address, now, gated=gated)].take(address, now):
            self.turned_away += 1
            return Decision(None)
        return self._seat(self._half_open, address, now)

    def progressed(self, place: int) -> None:
        """The peer's certificate has verified: nobody else gets its place."""
        if place in self._half_open:
            self._half_open[place].proven = True

    def admitted(self, host: str, now: float) -> None:
        """There is, or there was until now, a link to a member at this address."""
        remember(self._known, network_of(host), now + MEMBER_KNOWN_FOR)

    def closed(self, place: int) -> None:
        """It needs no place any more: it is open, or it has ended."""
        self._silent.pop(place, None)
        self._half_open.pop(place, None)

    @property
    def deadline(self) -> float:
        """When `tick` is due; math.inf for never."""
        oldest = next(iter(self._silent.values()), None)
        return math.inf if oldest is None else oldest.since + self._patience

    def tick(self, now: float) -> tuple[int, ...]:
        """The silent ones whose time is over; close them."""
        over = tuple(number for number, place in self._silent.items() if now >= place.since + self._patience)
        for number in over:
            del self._silent[number]
        self.turned_away += len(over)
        return over

    @property
    def _patience(self) -> float:
        return CROWDED_PATIENCE if len(self._silent) > CROWDED else HANDSHAKE_TIMEOUT

    def _kind(self, address: str, now: float, *, gated: bool) -> Kind:
        if not gated:
            return Kind.STRANGER
        return Kind.KNOWN if self._known.get(address, -math.inf) > now else Kind.GATED

    def _seat(self, places: dict[int, _Place], address: str, now: float) -> Decision:
        evicted = _who_gives_way(places, address)
        if evicted is None:
            self.turned_away += 1
            return Decision(None)
        for number in evicted:
            del places[number]
        self.turned_away += len(evicted)
        number = next(self._numbers)
        places[number] = _Place(address, now)
        return Decision(number, evicted)


def _who_gives_way(places: dict[int, _Place], address: str) -> tuple[int, ...] | None:
    """Nobody while there is room; None if nobody may be sent away."""
    held = Counter(place.address for place in places.values())
    if held[address] >= HALF_OPEN_PER_ADDRESS:
        return _oldest(number for number, place in places.items() if place.address == address and not place.proven)
    if len(places) < HALF_OPEN_MAX:
        return ()
    unproven = {number: place for number, place in places.items() if not place.proven}
    most = max((held[place.address] for place in unproven.values()), default=0)
    return _oldest(number for number, place in unproven.items() if held[place.address] == most)


def _oldest(numbers: Iterable[int]) -> tuple[int] | None:
    first = next(iter(numbers), None)
    return None if first is None else (first,)


def remember(table: dict[str, float], key: str, value: float) -> None:
    """Put it last, and forget the first one of too many."""
    table.pop(key, None)
    table[key] = value
    if len(table) > LOAD_ADDRESSES_MAX:
        del table[next(iter(table))]


def network_of(host: str) -> str:
    """Whom an address is counted as: an IPv4 address, or the first 64 bits of an IPv6 one (and its interface).

    An IPv4 address inside IPv6 counts as the IPv4 address (RFC 4291, section 2.5.5.2). What is no address is taken as it is.
    """
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host)
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{int(address) >> 64:x}%{address.scope_id or ''}"
