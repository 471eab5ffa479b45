"""A running node: links, rounds of evidence, calls, publications and replication, put together and carried by trio.

What it is made of comes in as `NodeParts`; `overlay/app/compose.py` makes them from a state folder.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import trio

from overlay.core import limits
from overlay.core.chance import Chance
from overlay.core.evidence import Appraiser, Prover
from overlay.core.gate import SeenEphemerals
from overlay.core.handshake import HandshakeContext
from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.limits import AttestTimes, RekeyTimes
from overlay.core.mesh.found import AnnouncementFacts
from overlay.core.rounds import OpenRound, ProofWanted, RoundLeader
from overlay.core.rpc import CallReceived, Calls, ReplyReceived, SeenCalls
from overlay.core.session import Session, SessionConfig
from overlay.core.session_events import (
    CredentialsChanged,
    Event,
    EvidenceWanted,
    Failed,
    LeaseRenewed,
    MessageReceived,
    NonceReceived,
    Opened,
    Rekeyed,
)
from overlay.core.trust import TrustSet
from overlay.errors import (
    DeadlineExceeded,
    HostLacks,
    NotAllowed,
    OverlayError,
    PeerUnreachable,
    Refused,
    RemoteError,
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
    TrustLost,
)
from overlay.net.background import background
from overlay.net.link import Link
from overlay.net.peer import Handler, Peer, PeerInfo, Request
from overlay.net.pool import Pool
from overlay.net.ports import Finder
from overlay.net.replicator import ChainKeeper, Replicator
from overlay.net.statistics import LinkStatistics
from overlay.net.wake import wait_wake
from overlay.registry import ChainKind, FrameType, Reason, ReplyStatus, Role

RENEW_LOOK_EVERY = 60.0  # seconds: a machine that slept, or a TPM that failed, costs a minute
ADMISSION_PROOF = -1  # stands for the CHALLENGE's nonce among the round numbers
Observer = Callable[[NodeEvent], None]
TransientHandler = Callable[[bytes, PeerInfo], Awaitable[None]]
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
    renew: Callable[[], Awaitable[LocalIdentity]]  # the next endorsement
    finders: Sequence[Finder]
    known: Callable[[], Sequence[NodeId]]
    keepers: Sequence[ChainKeeper]
    services: Mapping[str, Handler]
    transient: TransientHandler
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
        self.identity = parts.identity
        self.port = 0
        self.refused = 0
        self.evidence_warning = ""
        self._nursery = nursery
        self._observers = list(observers)
        self._seen_hellos = SeenEphemerals()
        self._seen_calls = SeenCalls()
        self._prover = parts.prover(parts.identity)
        self._leader = RoundLeader(times=parts.attest, chance=parts.chance, now=trio.current_time())
        self._leader_wake = trio.Event()
        self._proving = trio.Lock()
        self._replies: dict[bytes, trio.MemorySendChannel[ReplyReceived]] = {}
        self._peers_changed = trio.Event()
        self.pool = Pool(own_id=parts.identity.node_id, owner=self, nursery=nursery, fraction=parts.chance.fraction)
        self.replicators = {
            keeper.kind: Replicator(keeper, send=self._send_to, rejected=self._rejected) for keeper in parts.keepers
        }

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, and start every task; returns when the port is known."""
        listeners = await open_listeners(*self.parts.listen)
        self.port = listeners[0].socket.getsockname()[1]
        self._nursery.start_soon(self._serve, listeners)
        self._nursery.start_soon(self._lead_rounds)
        self._nursery.start_soon(self._renew_endorsement)
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
        facts = AnnouncementFacts(
            port=self.port, tag=self.parts.tag, node_id=own.node_id, gate_keys=tuple(self.parts.gate_keys),
            known=self.parts.known,
        )
        for finder in self.parts.finders:
            self._nursery.start_soon(self._find, finder, facts)

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
        await trio.serve_listeners(self.pool.accept, listeners)

    async def _find(self, finder: Finder, facts: AnnouncementFacts) -> None:
        try:
            await finder.run(facts, self.pool.found)
        except HostLacks as error:
            self.emit(FinderFailed(detail=str(error), hint=error.hint))

    # --- what the pool asks and tells (PoolOwner) -----------------------------------------------------------------------

    def make_session(self, role: Role, tag: bytes) -> Session:
        """A session for a new connection."""
        parts = self.parts
        context = HandshakeContext(
            identity=self.identity, trust=parts.trust, calendar=parts.calendar, chance=parts.chance,
            gate_keys=parts.gate_keys, tag=tag if role is Role.OPENER else parts.tag, seen=self._seen_hellos,
        )
        config = SessionConfig(
            handshake=context, appraiser=parts.appraiser, evidence_kind=self._prover.kind,
            has_link=lambda peer: NodeId(peer) in self.pool.links, rekey=parts.rekey, attest=parts.attest,
        )
        return self._session(role, config, trio.current_time())

    def link_event(self, link: Link, event: Event) -> None:
        """Any event of any link."""
        match event:
            case EvidenceWanted(binding=binding):
                self._leader.join(link, ADMISSION_PROOF, binding, trio.current_time())
                self._leader_wake.set()
            case NonceReceived(number=number, binding=binding):
                self._leader.nonce(link, number, binding, trio.current_time())
                self._leader_wake.set()
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
            case CredentialsChanged():
                self._notify_peers()
            case Failed():
                self._on_failed(link, event)

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
        self._notify_peers()

    def peer_down(self, peer: NodeId, link: Link) -> None:
        """There is no link to this peer any more."""
        name, node = _who(link)
        ended = link.ended or Failed(Reason.LOST)
        detail = ended.detail if isinstance(ended, Failed) else ""
        self.emit(PeerDown(name=name, node=node, reason=ended.reason, detail=detail, by_peer=ended.by_peer))
        for replicator in self.replicators.values():
            replicator.peer_closed(peer)
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
        self._nursery.start_soon(self._take_messages, link)

    def _on_failed(self, link: Link, event: Failed) -> None:
        name, node = _who(link)
        if not link.was_open:
            self.refused += 1
            self.emit(
                LinkRefused(
                    reason=event.reason, detail=event.detail, address=link.address, node=node, name=name, by_peer=event.by_peer
                )
            )
        elif event.reason in TRUST_REASONS and not event.by_peer:
            self.emit(TrustLost(name=name, node=node, reason=event.reason, detail=event.detail))

    # --- rounds of evidence -----------------------------------------------------------------------------------------

    async def _lead_rounds(self) -> None:
        while True:
            self._leader_wake = trio.Event()
            with trio.move_on_at(self._leader.deadline):
                await self._leader_wake.wait()
            links = frozenset[Hashable](link for link in self.pool.all_links if link.is_open)
            for event in self._leader.tick(trio.current_time(), links):
                match event:
                    case OpenRound(number=number):
                        for link in self.pool.all_links:
                            link.open_round(number)
                    case ProofWanted():
                        self._nursery.start_soon(self._prove, event)

    async def _prove(self, wanted: ProofWanted) -> None:
        """One quote for all; a prover that fails ends no open link by itself, the leases do."""
        async with self._proving:
            await self._prove_all(wanted)
        self._leader.proven()
        self._leader_wake.set()

    async def _prove_all(self, wanted: ProofWanted) -> None:
        try:
            found = await trio.to_thread.run_sync(self._prover.prove, [binding for _, _, binding in wanted.bindings])
        except OverlayError as error:
            self.evidence_warning = str(error)
            self.emit(EvidenceFailed(detail=str(error), hint=error.hint))
            for link, number, _ in wanted.bindings:
                if isinstance(link, Link) and number == ADMISSION_PROOF:
                    link.evidence_failed(str(error))
        else:
            self.evidence_warning = ""
            for (link, number, _), evidence in zip(wanted.bindings, found, strict=True):
                if isinstance(link, Link) and number == ADMISSION_PROOF:
                    link.supply_evidence(evidence)
                elif isinstance(link, Link):
                    link.send_evidence(number, evidence)

    async def _renew_endorsement(self) -> None:
        """A new endorsement every 12 h by the calendar, told to every peer before the first message under it."""
        while True:
            await trio.sleep(RENEW_LOOK_EVERY)
            age = self.parts.calendar() - self.identity.verified.endorsement.not_before
            if age.total_seconds() < limits.ENDORSEMENT_RENEW:
                continue
            try:
                await self._renew()
            except OverlayError as error:
                self.emit(EvidenceFailed(detail=f"the endorsement was not renewed: {error}", hint=error.hint))

    async def _renew(self) -> None:
        """Between two proofs, because a proof is judged under the credentials that the peer knows."""
        async with self._proving:
            identity = await self.parts.renew()
            self._prover = self.parts.prover(identity)
            for link in self.pool.all_links:
                link.change_credentials(identity)
            self.identity = identity

    async def _watch_sleep(self) -> None:
        """After a sleep every link gets fresh keys, or is found dead."""
        while True:
            await wait_wake()
            for link in self.pool.all_links:
                link.woke(limits.PROBE_WITHIN)

    # --- messages ---------------------------------------------------------------------------------------------------

    async def _take_messages(self, link: Link) -> None:
        """Application messages of one link, in order, until it ends."""
        async for message in link.messages:
            try:
                await self._take_message(link, message)
            except Refused as error:
                link.refuse(error.reason, error.detail)
        self._drop_replies(link)

    async def _take_message(self, link: Link, message: MessageReceived) -> None:
        """Judged under the credentials that were in force when it came."""
        calls, stream, body = link.calls, message.stream, message.body
        if calls is None:
            return
        match message.type:
            case FrameType.CALL:
                for received in calls.on_call(body, stream, message.peer):
                    self._nursery.start_soon(self._handle, link, calls, received)
            case FrameType.REPLY:
                for reply in calls.on_reply(body, stream, message.peer):
                    waiting = self._replies.pop(reply.token, None)
                    if waiting is not None:
                        waiting.send_nowait(reply)
            case FrameType.TRANSIENT:
                await self.parts.transient(body, info_of(link))
            case FrameType.HEADS | FrameType.WANT | FrameType.ITEMS:
                chain_kind = _chain_kind(body)
                replicator = None if chain_kind is None else self.replicators.get(chain_kind)
                if replicator is None:
                    raise Refused(Reason.UNSUPPORTED, "a kind of chain that this node does not keep")
                replicator.received(message.peer.node_id, message.type, body)

    async def _handle(self, link: Link, calls: Calls, received: CallReceived) -> None:
        """Run a handler; whatever it raises is the answer FAILED, and no reason to end the node."""
        handler = self.parts.services.get(received.call.method)
        status, body = ReplyStatus.NO_SUCH_METHOD, b""
        if handler is not None:
            status, body = await _run_handler(handler, Request(info_of(link), received.call.method, received.call.body))
        if not link.is_open:
            calls.abandon()
            return
        try:
            calls.reply(received, status, body)
        except PeerUnreachable:
            return

    async def call(self, peer: NodeId, method: str, body: bytes, timeout: float) -> bytes:  # noqa: ASYNC109
        """See `Peer.call`."""
        link = self.pool.links.get(peer)
        if link is None or link.calls is None or not link.is_open:
            raise PeerUnreachable(f"there is no link to {peer.short}", hint="`overlay status` shows who is linked")
        deadline = int((self.parts.calendar().timestamp() + timeout) * 1000)
        token = link.calls.call(peer, link.session.next_stream(), method, body, deadline)
        answer_in, answer_out = trio.open_memory_channel[ReplyReceived](1)
        self._replies[token] = answer_in
        link.replies.add(token)
        try:
            with trio.fail_after(timeout):
                reply = await answer_out.receive()
        except trio.TooSlowError:
            raise DeadlineExceeded(f"no answer to {method} within {timeout:g} s") from None
        except trio.EndOfChannel:
            raise PeerUnreachable("the link ended before the answer") from None
        finally:
            link.replies.discard(token)
            link.calls.forget(token)
            self._replies.pop(token, None)
        return _result(reply, method)

    def _drop_replies(self, link: Link) -> None:
        for token in tuple(link.replies):
            waiting = self._replies.pop(token, None)
            if waiting is not None:
                waiting.close()

    def send_transient(self, raw: bytes) -> int:
        """Push a message to every linked peer; how many took it."""
        sent = 0
        for link in tuple(self.pool.links.values()):
            if link.is_open:
                link.send(FrameType.TRANSIENT, 0, raw)
                sent += 1
        return sent

    def _send_to(self, peer: NodeId, frame: FrameType, body: bytes) -> None:
        link = self.pool.links.get(peer)
        if link is not None and link.is_open:
            try:
                link.send(frame, 0, body)
            except PeerUnreachable:
                return  # the machine asks another peer

    def _rejected(self, peer: NodeId, reason: Reason, detail: str) -> None:
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
        return tuple(sorted((Peer(info_of(link), self.call) for link in links), key=lambda peer: peer.name))

    def info_of(self, node_id: NodeId, name: str) -> PeerInfo:
        """What is known of a node now; the level of one that is not linked is 0."""
        link = self.pool.links.get(node_id)
        if link is not None and link.is_open:
            return info_of(link)
        own = self.identity.verified
        if node_id == own.node_id:
            return PeerInfo(node_id, own.name, own.roles, own.certificate.facts.level)
        return PeerInfo(node_id, name, (), 0)

    async def wait_peers_change(self) -> None:
        """Until a peer came, went or changed."""
        await self._peers_changed.wait()

    def _notify_peers(self) -> None:
        self._peers_changed.set()
        self._peers_changed = trio.Event()

    def link_statistics(self) -> tuple[LinkStatistics, ...]:
        """One for each linked peer, by name."""
        now = trio.current_time()
        found = [_link_statistics(link, now) for link in self.pool.links.values() if link.is_open]
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
    """Listen on both families at one port where the host is "::" and IPv6 works, else on the one given."""
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


async def _run_handler(handler: Handler, request: Request) -> tuple[ReplyStatus, bytes]:
    try:
        body = await handler(request)
    except NotAllowed:
        return ReplyStatus.NOT_ALLOWED, b""
    except Exception as error:  # noqa: BLE001
        return ReplyStatus.FAILED, f"{type(error).__name__}: {error}".encode()[:4096]
    if not isinstance(body, bytes | bytearray) or len(body) > limits.BODY_MAX:
        return ReplyStatus.FAILED, b"the handler returned no bytes, or more than 1 MiB"
    return ReplyStatus.OK, bytes(body)


def _result(reply: ReplyReceived, method: str) -> bytes:
    match reply.status:
        case ReplyStatus.OK:
            return reply.body
        case ReplyStatus.FAILED:
            raise RemoteError(reply.body.decode(errors="replace"))
        case ReplyStatus.NO_SUCH_METHOD:
            raise RemoteError(f"the peer has no service {method!r}", hint="services are given to open_node() on that node")
        case ReplyStatus.NOT_ALLOWED:
            raise NotAllowed(f"the peer does not let us call {method!r}")
    raise RemoteError(f"the peer answered {reply.status.name.lower()}")


def _link_statistics(link: Link, now: float) -> LinkStatistics:
    lease, session = link.session.lease, link.session
    name, node = _who(link)
    return LinkStatistics(
        name=name, node=node, level=_level(link), opener=session.role is Role.OPENER, address=link.address,
        epoch=session.epoch, epoch_age=now - session.epoch_began, rounds=link.rounds,
        evidence_age=now - lease.since if lease is not None else math.inf,
        lease_left=lease.ends - now if lease is not None else 0.0,
    )
