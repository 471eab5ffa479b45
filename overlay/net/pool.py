"""All links of a node: whom to let in, whom to dial, and which of two links stays. The rules are `core/mesh/links.py`'s."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from overlay.core import limits
from overlay.core.keys import NodeId
from overlay.core.mesh.backoff import Backoff
from overlay.core.mesh.found import Address, Candidate
from overlay.core.mesh.links import Choice, LinkFacts, Starts, choose, dial_delay
from overlay.core.session import Session
from overlay.core.session_events import Closed, Event, Failed, Opened
from overlay.core.session_states import ADMISSION, HANDSHAKE
from overlay.net.link import Link
from overlay.registry import Reason, Role

CONNECT_TIMEOUT = 3.0  # our guess: a LAN answers in milliseconds
OWN_ADDRESS_FOR = 600.0
STRANGER_TRIES = 20  # an announcement that nobody answers is dropped after so many dials
TARGETS_MAX = 1024


class PoolOwner(Protocol):
    """What the pool tells the node. All are called at once, in the order of events, and must not block."""

    def make_session(self, role: Role, tag: bytes) -> Session:
        """A session for a new connection; `tag` is the responder's."""
        ...

    def link_event(self, link: Link, event: Event) -> None:
        """Any event of a link, before the pool acts on it."""
        ...

    def peer_up(self, link: Link) -> None:
        """There is a link to this peer now, or another one than before."""
        ...

    def peer_down(self, peer: NodeId, link: Link) -> None:
        """There is no link to this peer any more."""
        ...

    def cloned(self, link: Link) -> None:
        """Two starts of one identity take turns."""
        ...


@dataclass(slots=True)
class Target:
    """Someone whom we dial until there is a link, and again when it is gone."""

    candidate: Candidate
    backoff: Backoff = field(default_factory=Backoff)
    node_id: NodeId | None = None
    failures: int = 0
    misses: dict[Address, int] = field(default_factory=dict)  # dials in a row that reached nothing, by address
    wake: trio.Event = field(default_factory=trio.Event)


class Pool:
    """The links of one node."""

    def __init__(self, *, own_id: NodeId, owner: PoolOwner, nursery: trio.Nursery, fraction: Callable[[], float]) -> None:
        self.links: dict[NodeId, Link] = {}
        self._all: set[Link] = set()
        self._facts: dict[Link, LinkFacts] = {}
        self._probed: dict[NodeId, Link] = {}
        self._starts: dict[NodeId, Starts] = {}
        self._targets: dict[object, Target] = {}
        self._own_addresses: dict[Address, float] = {}
        self._own_id = own_id
        self._owner = owner
        self._nursery = nursery
        self._fraction = fraction
        self._closing = False
        self._shrunk = trio.Event()

    @property
    def all_links(self) -> tuple[Link, ...]:
        """Every connection, half-open ones too."""
        return tuple(self._all)

    # --- coming in --------------------------------------------------------------------------------------------------

    async def accept(self, stream: trio.SocketStream) -> None:
        """Carry a connection that someone opened to us; over the limits of half-open ones it is closed unheard."""
        try:
            host, port = stream.socket.getpeername()[:2]
        except OSError:
            await stream.aclose()
            return
        half_open = Counter(link.address.rpartition(" ")[0] for link in self._all if _is_half_open(link))
        if self._closing or half_open.total() >= limits.HALF_OPEN_MAX or half_open[host] >= limits.HALF_OPEN_PER_ADDRESS:
            await stream.aclose()
            return
        await self._carry(stream, Role.OTHER, bytes(8), f"{host} {port}")

    async def _carry(self, stream: trio.SocketStream, role: Role, tag: bytes, address: str) -> Link:
        session = self._owner.make_session(role, tag)
        link = Link(stream, session, owner=self._on_event, address=address)
        self._all.add(link)
        try:
            await link.run()
        finally:
            self._forget(link)
        return link

    # --- going out --------------------------------------------------------------------------------------------------

    def found(self, candidate: Candidate) -> None:
        """A finder knows someone of our mesh: dial, now or when the link that we have is gone."""
        if not candidate.ours or candidate.node_id == self._own_id or not candidate.addresses:
            return
        key = _key_of(candidate)
        target = self._targets.get(key)
        if target is not None:
            if target.candidate != candidate:
                target.candidate, target.backoff = candidate, Backoff()
                target.wake.set()
            return
        if len(self._targets) >= TARGETS_MAX:
            return
        target = self._targets[key] = Target(candidate, node_id=candidate.node_id)
        self._nursery.start_soon(self._keep_dialling, key, target)

    async def _keep_dialling(self, key: object, target: Target) -> None:
        await _pause(target, dial_delay(self._own_id, target.node_id) + 0.25 * self._fraction())
        while not self._closing:
            if target.node_id in self.links:
                target.backoff, target.failures = Backoff(), 0
                await _pause(target, limits.BACKOFF_MAX)
                continue
            opened = await self._dial(target)
            if opened:
                target.backoff, target.failures = Backoff(), 0
            else:
                target.backoff, target.failures = target.backoff.failed(self._fraction()), target.failures + 1
            if target.node_id == self._own_id or (target.node_id is None and target.failures >= STRANGER_TRIES):
                break
            await _pause(target, target.backoff.wait)
        self._targets.pop(key, None)

    async def _dial(self, target: Target) -> bool:
        """One try over all addresses; true if a link was open."""
        candidate = target.candidate
        for address in sorted(candidate.addresses, key=lambda one: target.misses.get(one, 0)):
            if self._own_addresses.get(address, 0.0) > trio.current_time():
                continue
            stream = await _connect(address)
            if stream is None:
                target.misses[address] = target.misses.get(address, 0) + 1  # tried later the next time
                continue
            target.misses.pop(address, None)
            link = await self._carry(stream, Role.OPENER, candidate.tag, f"{address[0]} {address[1]}")
            if link.session.peer is not None:
                target.node_id = link.session.peer.node_id
            if isinstance(link.ended, Failed) and link.ended.reason is Reason.SELF_DIAL:
                self._own_addresses[address] = trio.current_time() + OWN_ADDRESS_FOR
                continue
            return link.was_open
        return False

    # --- which link stays -------------------------------------------------------------------------------------------

    def _on_event(self, link: Link, event: Event) -> None:
        self._owner.link_event(link, event)
        if isinstance(event, Opened):
            self._opened(link, event)
        elif isinstance(event, Closed | Failed) and link in self._facts:
            self._lost(link)

    def _opened(self, link: Link, event: Opened) -> None:
        peer = event.peer
        link.opened_at = trio.current_time()
        if not link.is_open:
            return  # it was opened and ended by the same bytes
        facts = self._facts[link] = LinkFacts(
            own_id=self._own_id, peer_id=peer.node_id, role=link.session.role, start_id=peer.start_id,
            started=peer.endorsement.not_before, peer_has_link=event.peer_has_link,
        )
        old = self.links.get(peer.node_id)
        if old is None or not old.is_open:
            self._install(link)
            return
        self._watch_starts(link, self._facts[old], facts)
        match choose(self._facts[old], facts):
            case Choice.KEEP_NEW:
                self._install(link)
                self._nursery.start_soon(self._retire, old)
            case Choice.KEEP_OLD:
                self._nursery.start_soon(self._retire, link)
            case Choice.REPLACE:
                self._install(link)
                old.close(Reason.SUPERSEDED)
            case Choice.REFUSE:
                link.close(Reason.SUPERSEDED)
            case Choice.PROBE:
                self._probed[peer.node_id] = link
                old.probe(limits.PROBE_WITHIN)
                self._nursery.start_soon(self._await_probe, old, link)

    def _install(self, link: Link) -> None:
        self.links[link.peer.node_id] = link
        self._owner.peer_up(link)

    def _lost(self, link: Link) -> None:
        peer = self._facts.pop(link).peer_id
        if self._probed.get(peer) is link:
            del self._probed[peer]
        if self.links.get(peer) is not link:
            return
        del self.links[peer]
        waiting = self._probed.pop(peer, None)
        if waiting is not None and waiting.is_open:
            self._install(waiting)
            return
        self._owner.peer_down(peer, link)
        for target in self._targets.values():
            if target.node_id == peer:
                target.wake.set()

    async def _await_probe(self, old: Link, new: Link) -> None:
        """The old link answered, and so stays, unless it is gone after the time that it had."""
        await trio.sleep(limits.PROBE_WITHIN + 0.1)
        if old.is_open and new.is_open and self._probed.pop(new.peer.node_id, None) is new:
            await self._retire(new)

    async def _retire(self, link: Link) -> None:
        """Let calls under way end, then say GOODBYE(DUPLICATE)."""
        with trio.move_on_after(limits.DRAIN_TIMEOUT):
            await link.wait_idle()
        link.close(Reason.DUPLICATE)

    def _watch_starts(self, link: Link, old: LinkFacts, new: LinkFacts) -> None:
        if old.start_id == new.start_id:
            return
        starts, cloned = self._starts.get(new.peer_id, Starts()).changed(old.start_id, new.start_id, trio.current_time())
        self._starts[new.peer_id] = starts
        if cloned:
            self._owner.cloned(link)

    async def wait_empty(self) -> None:
        """Until no connection is left."""
        while self._all:
            await self._shrunk.wait()

    def _forget(self, link: Link) -> None:
        self._all.discard(link)
        self._shrunk.set()
        self._shrunk = trio.Event()
        if link in self._facts:
            self._lost(link)

    def close(self, reason: Reason) -> None:
        """Say GOODBYE on every link and dial no more."""
        self._closing = True
        for link in self.all_links:
            link.close(reason)


def _is_half_open(link: Link) -> bool:
    return link.session.state in HANDSHAKE | ADMISSION


def _key_of(candidate: Candidate) -> object:
    if candidate.node_id is not None:
        return candidate.node_id
    return candidate.tag if any(candidate.tag) else candidate.addresses[0]


async def _pause(target: Target, seconds: float) -> None:
    """Wait, or less when there is news of the target."""
    with trio.move_on_after(seconds):
        await target.wake.wait()
    target.wake = trio.Event()


async def _connect(address: Address) -> trio.SocketStream | None:
    with trio.move_on_after(CONNECT_TIMEOUT):
        try:
            return await trio.open_tcp_stream(*address)
        except OSError:
            return None
    return None
