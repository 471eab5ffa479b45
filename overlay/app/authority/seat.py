"""A node's seat in the authority: everything in this folder put together, behind the port that the engine knows."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import trio

from attest.join import TpmJoinAppraiser
from audit.log import AuditLog
from overlay.app.authority.carrier import Carrier
from overlay.app.authority.ceremonies import Ceremonies
from overlay.app.authority.closings import CopyOf
from overlay.app.authority.gating import GateRing
from overlay.app.authority.hosting import Hosting, Ports
from overlay.app.authority.keeper import Keeper
from overlay.app.authority.ledger import Ledger
from overlay.app.authority.policies import METHOD as POLICY
from overlay.app.authority.policies import PolicyDesk
from overlay.app.authority.quarantine import OwnQuarantine
from overlay.app.authority.recovering import Recovering, RecoveryPorts
from overlay.app.authority.refreshing import Refreshing
from overlay.app.authority.renewing import METHOD, RenewalPorts, Renewing
from overlay.app.authority.restricted import Restricted
from overlay.app.authority.shares import Shares
from overlay.app.authority.shut_out import ShutOut
from overlay.app.authority.signing import Surroundings
from overlay.app.authority.succeeding import CeremonyPorts
from overlay.app.authority.upkeep import Upkeep
from overlay.app.authority.watching import Watching
from overlay.core.authority.binding_pages import page_after
from overlay.core.authority.contents import ClosingCheckpoint
from overlay.core.certificates import VerifiedCertificate, verify_under
from overlay.core.enrolment_files import Bundle
from overlay.core.handshake import Side
from overlay.core.join_frames import Renewal
from overlay.core.join_result import JoinResult
from overlay.core.keys import NodeId
from overlay.core.mesh.found import Address
from overlay.core.renewal import Attempt
from overlay.core.revocation_profile import LogEnd, LogName, serial_bytes
from overlay.core.trust import Credentials, VerifiedPeer
from overlay.errors import NotAllowed, OverlayError, PeerUnreachable, Refused
from overlay.events import AuthorityAlarm
from overlay.net.background import background, spawn
from overlay.net.guest import GuestLink
from overlay.net.node import Node
from overlay.net.request import Handler, Request
from overlay.registry import FrameType, Mode, Reason, Role
from overlay.store.membership import StoredCertificate
from overlay.store.state import RENEWAL_ATTEMPT, StateFolder

GROUP: Final = "overlay.group"
BINDINGS: Final = "overlay.bindings"
WHERE: Final = "overlay.where"
ASK_WITHIN: Final = 25.0  # seconds for one signer, which may have to ask others


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatParts:
    """What is known before the node runs."""

    folder: StateFolder
    ledger: Ledger
    appraiser: TpmJoinAppraiser
    at: Callable[[], datetime]
    gate: Callable[[], tuple[int, bytes]]
    ring: GateRing
    addresses_of: Callable[[NodeId], tuple[str, ...]]
    learn: Callable[[NodeId, str, Address], None]  # where a member listens
    make_request: Callable[[], bytes]  # a CSR for our identity key
    install: Callable[[StoredCertificate], None]  # blocks
    shares: Shares
    refresh_wait: float  # seconds that a refresh waits for a member that is away
    recovery_wait: float  # seconds in which the old authority can answer a recovery
    refresh_every: float  # seconds between two refreshes that nobody has ordered
    log: Callable[[], AuditLog | None]  # ours and the copies of others'; None until a certificate that has ended is renewed
    sign: Callable[[bytes], bytes] = field(repr=False)  # by our identity key; blocks
    heads: Callable[[tuple[NodeId, ...]], tuple[ClosingCheckpoint, ...]]
    copy_of: CopyOf
    log_ends: Callable[[tuple[NodeId, ...]], dict[LogName, LogEnd]] = field(default=lambda _nodes: {})
    credentials_of: Callable[[bytes], Credentials | None] = field(default=lambda _kid: None)  # by kid, as a log shows them


class Seat:
    """Keeps `TrustKeeper` (net/ports.py). Until `begin` it takes no guests and hears nothing."""

    def __init__(self, parts: SeatParts) -> None:
        self.parts = parts
        self.ledger = parts.ledger
        self._keeper: Keeper | None = None
        self._hosting: Hosting | None = None
        self._engine: Node | None = None
        self._renewing: Renewing | None = None
        self._recovering: Recovering | None = None
        self._restricted: Restricted | None = None
        self._ceremonies: Ceremonies | None = None
        self._quarantine: OwnQuarantine | None = None
        self._upkeep: Upkeep | None = None
        self._watching: Watching | None = None

    @property
    def ceremonies(self) -> Ceremonies:
        """Once it has begun."""
        assert self._ceremonies is not None
        return self._ceremonies

    @property
    def keeper(self) -> Keeper:
        """Once it has begun."""
        assert self._keeper is not None
        return self._keeper

    @property
    def watching(self) -> Watching:
        """Once it has begun, with a log."""
        assert self._watching is not None
        return self._watching

    @property
    def policies(self) -> PolicyDesk:
        """Once it has begun."""
        return PolicyDesk(self.engine, self.keeper)

    @property
    def renewing(self) -> Renewing:
        """Once it has begun."""
        assert self._renewing is not None
        return self._renewing

    @property
    def recovering(self) -> Recovering:
        """Once it has begun."""
        assert self._recovering is not None
        return self._recovering

    @property
    def engine(self) -> Node:
        """Once it has begun."""
        assert self._engine is not None
        return self._engine

    # --- TrustKeeper ------------------------------------------------------------------------------------------------

    def side(self, mode: Mode) -> Side | None:
        """What we show guests."""
        return None if self._hosting is None else self._hosting.side(mode)

    def host(self, mode: Mode) -> Callable[[GuestLink], Awaitable[None]] | None:
        """Who talks to them."""
        if self._hosting is None or self._restricted is None:
            return None
        return self._restricted.host if mode is Mode.RENEW else self._hosting.host(mode)

    def peer_opened(self, peer: NodeId) -> None:
        """There is a link to this peer."""
        if self._keeper is None or self._engine is None:
            return
        found = self._engine.verified_peer(peer)
        if found is not None:
            self.ledger.saw(found.certificate)
        self._keeper.peer_opened(peer)
        self.renewing.look()
        link = self._engine.pool.links[peer]
        if link.session.role is Role.OTHER:
            spawn(self._around.nursery, self._ask_where, peer, link.address.rpartition(" ")[0])

    def _restricted_opened(self, peer: NodeId) -> None:
        """A link of mode 3: trust sets are compared before anybody signs."""
        self.keeper.peer_opened(peer)
        self.renewing.look()

    async def _ask_where(self, peer: NodeId, host: str) -> None:
        """Who dialled us is asked on which port it listens, so that we can send joiners there, and dial it ourselves."""
        try:
            port = int.from_bytes(await self.engine.call(peer, WHERE, b"", ASK_WITHIN), "big")
        except OverlayError:
            return
        found = self.engine.verified_peer(peer)
        if found is not None and 0 < port < 2**16:
            self.parts.learn(peer, found.name, (host, port))

    async def serve_group(self, request: Request) -> bytes:
        """The service `overlay.group`: to a member of the authority, which key and generation our share is of."""
        if not self.ledger.is_signer(request.peer.node_id):
            raise NotAllowed("only members of the authority ask for this")
        return self.ceremonies.group_news()

    async def serve_bindings(self, request: Request) -> bytes:
        """The service `overlay.bindings`: to who has a share or is about to get one, a page of what we have bound."""
        if not self.ceremonies.may_read_bindings(request.peer.node_id):
            raise NotAllowed("only members of the authority ask for this")
        return page_after(self.ledger.bindings, request.body)

    async def serve_policy(self, request: Request) -> bytes:
        """The service `overlay.policy`: an operator's node asks us, as a signer, to have a policy signed."""
        return await self.policies.serve(request)

    async def serve_where(self, request: Request) -> bytes:
        """The service `overlay.where`: the TCP port on which we listen, two bytes."""
        del request
        return self.engine.port.to_bytes(2, "big")

    def peer_renewed(self, peer: VerifiedPeer) -> None:
        """Its new certificate is one of those that were seen."""
        self.ledger.saw(peer.certificate)

    def received(self, peer: VerifiedPeer, kind: FrameType, body: bytes) -> None:
        """A frame of trust."""
        if self._keeper is not None:
            self._keeper.received(peer, kind, body)

    @property
    def services(self) -> Mapping[str, Handler]:
        """What peers may ask us for."""
        return {
            METHOD: self.serve_renewal, WHERE: self.serve_where, GROUP: self.serve_group,
            BINDINGS: self.serve_bindings, POLICY: self.serve_policy,
        }

    async def serve_renewal(self, request: Request) -> bytes:
        """The service `overlay.renew`: a linked peer asks us, as a signer, to renew its certificate."""
        peer = self.engine.verified_peer(request.peer.node_id)
        if peer is None or self._hosting is None:
            raise PeerUnreachable("the link has ended")
        result = await self._hosting.renew(Renewal.unpack(request.body), peer.certificate)
        return bytes(result.pack())

    # --- life -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def begin(self, engine: Node) -> "AsyncIterator[Seat]":
        """Take part, for the length of the block."""
        async with background() as nursery:
            upkeep = await trio.to_thread.run_sync(partial(  # the only wait: a peer that opens finds all of us or nothing
                Upkeep, self.parts.folder, self.ledger, engine.identity.node_id, at=self.parts.at, emit=engine.emit,
                refresh_every=self.parts.refresh_every,
            ))
            self._engine, self._upkeep = engine, upkeep
            self._restricted = restricted = Restricted(engine, self.parts.addresses_of, self.received, nursery)
            self._around = around = Surroundings(
                own_id=engine.identity.node_id, chance=engine.parts.chance, at=self.parts.at, linked=restricted.linked,
                nursery=nursery,
            )
            carrier = Carrier(
                own=lambda: engine.identity, mesh_id=self.ledger.trust.mesh_id, tell=restricted.tell
            )
            self._keeper = Keeper(
                around, self.ledger, carrier, restricted, self.parts.ring, identity=lambda: engine.identity
            )
            self._hosting = Hosting(around, self._keeper, Ports(
                identity=lambda: engine.identity, appraiser=self.parts.appraiser, gate=self.parts.gate,
                credentials_of=self._credentials_of, addresses_of=self.parts.addresses_of,
            ))
            self._quarantine = quarantine = OwnQuarantine(engine, self.parts.at)
            self._keeper.on_trust = quarantine.trust_moved
            restricted.renew, restricted.opened = self._hosting.renew, self._restricted_opened
            self._ceremonies = Ceremonies(around, self._keeper, self.parts.shares, CeremonyPorts(
                folder=self.parts.folder, identity=lambda: engine.identity, sign=self.parts.sign, peer=engine.verified_peer,
                heads=self.parts.heads, copy_of=self.parts.copy_of,
                ask_group=lambda member: engine.call(member, GROUP, b"", ASK_WITHIN),
                ask_bindings=lambda member, asked: engine.call(member, BINDINGS, asked, ASK_WITHIN),
            ), self.parts.refresh_wait)
            refreshing = Refreshing(
                around, self._keeper, self._ceremonies, upkeep, self.parts.refresh_every,
                kept_out=lambda: engine.kept_out_until is not None,
            )
            self._ceremonies.on_refresh, self._ceremonies.on_repaired = refreshing.heard, upkeep.share_repaired
            self._renewing = Renewing(self._renewal_ports())
            self._recovering = Recovering(around, self._keeper, self.parts.shares, RecoveryPorts(
                folder=self.parts.folder, identity=lambda: engine.identity, sign=self.parts.sign, heads=self.parts.heads,
                linked_ids=restricted.linked_ids, look=self._renewing.look,
                wait=timedelta(seconds=self.parts.recovery_wait),
            ))
            self.ledger.saw(engine.identity.verified.certificate)
            nursery.start_soon(self._keeper.run)
            nursery.start_soon(self._renewing.run)
            nursery.start_soon(self._ceremonies.run)
            nursery.start_soon(self._recovering.run)
            shut_out = ShutOut(trio.current_time, lambda node: any(str(one) == node for one in engine.linked_ids()))
            engine.observe(shut_out.observe)
            nursery.start_soon(
                restricted.run, lambda: engine.kept_out_until is None and (self._is_over or shut_out.is_time())
            )
            nursery.start_soon(quarantine.run)
            nursery.start_soon(upkeep.run)
            nursery.start_soon(refreshing.run)
            log = self.parts.log()
            if log is not None:
                self._watching = Watching(self._keeper, log, self.certificates_of_newest_root)
                nursery.start_soon(self._watching.run)
            for peer in engine.linked_ids():  # those that opened while we waited
                self.peer_opened(peer)
            yield self

    @property
    def warnings(self) -> tuple[str, ...]:
        """What someone should know."""
        keepers = (self._quarantine, self._upkeep)
        locked = self.parts.shares.locked
        said = [] if locked is None else [f"our share of the mesh key cannot be used: {locked}; {locked.hint}"]
        return (*said, *(warning for keeper in keepers if keeper is not None for warning in keeper.warnings))

    def linked(self, node_id: NodeId) -> bool:
        """Whether it can be told something now."""
        return self._restricted is not None and self._restricted.linked(node_id)

    def log_ends(self, nodes: tuple[NodeId, ...]) -> dict[LogName, LogEnd]:
        """Where the logs of these nodes end, as far as they are held here."""
        return {name: end for name, end in self.parts.log_ends(nodes).items() if name[0] in nodes}

    @property
    def _is_over(self) -> bool:
        """Whether no open link can come about: our certificate has ended, or its root has a successor."""
        own = self._certificate()
        return own.in_grace or len(own.lineage) - 1 < len(self.ledger.trust.later)

    def _certificate(self) -> VerifiedCertificate:
        return self.engine.identity.verified.certificate

    def certificates_of_newest_root(self) -> tuple[VerifiedCertificate, ...]:
        """Of linked peers and our own, as far as the authority in force has issued them."""
        newest = len(self.ledger.trust.later)
        peers = (self.engine.verified_peer(node) for node in self.engine.linked_ids())
        found = [self._certificate(), *(peer.certificate for peer in peers if peer is not None)]
        return tuple(one for one in found if len(one.lineage) - 1 == newest)

    def _credentials_of(self, kid: bytes) -> Credentials | None:
        """Our own, of a linked peer, or of somebody who is away: as an order that we hold or an audit log has shown them."""
        own = self.engine.identity
        if own.kid == kid:
            return own.credentials
        for node_id in self.engine.linked_ids():
            peer = self.engine.verified_peer(node_id)
            if peer is not None and peer.kid == kid:
                return Credentials(peer.endorsement.raw, peer.certificate.der)
        held = (one for order in self.ledger.orders.held.values() for one in order.signed.signatures)
        return next((one.credentials for one in held if one.kid == kid), None) or self.parts.credentials_of(kid)

    # --- our own certificate ----------------------------------------------------------------------------------------

    def _renewal_ports(self) -> RenewalPorts:
        parts, engine = self.parts, self.engine
        return RenewalPorts(
            certificate=self._certificate, newest_generation=lambda: len(self.ledger.trust.later), quorum=self._quorum,
            ask=self._ask, make_request=parts.make_request, kept=self._kept, keep=self._keep, verify=self._verify,
            install=self._install, at=parts.at, fraction=engine.parts.chance.fraction, failed=self._failed,
        )

    def _quorum(self) -> tuple[int, tuple[NodeId, ...]]:
        """Ourselves first: that costs nothing."""
        own, newest = engine_id(self.engine), self.ledger.chain.newest
        assert self._restricted is not None
        there = [node for node in newest.member_ids if node != own and self._restricted.linked(node)]
        return newest.threshold, tuple([own] * (own in newest.member_ids) + there)

    async def _ask(self, member: NodeId, renewal: Renewal) -> JoinResult:
        assert self._hosting is not None and self._restricted is not None
        if member == engine_id(self.engine):
            return await self._hosting.renew(renewal, self._certificate())
        if self.engine.verified_peer(member) is not None:
            with suppress(PeerUnreachable):
                return JoinResult.unpack(await self.engine.call(member, METHOD, renewal.pack(), ASK_WITHIN))
            if self.engine.verified_peer(member) is not None:  # over another link; to ask twice binds nothing more
                return JoinResult.unpack(await self.engine.call(member, METHOD, renewal.pack(), ASK_WITHIN))
        return await self._restricted.ask(member, renewal)

    def _kept(self) -> Attempt | None:
        content = self.parts.folder.read(RENEWAL_ATTEMPT)
        try:
            return None if content is None else Attempt.unpack(content)
        except Refused:
            return None

    async def _keep(self, attempt: Attempt) -> None:
        await trio.to_thread.run_sync(self.parts.folder.write, RENEWAL_ATTEMPT, attempt.pack())

    def _verify(self, bundle: Bundle) -> VerifiedCertificate:
        roots = self.ledger.trust.roots.above(bundle.leaf, bundle.chain)
        certificate = verify_under(bundle.leaf, roots, self.parts.at())
        if certificate.node_id != engine_id(self.engine):
            raise Refused(Reason.WRONG_RECIPIENT, "the certificate is for another node")
        return certificate

    async def _install(self, bundle: Bundle) -> None:
        await trio.to_thread.run_sync(self.parts.install, StoredCertificate(bundle.leaf, bundle.chain))
        await self.engine.renew_credentials()
        self.ledger.saw(self._certificate())

    def _failed(self, detail: str) -> None:
        """An alarm when it fails for the second time: once is a signer that restarts."""
        if self._upkeep is None or not self._upkeep.not_renewed(serial_bytes(self._certificate().serial)):
            return
        own = str(engine_id(self.engine))
        self.engine.emit(AuthorityAlarm(node=own, reason=Reason.CERTIFICATE_EXPIRED, detail=f"not renewed: {detail}"))


def engine_id(engine: Node) -> NodeId:
    """Our node id."""
    return engine.identity.node_id
