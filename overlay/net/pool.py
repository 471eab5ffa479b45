"""All links of a node: whom to let in, whom to dial, and which of two links stays. The rules are `core/mesh/links.py`'s.

A link that gives way to another one is closed when that one has carried a record each way. What the peer still sent over
it may be lost all the same, so the owner hears of its end (`link_replaced`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import trio

from overlay.core import limits
from overlay.core.keys import NodeId
from overlay.core.mesh.backoff import Backoff
from overlay.core.mesh.found import Address, Candidate
from overlay.core.mesh.links import Choice, LinkFacts, Starts, choose, dial_delay
from overlay.core.mesh.load import Load
from overlay.core.session import Session
from overlay.core.session_events import Closed, Event, Failed, MessageReceived, Opened, PeerIdentified, Ponged
from overlay.net.dial import connect_any, dial_order
from overlay.net.link import Link
from overlay.registry import Reason, Role


class PoolOwner(Protocol):
    """What the pool tells the node. All are called at once, in the order of events, and must not block."""

    def make_session(self, role: Role, tag: bytes, gate_key: bytes | None = None) -> Session:
        """A session for a new connection; `tag` is the responder's, and so is `gate_key`, where we know which it has."""
        ...

    def link_event(self, link: Link, event: Event) -> None:
        """Any event of a link, before the pool acts on it."""
        ...

    def peer_up(self, link: Link) -> None:
        """There is a link to this peer now, or another one than before."""
        ...

    def link_replaced(self, peer: NodeId) -> None:
        """A link to this peer has ended, and another one stays: what was under way may be lost, on either side."""
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
    worked: Address | None = None  # where there was a link the last time
    wake: trio.Event = field(default_factory=trio.Event)

    def missed(self, address: Address) -> None:
        """Nobody answered there: tried later the next time."""
        self.misses[address] = self.misses.get(address, 0) + 1


class Pool:
    """The links of one node."""

    def __init__(
        self, *, own_id: NodeId, owner: PoolOwner, nursery: trio.Nursery, fraction: Callable[[], float],
        rests: Callable[[], bool] = lambda: False,
    ) -> None:
        """While it `rests` nobody is dialled."""
        self.links: dict[NodeId, Link] = {}
        self.load = Load()
        self._all: set[Link] = set()
        self._places: dict[Link, int] = {}  # of those that came in and are not open yet
        self._facts: dict[Link, LinkFacts] = {}
        self._dialled: dict[Link, Target] = {}
        self._settled: dict[Link, trio.Event] = {}  # who dialled may go on: the link has ended, or is another's
        self._probed: dict[NodeId, Link] = {}
        self._unproven: dict[Link, trio.Event] = {}  # links that were asked for a sign of life before others give way
        self._starts: dict[NodeId, Starts] = {}
        self._targets: dict[object, Target] = {}
        self._own_addresses: dict[Address, float] = {}
        self._own_id = own_id
        self._owner = owner
        self._nursery = nursery
        self._fraction = fraction
        self._rests = rests
        self._closing = False
        self._shrunk = trio.Event()
        self._moved = trio.Event()

    @property
    def all_links(self) -> tuple[Link, ...]:
        """Every connection, half-open ones too."""
        return tuple(self._all)

    def addresses_of(self, node_id: NodeId) -> tuple[Address, ...]:
        """Where a finder has seen it."""
        found = [target for target in self._targets.values() if target.node_id == node_id]
        return tuple(dict.fromkeys(address for target in found for address in target.candidate.addresses))

    def target_addresses(self) -> tuple[Address, ...]:
        """Where we look for members whom we have no link to."""
        missing = [target for target in self._targets.values() if self._link_to(target) is None]
        return tuple(dict.fromkeys(address for target in missing for address in target.candidate.addresses))

    # --- coming in --------------------------------------------------------------------------------------------------

    def enter(self, stream: trio.SocketStream, address: Address, place: int) -> None:
        """Carry a connection that someone opened to us and that has a place among the half-open ones."""
        if self._closing:
            self.load.closed(place)
            stream.socket.close()
            return
        link = self._make(stream, Role.OTHER, bytes(8), address)
        self._places[link] = place
        self._nursery.start_soon(self._carry, link)

    def evict(self, place: int) -> None:
        """This one gave way to a newer one."""
        for link, held in tuple(self._places.items()):
            if held == place:
                link.refuse(Reason.BUSY, "gave way to a newer connection before it was open")

    def _make(
        self, stream: trio.SocketStream, role: Role, tag: bytes, address: Address, gate_key: bytes | None = None
    ) -> Link:
        session = self._owner.make_session(role, tag, gate_key)
        link = Link(stream, session, owner=self._on_event, address=f"{address[0]} {address[1]}")
        self._all.add(link)
        return link

    async def _carry(self, link: Link) -> None:
        try:
            await link.run()
        finally:
            self._forget(link)

    def _leave_place(self, link: Link) -> None:
        place = self._places.pop(link, None)
        if place is not None:
            self.load.closed(place)

    # --- going out --------------------------------------------------------------------------------------------------

    def found(self, candidate: Candidate) -> None:
        """A finder knows someone of our mesh: dial, now or when the link that we have is gone."""
        if not candidate.ours or candidate.node_id == self._own_id or not candidate.addresses:
            return
        key = _key_of(candidate)
        target = self._targets.get(key)
        if target is not None:
            addresses = (*candidate.addresses, *(one for one in target.candidate.addresses if one not in candidate.addresses))
            candidate = replace(candidate, addresses=addresses[: limits.ADDRESSES_PER_TARGET])
            if target.candidate != candidate:
                target.candidate, target.backoff = candidate, Backoff()
                target.wake.set()
            return
        if len(self._targets) >= limits.DIAL_TARGETS_MAX:
            return
        target = self._targets[key] = Target(candidate, node_id=candidate.node_id)
        self._nursery.start_soon(self._keep_dialling, key, target)

    async def _keep_dialling(self, key: object, target: Target) -> None:
        await _pause(target, dial_delay(self._own_id, target.node_id) + 0.25 * self._fraction())
        while not self._closing:
            if self._rests():
                target.backoff = Backoff()
            elif self._link_to(target) is None:
                self._judge(target, await self._dial(target))
            if target.node_id == self._own_id or (target.node_id is None and target.failures >= limits.STRANGER_TRIES):
                break
            while (link := self._link_to(target)) is not None:
                await self._moved.wait()
                if self._link_to(target) is None:
                    self._judge(target, link)
            await _pause(target, target.backoff.wait)
        self._targets.pop(key, None)

    def _link_to(self, target: Target) -> Link | None:
        return None if target.node_id is None else self.links.get(target.node_id)

    def _judge(self, target: Target, link: Link | None) -> None:
        """What a link that has ended says about dialling again: one that did not live long is as good as none."""
        if link is not None and trio.current_time() - link.opened_at >= limits.LINK_LIVED and link.was_open:
            target.backoff, target.failures = Backoff(), 0
        else:
            target.backoff, target.failures = target.backoff.failed(self._fraction()), target.failures + 1

    async def _dial(self, target: Target) -> Link | None:
        """One try over all addresses; the link that came of it, when it has ended."""
        candidate, now = target.candidate, trio.current_time()
        foreign = [address for address in candidate.addresses if self._own_addresses.get(address, 0.0) <= now]
        left = list(dial_order(foreign, target.misses, target.worked))
        while left:
            connected = await connect_any(left, missed=target.missed)
            if connected is None:
                return None
            address, stream = connected
            target.misses.pop(address, None)
            link = self._make(stream, Role.OPENER, candidate.tag, address, candidate.gate_key)
            self._dialled[link] = target
            settled = self._settled[link] = trio.Event()
            self._nursery.start_soon(self._carry, link)
            await settled.wait()
            if candidate.node_id is None and link.session.peer is not None:
                target.node_id = link.session.peer.node_id
            if _is_another(link, candidate):  # it keeps its link, and we go on looking
                target.missed(address)
                left.remove(address)
                continue
            if not isinstance(link.ended, Failed) or link.ended.reason is not Reason.SELF_DIAL:
                target.worked = address if link.was_open else None
                return link
            self._own_addresses[address] = trio.current_time() + limits.OWN_ADDRESS_FOR
            left.remove(address)
        return None

    def _settle_other(self, link: Link) -> None:
        """Somebody else than the one we dialled is there: who dials need not wait for the end of this link."""
        target = self._dialled.get(link)
        if target is not None and _is_another(link, target.candidate):
            self._settled.pop(link).set()

    # --- which link stays -------------------------------------------------------------------------------------------

    def _on_event(self, link: Link, event: Event) -> None:
        self._owner.link_event(link, event)
        if isinstance(event, MessageReceived):
            return
        if isinstance(event, PeerIdentified) and link in self._places:
            self.load.progressed(self._places[link])
        if isinstance(event, Opened | Closed | Failed):
            self._leave_place(link)
        if isinstance(event, Opened):
            self._opened(link, event)
            return
        ended = isinstance(event, Closed | Failed)
        if ended and link in self._facts:
            self._lost(link)
        if link in self._unproven and (ended or isinstance(event, Ponged)):
            self._unproven.pop(link).set()

    def _opened(self, link: Link, event: Opened) -> None:
        peer = event.peer
        link.opened_at = trio.current_time()
        self.load.admitted(_host_of(link), link.opened_at)
        if not link.is_open:
            return  # it was opened and ended by the same bytes
        facts = self._facts[link] = LinkFacts(
            own_id=self._own_id, peer_id=peer.node_id, role=link.session.role, start_id=peer.start_id,
            started=peer.endorsement.not_before, peer_has_link=event.peer_has_link,
        )
        self._settle_other(link)
        old = self.links.get(peer.node_id)
        if old is None or not old.is_open:
            self._install(link)
            return
        if sum(1 for one in self._facts.values() if one.start_id == peer.start_id) > limits.LINKS_PER_PEER:
            link.close(Reason.DUPLICATE)
            return
        self._watch_starts(link, self._facts[old], facts)
        match choose(self._facts[old], facts):
            case Choice.KEEP_NEW:
                self._install(link)
                self._nursery.start_soon(self._retire, old, link)
            case Choice.KEEP_OLD:
                self._nursery.start_soon(self._retire, link, old)
            case Choice.REPLACE:
                self._install(link)
                old.close(Reason.SUPERSEDED)
            case Choice.REFUSE:
                link.close(Reason.SUPERSEDED)
            case Choice.PROBE:
                earlier = self._probed.get(peer.node_id)
                if earlier is not None:
                    earlier.close(Reason.DUPLICATE)  # one waits, whoever dials again and again
                self._probed[peer.node_id] = link
                old.probe(limits.PROBE_WITHIN)
                self._nursery.start_soon(self._await_probe, old, link)

    def _install(self, link: Link) -> None:
        self.links[link.peer.node_id] = link
        self._stir()
        self._owner.peer_up(link)

    def _lost(self, link: Link) -> None:
        peer = self._facts.pop(link).peer_id
        self.load.admitted(_host_of(link), trio.current_time())
        if self._probed.get(peer) is link:
            del self._probed[peer]
        if self.links.get(peer) is not link:
            if peer in self.links:
                self._owner.link_replaced(peer)
            return
        del self.links[peer]
        self._probed.pop(peer, None)
        others = [one for one, facts in self._facts.items() if facts.peer_id == peer and one.is_open]
        if others:
            self._install(others[-1])
            return
        self._stir()
        self._owner.peer_down(peer, link)

    async def _await_probe(self, old: Link, new: Link) -> None:
        """The old link answered, and so stays, unless it is gone after the time that it had."""
        await trio.sleep(limits.PROBE_WITHIN + 0.1)
        if self._probed.get(new.peer.node_id) is not new:
            return
        del self._probed[new.peer.node_id]
        if old.is_open and new.is_open:
            await self._retire(new, old)

    async def _retire(self, link: Link, winner: Link) -> None:
        """Once the winner has carried a record each way and calls under way have ended, say GOODBYE(DUPLICATE).

        If the winner ends instead, this link takes its place.
        """
        await self._prove(winner)
        with trio.move_on_after(limits.DRAIN_TIMEOUT):
            await link.wait_idle()
        if self._facts.get(link) is not None and self.links.get(link.peer.node_id) is not link:
            link.close(Reason.DUPLICATE)

    async def _prove(self, link: Link) -> None:
        """Until it has carried a record each way, or has ended: it fails when the peer is silent."""
        if link.is_open:
            proven = self._unproven.setdefault(link, trio.Event())
            link.probe(limits.PROBE_WITHIN)
            with trio.move_on_after(limits.PROBE_WITHIN + 0.1):
                await proven.wait()

    def _stir(self) -> None:
        """There is another link to somebody, or none any more."""
        self._moved.set()
        self._moved = trio.Event()

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
        self._dialled.pop(link, None)
        settled = self._settled.pop(link, None)
        if settled is not None:
            settled.set()
        self._leave_place(link)
        self._shrunk.set()
        self._shrunk = trio.Event()
        if link in self._facts:
            self._lost(link)

    def renew_statics(self, link: Link, within: float) -> None:
        """A static key has changed at one end of a link: if we opened it, open another one, at some time until then."""
        if link.session.role is Role.OPENER and link.session.statics_changed:
            link.replace_at = min(link.replace_at, trio.current_time() + within * self._fraction())
            self._nursery.start_soon(self._replace, link)

    async def _replace(self, link: Link) -> None:
        """Open another link when it is time; the old one gives way when the new one works."""
        await trio.sleep_until(link.replace_at)
        target = self._dialled.get(link)
        if target is not None and self.links.get(link.peer.node_id) is link and not self._closing:
            await self._dial(target)

    def close(self, reason: Reason) -> None:
        """Say GOODBYE on every link and dial no more."""
        self._closing = True
        for link in self.all_links:
            link.close(reason)


def _host_of(link: Link) -> str:
    return link.address.rpartition(" ")[0]


def _is_another(link: Link, candidate: Candidate) -> bool:
    """Whether the node at the other end is not the one that the announcement spoke of: anybody can announce."""
    peer = link.session.peer
    return peer is not None and candidate.node_id not in (None, peer.node_id)


def _key_of(candidate: Candidate) -> object:
    if candidate.node_id is not None:
        return candidate.node_id
    return candidate.tag if any(candidate.tag) else candidate.addresses[0]


async def _pause(target: Target, seconds: float) -> None:
    """Wait, or less when there is news of the target."""
    with trio.move_on_after(seconds):
        await target.wake.wait()
    target.wake = trio.Event()
