"""A running node: links, rounds of evidence, calls, publications and replication, put together and carried by trio.

What it is made of comes in as `NodeParts`; `overlay/app/compose.py` makes them from a state folder.
"""

import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import trio

from overlay.core import limits
from overlay.core.chance import Chance
from overlay.core.evidence import Appraiser, Prover
from overlay.core.gate import NO_TAG, SeenEphemerals
from overlay.core.guard import asked
from overlay.core.handshake import Entrance, HandshakeContext
from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.limits import AttestTimes, RekeyTimes
from overlay.core.liveness import Pong
from overlay.core.log_parts import LogSource, NoLogs
from overlay.core.mesh.found import Address, AnnouncementFacts
from overlay.core.mesh.greeting import shows_gate_key
from overlay.core.mesh.skew import Sample, Skews, clock_sentence, measure
from overlay.core.rpc import Calls, SeenCalls
from overlay.core.session import Session, SessionConfig
from overlay.core.session_events import (
    Closed,
    CredentialsChanged,
    Event,
    EvidenceWanted,
    Failed,
    LeaseRenewed,
    MessageReceived,
    NonceReceived,
    Opened,
    Ponged,
    Rekeyed,
)
from overlay.core.stream_events import StreamOffered
from overlay.core.stream_formats import Opening
from overlay.core.trust import TrustSet, VerifiedPeer
from overlay.errors import (
    HostLacks,
    NotAllowed,
    PeerUnreachable,
    Refused,
)
from overlay.events import (
    ChainRejected,
    EvidenceFailed,
    FinderFailed,
    IdentityCloned,
    LinkRefused,
    LinkRekeyed,
    NodeEvent,
    NodeStarted,
    NodeStopping,
    PeerAttested,
    PeerDown,
    PeerUp,
    PeerWarning,
    ServiceRefused,
    TrustLost,
)
from overlay.net.accept import Door
from overlay.net.attester import Attester, renewal_due
from overlay.net.background import background
from overlay.net.desk import CallDesk
from overlay.net.guest import GuestLink, GuestRoom
from overlay.net.link import Link
from overlay.net.peer import Peer
from overlay.net.peer_warnings import peer_warnings
from overlay.net.pool import Pool
from overlay.net.ports import Finder, NoStandings, Standings, TrustKeeper, WitnessKeeper
from overlay.net.replicator import ChainKeeper, ForkKeeper, Replicator
from overlay.net.request import Handler, PeerInfo
from overlay.net.rights import Rights
from overlay.net.statistics import LinkStatistics
from overlay.net.stream import Stream
from overlay.net.wake import wait_wake
from overlay.registry import ChainKind, FrameType, Mode, Reason, ReplyStatus, Role

Observer = Callable[[NodeEvent], None]
TransientHandler = Callable[[bytes, PeerInfo], None]  # raises Refused
StreamHandler = Callable[[Stream], Awaitable[None]]
CLOCK_REASONS = frozenset(
    {Reason.CERTIFICATE_EXPIRED, Reason.CERTIFICATE_NOT_YET_VALID, Reason.ENDORSEMENT_EXPIRED, Reason.CLOCK}
)
TRUST_FRAMES = frozenset({FrameType.TRUST_UPDATE, FrameType.AUTHORITY_OBJECT, FrameType.AUTHORITY_ROUND, FrameType.ORDER})
TRUST_REASONS = frozenset(range(Reason.OTHER_MESH, Reason.REKEY_FAILED))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeParts:
    """All that a node is made of. Callables are asked anew each time, because what they give changes while it runs."""

    identity: LocalIdentity
    trust: Callable[[], TrustSet]
    gate_keys: Sequence[bytes] = field(repr=False)
    tag: bytes
    calendar: Callable[[], datetime]
    chance: Chance
    appraiser: Appraiser
    prover: Callable[[LocalIdentity], Prover]
    logs: LogSource = field(default_factory=NoLogs)  # that explain what our TPM quotes
    renew: Callable[[], Awaitable[LocalIdentity]]  # the next endorsement
    finders: Sequence[Finder]
    known: Callable[[], Sequence[NodeId]]
    keepers: Sequence[ChainKeeper]
    services: Mapping[str, Handler]
    streams: Mapping[str, StreamHandler] = field(default_factory=dict)
    transient: TransientHandler
    forks: ForkKeeper | None = None  # without one nobody looks for proofs, and none are heard
    standings: Standings = field(default_factory=NoStandings)
    witnesses: WitnessKeeper | None = None  # without one nothing is witnessed
    trust_keeper: TrustKeeper | None = None  # without one no guests come in, and nothing is heard of the authority
    rekey: RekeyTimes = field(default_factory=RekeyTimes)
    attest: AttestTimes = field(default_factory=AttestTimes)
    listen: tuple[str, int] = ("::", 0)


class Node:
    """The engine. `run_node` makes one."""

    def __init__(
        self, parts: NodeParts, nursery: trio.Nursery, observers: Sequence[Observer], session: type[Session] = Session
    ) -> None:
        self.parts = parts
        self._session = session
        self.port = 0
        self.refused = 0
        self._nursery = nursery
        self._observers = list(observers)
        self.skews = Skews()
        self._serving: Counter[NodeId] = Counter()  # first windows of stream handlers that run, also of broken streams
        self._finding: set[trio.CancelScope] = set()
        self._seen_hellos = SeenEphemerals()
        self._seen_calls = SeenCalls()
        self.rights = Rights(parts.trust, parts.standings)
        self._desk = CallDesk(parts.services, nursery, parts.calendar, self._may_use)
        self._attester = Attester(
            parts.identity, prover=parts.prover, renew=parts.renew,
            renewal_due=lambda identity: renewal_due(identity, parts.calendar().timestamp()),
            owner=self, times=parts.attest, chance=parts.chance,
        )
        self._peers_changed = trio.Event()
        self.pool = Pool(
            own_id=parts.identity.node_id, owner=self, nursery=nursery, fraction=parts.chance.fraction,
            rests=lambda: self.kept_out_until is not None,
        )
        keeper = parts.trust_keeper
        self.guests = GuestRoom(
            load=self.pool.load, entrance=lambda: self.entrance(parts.tag), nursery=nursery,
            sides=lambda mode: None if keeper is None else keeper.side(mode),
            hosts=lambda mode: None if keeper is None else keeper.host(mode), tell=self._on_guest_refused,
        )
        self.replicators = {
            keeper.kind: Replicator(keeper, send=self._send_to, rejected=self.rejected) for keeper in parts.keepers
        }
        if parts.forks is not None and ChainKind.AUDIT in self.replicators:
            self.replicators[ChainKind.AUDIT].watch = parts.forks.watch

    @property
    def identity(self) -> LocalIdentity:
        """The credentials in force, and their keys."""
        return self._attester.identity

    @property
    def kept_out_until(self) -> datetime | None:
        """Until when this node is in quarantine, as far as it knows: it dials nobody and takes nobody in. None if it is not."""
        return self.parts.trust().quarantine_end(self.identity.node_id, self.parts.calendar())

    @property
    def evidence_warning(self) -> str:
        """Why our prover failed the last time; empty while it works."""
        return self._attester.warning

    @property
    def peer_warnings(self) -> tuple[str, ...]:
        """What someone should know of linked peers."""
        return peer_warnings(self.pool.links.values(), trio.current_time(), self.parts.attest.overdue)

    # --- what the attester asks and tells (AttesterOwner) -----------------------------------------------------------

    def links(self) -> tuple[Link, ...]:
        """Every connection."""
        return self.pool.all_links

    def evidence_failed(self, detail: str, hint: str) -> None:
        """Our prover could not, or the endorsement was not renewed."""
        self.emit(EvidenceFailed(detail=detail, hint=hint))

    def credentials_renewed(self) -> None:
        """Links under an older static key are replaced, one after the other."""
        for link in self.pool.all_links:
            self.pool.renew_statics(link, limits.STATIC_RENEW_WITHIN)

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, and start every task; returns when the port is known."""
        listeners = await open_listeners(*self.parts.listen)
        self.port = listeners[0].socket.getsockname()[1]
        self._nursery.start_soon(self._serve, listeners)
        self._nursery.start_soon(self._attester.run)
        self._nursery.start_soon(self._watch_sleep)
        for replicator in self.replicators.values():
            self._nursery.start_soon(replicator.run)
        own = self.identity.verified
        self.emit(
            NodeStarted(
                name=own.name, node=str(own.node_id), mesh=str(self.parts.trust().mesh_id), port=self.port,
                level=own.certificate.facts.level,
            )
        )
        for finder in self.parts.finders:
            self._nursery.start_soon(self._find, finder)

    async def stop(self) -> None:
        """Say GOODBYE to everyone and let it go out."""
        self.emit(NodeStopping(name=self.identity.verified.name))
        self.pool.close(Reason.SHUTDOWN)
        with trio.move_on_after(1.0):
            await self.pool.wait_empty()

    def emit(self, event: NodeEvent) -> None:
        """Tell every observer."""
        for observer in self._observers:
            observer(event)

    def observe(self, observer: Observer) -> None:
        """Tell this one, too, from now on."""
        self._observers.append(observer)

    async def _serve(self, listeners: list[trio.SocketListener]) -> None:
        door = Door(self.pool.load, shows_gate_key=self._shows_gate_key, enter=self._enter, evict=self._evict)
        await door.serve(listeners)

    def _enter(self, stream: trio.SocketStream, address: Address, place: int, mode: int) -> None:
        """Members go to the pool, guests to their room; the session judges the mode once more."""
        if self.kept_out_until is not None:
            self.pool.load.closed(place)
            stream.socket.close()
            return
        enter = self.guests.enter if mode in (Mode.JOIN, Mode.RENEW) else self.pool.enter
        enter(stream, address, place)

    def _evict(self, place: int) -> None:
        self.pool.evict(place)
        self.guests.evict(place)

    def entrance(self, tag: bytes) -> Entrance:
        """How a handshake with or by us begins; `tag` is the responder's."""
        parts = self.parts
        return Entrance(chance=parts.chance, gate_keys=parts.gate_keys, tag=tag, seen=self._seen_hellos)

    def _shows_gate_key(self, greeting: bytes) -> bool:
        parts = self.parts
        return shows_gate_key(greeting, parts.gate_keys[:2], (parts.tag, NO_TAG), self._seen_hellos)

    def _facts(self) -> AnnouncementFacts:
        return AnnouncementFacts(
            port=self.port, tag=self.parts.tag, node_id=self.identity.node_id, gate_keys=tuple(self.parts.gate_keys),
            known=self.parts.known,
        )

    def gate_moved(self) -> None:
        """There is another gate key: finders begin anew with it, for what they announce and whom they recognise."""
        for scope in self._finding:
            scope.cancel()

    async def _find(self, finder: Finder) -> None:
        """For as long as the node runs; anew with each gate key."""
        try:
            while True:
                with trio.CancelScope() as scope:
                    self._finding.add(scope)
                    await finder.run(self._facts(), self.pool.found)
                self._finding.discard(scope)
                if not scope.cancel_called:
                    return
        except HostLacks as error:
            self.emit(FinderFailed(detail=str(error), hint=error.hint))

    # --- what the pool asks and tells (PoolOwner) -----------------------------------------------------------------------

    def make_session(self, role: Role, tag: bytes, gate_key: bytes | None = None) -> Session:
        """A session for a new connection; who was away when the gate key changed is knocked at with the one that it knows."""
        parts = self.parts
        keys = (gate_key, *parts.gate_keys) if gate_key is not None and gate_key in parts.gate_keys else parts.gate_keys
        context = HandshakeContext(
            identity=self.identity, trust=parts.trust, calendar=parts.calendar, chance=parts.chance,
            gate_keys=keys, tag=tag if role is Role.OPENER else parts.tag, seen=self._seen_hellos,
        )
        config = SessionConfig(
            handshake=context, appraiser=parts.appraiser, evidence_kind=self._attester.prover.kind, logs=parts.logs,
            has_link=lambda peer: NodeId(peer) in self.pool.links, seen_calls=self._seen_calls, rekey=parts.rekey,
            attest=parts.attest,
        )
        return self._session(role, config, trio.current_time())

    def link_event(self, link: Link, event: Event) -> None:
        """Any event of any link."""
        match event:
            case MessageReceived():
                self._on_message(link, event)
            case EvidenceWanted(binding=binding):
                self._attester.admission(link, binding)
            case NonceReceived(number=number, binding=binding):
                self._attester.nonce(link, number, binding)
            case Opened(appraisal=appraisal):
                self._on_opened(link)
                self._warn(link, appraisal.warnings)
            case LeaseRenewed(appraisal=appraisal, round=number):
                link.rounds += 1
                self._warn(link, appraisal.warnings)
                name, node = _who(link)
                self.emit(PeerAttested(name=name, node=node, level=appraisal.level, round=number))
            case Rekeyed(epoch=epoch):
                name, node = _who(link)
                self.emit(LinkRekeyed(name=name, node=node, epoch=epoch))
            case CredentialsChanged(peer=peer):
                self._on_credentials(link, peer)
            case StreamOffered():
                self._on_stream(link, event)
            case Ponged(pong=pong):
                self._on_pong(link, pong)
            case Closed():
                self._desk.link_ended(link)
            case Failed():
                self._desk.link_ended(link)
                self._on_failed(link, event)

    def _on_credentials(self, link: Link, peer: VerifiedPeer) -> None:
        if self.parts.trust_keeper is not None:
            self.parts.trust_keeper.peer_renewed(peer)
        self._notify_peers()
        self.pool.renew_statics(link, limits.STATIC_RENEW_WITHIN)

    def peer_up(self, link: Link) -> None:
        """There is a link to this peer now."""
        name, node = _who(link)
        lease = link.session.lease
        evidence = "" if lease is None else lease.appraisal.kind.name.lower()
        self.emit(
            PeerUp(
                name=name, node=node, level=_level(link), address=link.address, dialled=link.session.role is Role.OPENER,
                kid=link.peer.kid.hex(), evidence=evidence,
            )
        )
        for replicator in self.replicators.values():
            replicator.peer_opened(link.peer.node_id)
        if self.parts.witnesses is not None:
            self.parts.witnesses.peer_opened(link.peer.node_id)
        if self.parts.trust_keeper is not None:
            self.parts.trust_keeper.peer_opened(link.peer.node_id)
        if self.parts.forks is not None:
            self.parts.forks.peer_opened(link.peer.node_id)
        self._notify_peers()

    def link_replaced(self, peer: NodeId) -> None:
        """A link to this peer has ended, another one stays: heads are told again, and what it owed is asked for again."""
        for replicator in self.replicators.values():
            replicator.peer_opened(peer)
        if self.parts.witnesses is not None:
            self.parts.witnesses.peer_opened(peer)

    def peer_down(self, peer: NodeId, link: Link) -> None:
        """There is no link to this peer any more."""
        name, node = _who(link)
        ended = link.ended or Failed(Reason.LOST)
        detail = ended.detail if isinstance(ended, Failed) else ""
        self.emit(PeerDown(name=name, node=node, reason=ended.reason, detail=detail, by_peer=ended.by_peer))
        for replicator in self.replicators.values():
            replicator.peer_closed(peer)
        if self.parts.witnesses is not None:
            self.parts.witnesses.peer_closed(peer)
        if self.parts.forks is not None:
            self.parts.forks.peer_closed(peer)
        self.skews.forget(peer)
        self._notify_peers()

    def cloned(self, link: Link) -> None:
        """Two starts of one identity take turns."""
        name, node = _who(link)
        self.emit(IdentityCloned(name=name, node=node))

    def _warn(self, link: Link, warnings: tuple[str, ...]) -> None:
        """What the policy lets pass and someone should see; once for each link."""
        name, node = _who(link)
        for warning in warnings:
            if warning not in link.warned:
                link.warned.add(warning)
                self.emit(PeerWarning(name=name, node=node, detail=warning))

    def _on_opened(self, link: Link) -> None:
        link.calls = Calls(
            identity=lambda: self.identity, mesh_id=self.parts.trust().mesh_id, first_h=link.session.first_h,
            chance=self.parts.chance, seen=self._seen_calls, send=link.send,
        )

    def _on_failed(self, link: Link, event: Failed) -> None:
        name, node = _who(link)
        detail = event.detail
        if event.reason in CLOCK_REASONS:
            detail += f"; {clock_sentence(self.parts.calendar(), self.skews)}"
        if not link.was_open:
            self.refused += 1
            self.emit(
                LinkRefused(
                    reason=event.reason, detail=detail, address=link.address, node=node, name=name, by_peer=event.by_peer
                )
            )
        elif event.reason in TRUST_REASONS and not event.by_peer:
            self.emit(TrustLost(name=name, node=node, reason=event.reason, detail=detail))

    def _on_guest_refused(self, link: GuestLink, error: Refused) -> None:
        """Of who joins or renews: a member that is kept out may try to come back this way."""
        peer = link.session.peer
        name, node = ("", "") if peer is None else (peer.name, str(peer.node_id))
        self.emit(LinkRefused(
            reason=error.reason, detail=error.detail, address=link.address, node=node, name=name, by_peer=link.ended_by_peer
        ))

    # --- sleep ------------------------------------------------------------------------------------------------------

    async def _watch_sleep(self) -> None:
        """After a sleep every link gets fresh keys, or is found dead."""
        while True:
            await wait_wake()
            for link in self.pool.all_links:
                link.woke(limits.PROBE_WITHIN)

    # --- messages ---------------------------------------------------------------------------------------------------

    def _on_pong(self, link: Link, pong: Pong) -> None:
        sample = measure(pong.sent, pong.received, pong.own_wall, pong.peer_wall)
        if sample is not None:
            self.skews.heard(link.peer.node_id, sample)

    def _on_message(self, link: Link, message: MessageReceived) -> None:
        """Judged under the credentials that were in force when it came."""
        try:
            self._take_message(link, message)
        except Refused as error:
            link.refuse(error.reason, error.detail)

    def _take_message(self, link: Link, message: MessageReceived) -> None:
        calls, body = link.calls, message.body
        if calls is None:
            return
        match message.type:
            case FrameType.CALL:
                self._desk.on_call(link, calls, message, self._info(link))
            case FrameType.REPLY:
                self._desk.on_reply(calls, message)
            case FrameType.CANCEL:
                self._desk.on_cancel(link, calls, message)
            case FrameType.REPLY_CREDIT:
                self._desk.on_credit(calls, message)
            case FrameType.TRANSIENT_BATCH:
                self.parts.transient(body, self._info(link))
            case kind if kind in TRUST_FRAMES:
                if self.parts.trust_keeper is None:
                    raise Refused(Reason.UNSUPPORTED, f"{kind.name}: this node keeps no trust")
                self.parts.trust_keeper.received(message.peer, kind, body)
            case kind:
                self._take_of_logs(message, kind)

    def _take_of_logs(self, message: MessageReceived, kind: FrameType) -> None:
        if kind in (FrameType.CHECKPOINT, FrameType.COSIGNATURE):
            if self.parts.witnesses is None:
                raise Refused(Reason.UNSUPPORTED, f"{kind.name}: this node keeps no log")
            self.parts.witnesses.received(message.peer, kind, message.body)
        elif kind is FrameType.FORK_PROOF:
            if self.parts.forks is None:
                raise Refused(Reason.UNSUPPORTED, "fork proofs: this node keeps no log")
            self.parts.forks.received(message.peer.node_id, message.body)
        elif kind in (FrameType.HEADS, FrameType.WANT, FrameType.ITEMS):
            chain_kind = _chain_kind(message.body)
            replicator = None if chain_kind is None else self.replicators.get(chain_kind)
            if replicator is None:
                raise Refused(Reason.UNSUPPORTED, "a kind of chain that this node does not keep")
            replicator.received(message.peer.node_id, kind, message.body)

    async def call(self, peer: NodeId, method: str, body: bytes, timeout: float) -> bytes:  # noqa: ASYNC109
        """See `Peer.call`."""
        return await self._desk.call(self.pool.links.get(peer), peer, method, body, timeout)

    def call_stream(
        self, peer: NodeId, method: str, body: bytes, timeout: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """See `Peer.call_stream`."""
        return self._desk.call_stream(self.pool.links.get(peer), peer, method, body, timeout)

    @asynccontextmanager
    async def open_stream(
        self, peer: NodeId, name: str, body: bytes, *, signed: bool, window: int = limits.WINDOW_FIRST
    ) -> AsyncIterator[Stream]:
        """See `Peer.open_stream`."""
        link = self.pool.links.get(peer)
        if link is None or not link.is_open:
            raise PeerUnreachable(f"there is no link to {peer.short}", hint="`overlay status` shows who is linked")
        deadline = int((self.parts.calendar().timestamp() + limits.CALL_TIMEOUT) * 1000)
        opening = Opening(signed, body, window)
        number = link.open_stream(name, opening, deadline=deadline)
        stream = link.streams[number] = Stream(link, number, opening, peer=self._info(link), name=name)
        async with stream:
            yield stream

    def _on_stream(self, link: Link, offered: StreamOffered) -> None:
        """A stream to one of our handlers; the same bytes may have ended the link."""
        if not link.is_open:
            return
        name = offered.call.method
        handler = self.parts.streams.get(name)
        if handler is None:
            link.answer_stream(offered.stream, ReplyStatus.NO_SUCH_METHOD, "")
            return
        if not self._may_use(self._info(link), name):
            link.answer_stream(offered.stream, ReplyStatus.NOT_ALLOWED, "")
            return
        peer, opening = link.peer.node_id, offered.opening
        if self._serving[peer] + opening.window > limits.STREAM_HANDLER_WINDOWS:
            link.answer_stream(offered.stream, ReplyStatus.BUSY, "")
            return
        self._serving[peer] += opening.window
        stream = link.streams[offered.stream] = Stream(link, offered.stream, opening, peer=self._info(link), name=name)
        link.answer_stream(offered.stream)
        self._nursery.start_soon(self._serve_stream, handler, stream, opening.window)

    async def _serve_stream(self, handler: StreamHandler, stream: Stream, window: int) -> None:
        """Run a handler; whatever it raises breaks the stream off, and is no reason to end the node."""
        try:
            await handler(stream)
        except NotAllowed:
            stream.break_off(ReplyStatus.NOT_ALLOWED)
        except Exception as error:  # noqa: BLE001
            stream.break_off(ReplyStatus.FAILED, f"{type(error).__name__}: {error}"[:200])
        else:
            stream.close()
        finally:
            self._serving[stream.peer.node_id] -= window

    def send_transients(self, raw: bytes) -> None:
        """Push a batch of transient publications to every linked peer."""
        for peer in tuple(self.pool.links):
            self._send_to(peer, FrameType.TRANSIENT_BATCH, raw)

    def _send_to(self, peer: NodeId, frame: FrameType, body: bytes) -> None:
        link = self.pool.links.get(peer)
        if link is not None and link.is_open:
            try:
                link.send(frame, 0, body)
            except PeerUnreachable:
                return  # the machine asks another peer

    def tell(self, peer: NodeId, frame: FrameType, body: bytes) -> bool:
        """Send one of `TRUST_FRAMES`, or what witnesses say, to a linked peer; whether there was a link to take it."""
        link = self.pool.links.get(peer)
        if link is None or not link.is_open:
            return False
        try:
            link.send(frame, 0, body)
        except PeerUnreachable:
            return False
        return True

    def flush_logs(self) -> None:
        """Send what the machine of audit logs owes."""
        self.replicators[ChainKind.AUDIT].flush()

    def linked_ids(self) -> tuple[NodeId, ...]:
        """Who is linked."""
        return tuple(peer for peer, link in self.pool.links.items() if link.is_open)

    def verified_peer(self, peer: NodeId) -> VerifiedPeer | None:
        """What a linked peer has shown."""
        link = self.pool.links.get(peer)
        return None if link is None or not link.is_open else link.peer

    async def renew_credentials(self) -> None:
        """There is another certificate: a new endorsement is made under it, and told to every peer."""
        await self._attester.renew()

    def trust_moved(self) -> None:
        """Judge everybody anew, those who are not open yet, too: who is trusted no more is gone when this returns."""
        trust, at = self.parts.trust(), self.parts.calendar()
        self._attester.look_at_policy()
        for link in self.pool.all_links:
            peer = link.session.peer
            if peer is None:
                continue
            try:
                asked(partial(trust.judge, peer, at))
            except Refused as error:
                link.refuse(error.reason, error.detail)

    def close_links(self, reason: Reason) -> None:
        """Say GOODBYE on every link; what dials goes on."""
        for link in self.pool.all_links:
            link.close(reason)

    def rejected(self, peer: NodeId, reason: Reason, detail: str) -> None:
        """A peer sent something of a log that does not hold: all are told, and but for a fork its link ends."""
        link = self.pool.links.get(peer)
        if link is None:
            return
        name, node = _who(link)
        self.emit(ChainRejected(name=name, node=node, reason=reason, detail=detail))
        if reason is not Reason.FORKED:
            link.refuse(reason, detail)

    # --- peers ------------------------------------------------------------------------------------------------------

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The linked members, by name."""
        links = [link for link in self.pool.links.values() if link.is_open]
        return tuple(sorted((Peer(self._info(link), self) for link in links), key=lambda peer: peer.name))

    def info_of(self, node_id: NodeId, name: str) -> PeerInfo:
        """What is known of a node now: the level of one that is linked is what it has shown, else what its certificate says."""
        link = self.pool.links.get(node_id)
        if link is not None and link.is_open:
            return self._info(link)
        own = self.identity.verified
        if node_id == own.node_id:
            return PeerInfo(node_id, own.name, own.roles, own.certificate.facts.level)
        known = self.parts.standings.member(node_id)
        return PeerInfo(node_id, name, (), 0) if known is None else self.rights.limited(known)

    def shown_level(self, node_id: NodeId) -> int | None:
        """What a linked node has shown us, whatever others say; None for one that is not linked."""
        link = self.pool.links.get(node_id)
        return _level(link) if link is not None and link.is_open else None

    def _info(self, link: Link) -> PeerInfo:
        return self.rights.limited(info_of(link))

    def _may_use(self, caller: PeerInfo, service: str) -> bool:
        """Whether the policy lets this caller use a service or stream of ours now; if not, observers are told."""
        refusal = self.rights.refusal(caller, service)
        if refusal is not None:
            self.emit(ServiceRefused(name=caller.name, node=str(caller.node_id), service=service, reason=refusal.reason))
        return refusal is None

    async def wait_peers_change(self) -> None:
        """Until a peer came, went or changed."""
        await self._peers_changed.wait()

    def _notify_peers(self) -> None:
        self._peers_changed.set()
        self._peers_changed = trio.Event()

    def link_statistics(self) -> tuple[LinkStatistics, ...]:
        """One for each linked peer, by name."""
        now = trio.current_time()
        found = [
            _link_statistics(link, self.skews.of(peer), now, self._info(link).level)
            for peer, link in self.pool.links.items() if link.is_open
        ]
        return tuple(sorted(found, key=lambda one: one.name))


@asynccontextmanager
async def run_node(
    parts: NodeParts, observers: Sequence[Observer] = (), session: type[Session] = Session
) -> AsyncIterator[Node]:
    """A node for the length of the block; it says GOODBYE at the end. `session` is the machine of its links."""
    async with background() as nursery:
        node = Node(parts, nursery, observers, session)
        await node.start()
        try:
            yield node
        finally:
            with trio.CancelScope(shield=True):
                await node.stop()


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on both families at one port where the host is "::" and IPv6 works, else on the one given.

    Raises:
        HostLacks: another program has that port, or the address is not of this machine.
    """
    try:
        return await _listen(host, port)
    except OSError as error:
        hint = "another program may use it, or it is not of this machine: choose another with --listen"
        raise HostLacks(f"cannot listen on port {port} of {host}: {error.strerror or error}", hint=hint) from None


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    """Raises OSError."""
    if host != "::":
        return await trio.open_tcp_listeners(port, host=host)
    try:
        six = await trio.open_tcp_listeners(port, host="::")
    except OSError:
        return await trio.open_tcp_listeners(port, host="0.0.0.0")  # noqa: S104
    try:
        four = await trio.open_tcp_listeners(six[0].socket.getsockname()[1], host="0.0.0.0")  # noqa: S104
    except OSError:
        return six
    return six + four


def info_of(link: Link) -> PeerInfo:
    """Who is at the other end, for users."""
    peer = link.peer
    return PeerInfo(peer.node_id, peer.name, peer.roles, _level(link))


def _level(link: Link) -> int:
    lease = link.session.lease
    return 0 if lease is None else lease.appraisal.level


def _who(link: Link) -> tuple[str, str]:
    """Name and id, both empty for a stranger."""
    peer = link.session.peer
    return ("", "") if peer is None else (peer.name, str(peer.node_id))


def _chain_kind(body: bytes) -> ChainKind | None:
    """Field 1 of HEADS, WANT and ITEMS, which stands at a fixed place; the machine parses the whole."""
    try:
        return ChainKind(body[4])
    except (IndexError, ValueError):
        return None


def _link_statistics(link: Link, sample: Sample | None, now: float, level: int) -> LinkStatistics:
    lease, session = link.session.lease, link.session
    name, node = _who(link)
    return LinkStatistics(
        name=name, node=node, level=level, opener=session.role is Role.OPENER, address=link.address,
        epoch=session.epoch, epoch_age=now - session.epoch_began, rounds=link.rounds,
        evidence_age=now - lease.since if lease is not None else math.inf,
        lease_left=lease.ends - now if lease is not None else 0.0,
        round_trip=None if sample is None else sample.round_trip, clock_ahead=None if sample is None else sample.ahead,
    )
