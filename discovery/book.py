"""Addresses remembered per node: which to dial first, which failed, and which turned out to be our own. Pure.

Rules: an address that failed goes behind those that did not, until it is heard anew or reached; nothing is forgotten
for failing; what reached ourselves is not dialled for ten minutes; everything is bounded.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from overlay.core.keys import NodeId
from overlay.core.mesh.found import Address

NODES_MAX: Final = 1024  # five times the largest full mesh: our guess
ADDRESSES_MAX: Final = 16  # per node: a laptop with Wi-Fi, cable and VPN has about six: our guess
OWN_ADDRESSES_MAX: Final = 256
SELF_FOR: Final = 600.0  # seconds an address counts as our own after our own identity answered on it


@dataclass(frozen=True, slots=True)
class Entry:
    """One address of one node. Times are monotonic seconds; -inf for never in this run."""

    address: Address
    failures: int = 0  # dials that failed since it was last heard or reached
    reached: float = -math.inf
    heard: float = -math.inf


def _rank(entry: Entry) -> tuple[int, float, float]:
    return entry.failures, -entry.reached, -entry.heard


class Book:
    """Addresses by node. `now` is monotonic. Feed it verified or recognised nodes only: strangers would fill it."""

    def __init__(self) -> None:
        self._entries: dict[NodeId, tuple[Entry, ...]] = {}  # the node heard longest ago comes first
        self._own: dict[Address, float] = {}  # address -> when it stops being ours

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """Everyone it has an address of; the one heard last comes last."""
        return tuple(self._entries)

    def remember(self, node_id: NodeId, addresses: Iterable[Address]) -> None:
        """Addresses from an earlier run, best first: they rank behind whatever is heard or reached in this run."""
        known = {entry.address for entry in self._entries.get(node_id, ())}
        older = tuple(Entry(address) for address in dict.fromkeys(addresses) if address not in known)
        self._commit(node_id, self._entries.get(node_id, ()) + older)

    def hear(self, node_id: NodeId, addresses: Iterable[Address], now: float) -> None:
        """Addresses just announced, best first. Their failures are forgotten: the node may have come back."""
        known = {entry.address: entry for entry in self._entries.get(node_id, ())}
        for address in reversed(tuple(dict.fromkeys(addresses))):
            entry = replace(known.pop(address, Entry(address)), failures=0, heard=now)
            known = {address: entry} | known
        self._commit(node_id, tuple(known.values()))

    def reach(self, node_id: NodeId, address: Address, now: float) -> None:
        """A dial to the address led to the node."""
        self._change(node_id, address, failures=0, reached=now)

    def fail(self, node_id: NodeId, address: Address) -> None:
        """A dial to the address failed, or someone else answered: it goes behind the others."""
        known = {entry.address: entry for entry in self._entries.get(node_id, ())}
        if address in known:
            self._change(node_id, address, failures=known[address].failures + 1)

    def mark_own(self, address: Address, now: float) -> None:
        """Our own identity answered there. A link-local address carries its interface as scope."""
        own = {known: until for known, until in self._own.items() if until > now and known != address}
        self._own = dict(list(own.items())[-(OWN_ADDRESSES_MAX - 1) :]) | {address: now + SELF_FOR}

    def is_own(self, address: Address, now: float) -> bool:
        """Whether our own identity answered there in the last ten minutes."""
        return self._own.get(address, -math.inf) > now

    def to_dial(self, node_id: NodeId, now: float) -> tuple[Address, ...]:
        """The node's addresses, best first, without our own."""
        entries = sorted(self._entries.get(node_id, ()), key=_rank)
        return tuple(entry.address for entry in entries if not self.is_own(entry.address, now))

    def addresses(self, node_id: NodeId) -> tuple[Address, ...]:
        """All of the node's addresses, best first, for the peer book on disk."""
        return tuple(entry.address for entry in sorted(self._entries.get(node_id, ()), key=_rank))

    def _change(self, node_id: NodeId, address: Address, *, failures: int, reached: float | None = None) -> None:
        entries = self._entries.get(node_id, ())
        old = next((entry for entry in entries if entry.address == address), Entry(address))
        new = replace(old, failures=failures, reached=old.reached if reached is None else reached)
        self._commit(node_id, (new, *(entry for entry in entries if entry.address != address)))

    def _commit(self, node_id: NodeId, entries: tuple[Entry, ...]) -> None:
        """The only place that changes a node's entries: best first, bounded, the node moved to the end."""
        others = {known: kept for known, kept in self._entries.items() if known != node_id}
        kept = tuple(sorted(entries, key=_rank)[:ADDRESSES_MAX])
        self._entries = dict(list(others.items())[-(NODES_MAX - 1) :]) | {node_id: kept}
