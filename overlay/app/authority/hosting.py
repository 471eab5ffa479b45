"""Talks to guests: joiners (mode 2) and nodes that renew (mode 3, or a call on an open link)."""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import trio

from overlay.app.authority.keeper import Keeper
from overlay.app.authority.signing import Surroundings
from overlay.core.authority.contents import ObjectKind
from overlay.core.authority.order_bodies import GrantRoles, Replace
from overlay.core.authority.orders import OPERATOR, SignedOrder, parse_order
from overlay.core.authority.x509_requests import IssueLeaf
from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificate_request import Request
from overlay.core.certificates import VerifiedCertificate, show_time
from overlay.core.enrolment_files import Bundle
from overlay.core.guests import host
from overlay.core.handshake import Side
from overlay.core.identity import LocalIdentity
from overlay.core.invite_checker import Ledger as Books
from overlay.core.invite_checker import LedgerChecker
from overlay.core.join_frames import Join, Renewal
from overlay.core.join_ports import LEAF_LIFE, GrantedInvite, JoinAppraiser, JoinLink
from overlay.core.join_result import JoinResult, SignerHint
from overlay.core.join_signer import (
    STEP_TIMEOUT,
    ApprovalWanted,
    FinishWanted,
    JoinRefused,
    SignerEvent,
    SignerSide,
    welcome,
)
from overlay.core.join_signer_states import State
from overlay.core.joining import SIGNER
from overlay.core.keys import NodeId
from overlay.core.members import Seen
from overlay.core.renewal import check_renewal
from overlay.core.revocation_profile import serial_bytes
from overlay.core.roots import LaterRoot
from overlay.core.trust import Credentials
from overlay.errors import OverlayError, Refused
from overlay.net.guest import GuestLink
from overlay.registry import FrameType, Mode, Reason

Host = Callable[[GuestLink], Awaitable[None]]
RENEWALS_PER_DAY: Final = 24  # of one node: our guess, a certificate lives a day; bindings keep each for 120 days
DAY: Final = 24 * 3600.0  # seconds
MERGED_AGE: Final = 0.0  # seconds: our trust set and those of linked signers are the same, whatever moves is passed on


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What hosting needs beside the keeper."""

    identity: Callable[[], LocalIdentity]
    appraiser: JoinAppraiser
    gate: Callable[[], tuple[int, bytes]]  # number and key
    credentials_of: Callable[[bytes], Credentials | None]  # by kid, of whoever has ever shown them
    addresses_of: Callable[[NodeId], tuple[str, ...]]
    patience: float = STEP_TIMEOUT  # seconds in which a joiner takes its next step


class Hosting:
    """Of one node."""

    def __init__(self, around: Surroundings, keeper: Keeper, ports: Ports) -> None:
        self._around = around
        self._keeper = keeper
        self._ledger = keeper.ledger
        self._ports = ports
        self._checker = LedgerChecker(self._books)
        self._renewed: dict[NodeId, deque[float]] = {}  # when, by node that had a good certificate: as many as there are

    # --- TrustKeeper ------------------------------------------------------------------------------------------------

    def side(self, mode: Mode) -> Side | None:
        """What we show guests of this mode."""
        return host(mode, self._ports.identity(), lambda: self._ledger.trust, self._around.at)

    def host(self, mode: Mode) -> Host | None:
        """Who talks to them."""
        return self._host_joiner if mode is Mode.JOIN else None

    # --- joiners ----------------------------------------------------------------------------------------------------

    async def _host_joiner(self, link: GuestLink) -> None:
        ready = await link.ready()
        around, greeting = self._around, self._welcome()
        if self._ledger.share is None or not self._ledger.is_signer(around.own_id):
            await link.send(*greeting)
            with trio.move_on_after(self._ports.patience):
                await link.receive()  # until it goes
            raise Refused(Reason.NOT_A_SIGNER, "a joiner asks a node that is no signer")
        where = JoinLink(self._ledger.trust.mesh_id, ready.first_h, around.own_id)
        side = SignerSide(
            where, self, self._ports.appraiser, around.chance, greeting, trio.current_time(),
            patience=self._ports.patience,
        )
        refused: JoinRefused | None = None
        while side.state is not State.ENDED:
            for kind, body in side.messages_to_send():
                await link.send(kind, body)
            for event in await self._heard(side, link):
                refused = await self._act(side, event) or refused
        for kind, body in side.messages_to_send():
            await link.send(kind, body)
        if refused is not None:
            raise Refused(refused.reason, refused.detail)

    async def _heard(self, side: SignerSide, link: GuestLink) -> list[SignerEvent]:
        """What comes of the next frame, or of the time that there was for one."""
        with trio.move_on_at(side.deadline) as scope:
            frame = await link.receive()
        now = trio.current_time()
        return side.tick(now) if scope.cancelled_caught else side.receive(frame.type, frame.body, now, self._around.at())

    async def _act(self, side: SignerSide, event: SignerEvent) -> JoinRefused | None:
        """Do what is wanted; gives the refusal that ends the conversation, ours or the machine's."""
        try:
            match event:
                case JoinRefused():
                    return event
                case ApprovalWanted():
                    await self._approve(event)
                    side.approve(trio.current_time())
                case FinishWanted(approval=approval):
                    request = self._keeper.approvals.request_for_join(approval)
                    side.issue(await self._issue(request))
        except OverlayError as error:
            refused = _refused(error)
            side.refuse(refused.reason, refused.detail)
            return refused
        return None

    async def _approve(self, wanted: ApprovalWanted) -> None:
        """Bind use and name, durably, then remember what we would sign."""
        approval, ledger = wanted.approval, self._ledger
        order = next((one for one in self._keeper.orders_that_count() if one.hash == approval.invite_hash), None)
        if order is None:
            raise Refused(Reason.BAD_INVITE, "the invite does not count any more")
        self._keeper.approvals.check_not_out(approval.node_id, serial=None, ek_tag=approval.facts.ek_tag)
        if any(one.name == approval.name and one.node_id != approval.node_id for one in ledger.members):
            raise Refused(Reason.NAME_TAKEN, f"{approval.name} is another node's name")  # one that came by file, too
        ledger.invites = ledger.invites.use(order, approval.node_id, approval.name, self._around.at())
        await ledger.flush()
        self._keeper.approvals.join(approval)

    def check_invite(self, join: Join, link: JoinLink, request: Request, at: datetime) -> GrantedInvite:
        """InviteChecker: what the books say, once they hold this invite. Raises Refused."""
        if parse_order(join.invite).says.hash not in self._ledger.orders.held:
            self._learn(join.invite)
        return self._checker.check_invite(join, link, request, at)

    def _books(self) -> Books:
        ledger = self._ledger
        return Books(ledger.orders, ledger.invites, self._keeper.standing())

    def _learn(self, invite: bytes) -> None:
        """An invite that we were not there to hear of, by an operator whose keys of that time we know; he may be away now."""
        found = parse_order(invite)
        credentials = self._ports.credentials_of(found.kid)
        if credentials is None:
            raise Refused(Reason.BAD_INVITE, "nobody has told us of this invite", hint="ask a signer that was there")
        self._keeper.take_order(SignedOrder.unpack(found.with_credentials(credentials).pack()))

    def _welcome(self) -> tuple[FrameType, bytes]:
        ledger = self._ledger
        hints = tuple(SignerHint(node, self._ports.addresses_of(node)) for node in ledger.chain.newest.member_ids)
        return welcome(hints, ledger.chain.to_show)

    # --- renewal ----------------------------------------------------------------------------------------------------

    async def renew(self, renewal: Renewal, old: VerifiedCertificate) -> JoinResult:
        """Approve a renewal, or finish one that t signers have approved; a refusal is an answer, too."""
        try:
            if self._ledger.share is None:
                raise Refused(Reason.NOT_A_SIGNER, "this node has no share of the mesh key")
            request = await self._approve_renewal(replace(renewal, finish=None), old)
            if renewal.finish is None:
                return JoinResult(approved=True)
            return JoinResult(approved=True, bundle=await self._issue(request))
        except Refused as error:
            return JoinResult(reason=error.reason)

    async def _approve_renewal(self, renewal: Renewal, old: VerifiedCertificate) -> IssueLeaf:
        ledger, at = self._ledger, self._around.at()
        if renewal.not_before + LEAF_LIFE <= at:  # begun while nobody could sign: bound now, it would keep out the next try
            raise Refused(Reason.CLOCK, f"the certificate would have ended on {show_time(renewal.not_before + LEAF_LIFE)}")
        serial, tag = serial_bytes(old.serial), old.facts.ek_tag
        self._keeper.approvals.check_not_out(old.node_id, serial=serial, ek_tag=tag)
        approval = check_renewal(
            renewal, old, facts=self._facts_now(old), grace=ledger.trust.grace, merged_age=MERGED_AGE, at=at
        )
        instead = self._replaced_by(old.node_id)
        if instead is not None:
            approval = replace(approval, name=instead.name, facts=replace(approval.facts, roles=instead.roles))
        promised = ledger.bindings.is_renewed(serial, (root.issuer.spki for root in ledger.trust.roots.all))
        renewals = ledger.renewals.bind(old, renewal, at, ledger.trust.grace, promised=promised)
        if renewals is not ledger.renewals:
            self._count_renewal(old.node_id)
        ledger.renewals = renewals
        await ledger.flush()
        instead_of = None if instead is None else instead.node_id
        self._keeper.approvals.renewal(approval, instead_of)
        return self._keeper.approvals.request_for_renewal(approval, instead_of)

    def _count_renewal(self, node_id: NodeId) -> None:
        """One node fills the book for nobody else. Raises Refused(TOO_MANY)."""
        now, times = trio.current_time(), self._renewed.setdefault(node_id, deque())
        while times and times[0] <= now - DAY:
            times.popleft()
        if len(times) >= RENEWALS_PER_DAY:
            raise Refused(Reason.TOO_MANY, f"{node_id.short} has renewed {RENEWALS_PER_DAY} times within a day")
        times.append(now)

    def _replaced_by(self, node_id: NodeId) -> Seen | None:
        """Whose place this node takes, by an order that counts."""
        for order in self._keeper.orders_that_count():
            if isinstance(order.body, Replace) and order.body.new == node_id:
                return self._ledger.members.get(order.body.old)
        return None

    def _facts_now(self, old: VerifiedCertificate) -> LeafFacts:
        """What the certificate says today: what it said, and what operators have ordered since."""
        facts = replace(old.facts, policy_version=self._ledger.trust.policy.policy.version)
        granted = [
            order for order in self._keeper.orders_that_count()
            if isinstance(order.body, GrantRoles) and order.body.node == old.node_id
        ]
        for order in sorted(granted, key=lambda one: (one.not_before, one.number)):
            assert isinstance(order.body, GrantRoles)
            facts = replace(facts, roles=order.body.roles, person=order.body.person or facts.person)
        newest = self._ledger.chain.newest
        if newest.kind is ObjectKind.RECOVERY and newest.member_ids == (old.node_id,):  # it founds the mesh anew
            facts = replace(facts, roles=tuple(sorted({*facts.roles, OPERATOR, SIGNER})))
        return facts

    # --- issuing ----------------------------------------------------------------------------------------------------

    async def _issue(self, request: IssueLeaf) -> Bundle:
        """Have it signed, and put together what a member needs."""
        leaf = await self._keeper.desk.sign(request)
        ledger = self._ledger
        number, key = self._ports.gate()
        return Bundle(
            mesh_name=ledger.trust.root.name, root=ledger.trust.root.der, leaf=leaf, chain=chain_of_roots(ledger.trust.later),
            gate_number=number, gate_key=key, policy=ledger.trust.policy.raw,
            authority_object=ledger.chain.objects[0].raw,
        )


def _refused(error: OverlayError) -> JoinRefused:
    """What could not be done, as the end of a conversation."""
    if isinstance(error, Refused):
        return JoinRefused(error.reason, error.detail)
    return JoinRefused(Reason.INTERNAL, str(error))


def chain_of_roots(later: tuple[LaterRoot, ...]) -> tuple[bytes, ...]:
    """The certificates from the newest root up to, and without, the founding one."""
    return tuple(one.root.der for one in reversed(later))
