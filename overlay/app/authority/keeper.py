"""Moves trust on this node: orders, revocation lists, policies and authority objects come in, are verified, kept and passed on.

Whatever is new goes to every linked peer, so it reaches everybody; whatever is known already goes nowhere, so that ends.
Nothing is believed because of who passes it on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from overlay.app.authority.approvals import Approvals
from overlay.app.authority.carrier import Carrier
from overlay.app.authority.gating import GateRing
from overlay.app.authority.ledger import Ledger
from overlay.app.authority.signing import OF_SIGNERS, SigningDesk, Surroundings, hand_in_force, is_of_next_key
from overlay.core.authority.order_bodies import Quarantine as QuarantineOrder
from overlay.core.authority.order_bodies import Replace, Revoke, WithdrawInvite
from overlay.core.authority.order_payload import Order
from overlay.core.authority.order_records import Countersigned, Forked, Known
from overlay.core.authority.order_rules import Standing, judge
from overlay.core.authority.orders import OPERATOR, SignedOrder, VerifiedOrder
from overlay.core.authority.revoking import next_list
from overlay.core.authority.round_messages import RoundMessage
from overlay.core.authority.signing_events import Declined, Equivocated, Misbehaved, OutOfStep, SignerEvent, Signing
from overlay.core.authority.succession import AuthorityChain, Outcome
from overlay.core.authority.x509_requests import IssueLeaf, RevocationList
from overlay.core.certificate_profile import serial_number
from overlay.core.certificate_request import verify_request
from overlay.core.certificates import TOLERANCE
from overlay.core.gate_keys import verify_gate_key
from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.trust import Quarantine, TrustSet, VerifiedPeer
from overlay.core.trust_update import TrustUpdate, update_of
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.events import (
    AuthorityAlarm,
    AuthorityChanged,
    CertificateSigned,
    NodeEvent,
    OrderTaken,
    PolicyChanged,
    RevocationsChanged,
)
from overlay.net.background import spawn
from overlay.registry import FrameType, Reason

TURN: Final = 0.4  # seconds from one signer's turn to publish a list to the next one's: our guess, ten times what it takes
TRIES: Final = 8  # to have a list signed; each signer waits its turn anew
FORGET_EVERY: Final = 3600.0  # seconds: our guess, orders are kept for a day after their end
SUSPECT: Final = frozenset({Reason.BOUND_OTHERWISE, Reason.CLONED_IDENTITY})  # to ask for such a signature
PASSED_OVER: Final = frozenset({  # what an honest peer may pass on, because it knows more or less than we do
    Reason.BAD_ORDER, Reason.CLOCK, Reason.TOO_MANY, Reason.NOT_ALLOWED, Reason.EQUIVOCATION, Reason.WRONG_GENERATION,
    Reason.REVOKED, Reason.QUARANTINED, Reason.CERTIFICATE_EXPIRED, Reason.ENDORSEMENT_EXPIRED, Reason.BAD_CERTIFICATE,
    Reason.CERTIFICATE_NOT_YET_VALID,
})  # fmt: skip


class Engine(Protocol):
    """What is needed of the node."""

    def tell(self, peer: NodeId, frame: FrameType, body: bytes) -> bool:
        """Send a frame of trust; whether there was a link."""
        ...

    def trust_moved(self) -> None:
        """Judge everybody anew."""
        ...

    def linked_ids(self) -> tuple[NodeId, ...]:
        """Who is linked."""
        ...

    def gate_moved(self) -> None:
        """There is another gate key."""
        ...

    def emit(self, event: NodeEvent) -> None:
        """Tell observers."""
        ...


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an order: it counts, or waits for another operator's signature."""

    order: Order
    counts: bool
    lacks: str = ""


class Keeper:
    """Of one node."""

    def __init__(
        self, around: Surroundings, ledger: Ledger, carrier: Carrier, engine: Engine, ring: GateRing,
        identity: Callable[[], LocalIdentity],
    ) -> None:
        self._ring = ring
        self._identity = identity
        self.ledger = ledger
        self.carrier = carrier
        self.approvals = Approvals(ledger, self.orders_that_count, around.at, self.standing)
        self.desk = SigningDesk(
            around, ledger, carrier, approve=self.approvals.approve, note=self.note, hand=lambda: hand_in_force(ledger)
        )
        self.on_order: Callable[[Order], None] = lambda _order: None  # of a ceremony
        self.on_round: Callable[[RoundMessage], None] = carrier.keep  # of a ceremony that has not begun here
        self.on_object: Callable[[], None] = lambda: None
        self.on_recovery: Callable[[AuthorityChain], None] = lambda _before: None  # with the chain before it
        self.on_trust: Callable[[], None] = lambda: None
        self._around = around
        self._engine = engine
        self._counting: set[bytes] = set()
        self._publishing = False
        self._said_out_of_step: set[tuple[NodeId, int, int]] = set()
        carrier.listen_to_others(self._hear)
        for held in ledger.orders.held.values():
            self._count_again(held.signed)

    # --- from peers -------------------------------------------------------------------------------------------------

    def peer_opened(self, peer: NodeId) -> None:
        """Tell a newcomer what it may not know."""
        ledger, tell = self.ledger, self._engine.tell
        for raw in ledger.chain.to_show[1:]:
            tell(peer, FrameType.AUTHORITY_OBJECT, raw)
        update = update_of(ledger.trust)
        if update.lists or ledger.trust.policy.policy.version > 1:
            tell(peer, FrameType.TRUST_UPDATE, update.pack())
        if self._ring.keys.signed is not None:
            tell(peer, FrameType.TRUST_UPDATE, TrustUpdate(gate=self._ring.keys.signed).pack())
        at = self._around.at()
        for held in ledger.orders.held.values():
            if held.order.not_after >= at:
                tell(peer, FrameType.ORDER, held.signed.pack())
        if next_list(ledger.trust, self.orders_that_count(), ledger.members, at) is not None:
            self.publish_soon()  # it was not signed for lack of signers, perhaps

    def received(self, peer: VerifiedPeer, kind: FrameType, body: bytes) -> None:
        """A frame of trust. Raises Refused for what no honest peer sends."""
        try:
            match kind:
                case FrameType.AUTHORITY_ROUND:
                    self.carrier.received(peer, body)
                case FrameType.ORDER:
                    self.take_order(SignedOrder.unpack(body), peer.node_id)
                case FrameType.TRUST_UPDATE:
                    self.take_update(TrustUpdate.unpack(body), peer.node_id)
                case _:
                    self.take_object(body, peer.node_id)
        except Refused as error:
            if error.reason not in PASSED_OVER:
                raise

    def _hear(self, message: RoundMessage) -> None:
        if message.kind in OF_SIGNERS and not is_of_next_key(message.session):
            self.desk.heard(message)
        else:
            self.on_round(message)

    def _pass_on(self, kind: FrameType, body: bytes, but: NodeId | None) -> None:
        for peer in self._engine.linked_ids():
            if peer != but:
                self._engine.tell(peer, kind, body)

    # --- orders -----------------------------------------------------------------------------------------------------

    def take_order(self, signed: SignedOrder, sender: NodeId | None = None) -> Taken:
        """Verify, keep, pass on, and act. Raises Refused."""
        ledger, at = self.ledger, self._around.at()
        verified = signed.verify_now(ledger.trust, at)
        book, outcome = ledger.orders.add(verified, at)
        for operator in verified.operators:
            ledger.saw(operator.certificate)
        if isinstance(outcome, Known):
            return Taken(verified.order, verified.hash in self._counting)
        ledger.orders = book
        self._pass_on(FrameType.ORDER, book.held[verified.hash].signed.pack(), sender)
        if isinstance(outcome, Forked):
            self.alarm(outcome.operator, Reason.EQUIVOCATION, "two different orders under one number")
            return Taken(verified.order, counts=False, lacks="its operator gave two orders under one number")
        if isinstance(outcome, Countersigned):
            verified = book.held[verified.hash].signed.verify_now(ledger.trust, at)
        try:
            judge(verified, self.standing())
        except Refused as error:
            return Taken(verified.order, counts=False, lacks=error.detail)
        if verified.hash not in self._counting:
            self._counting.add(verified.hash)
            self._act_on(verified)
        return Taken(verified.order, counts=True)

    def orders_that_count(self) -> tuple[Order, ...]:
        """Those in force that were given by whoever may."""
        at, orders = self._around.at(), self.ledger.orders
        found = {one.hash: one for when in (at, at + TOLERANCE) for one in orders.in_force(when)}  # clocks may be ahead of ours
        return tuple(one for name, one in found.items() if name in self._counting)

    def waiting_orders(self) -> tuple[Order, ...]:
        """Those that another operator has to sign, too."""
        in_force = sha256(self.ledger.trust.policy.policy.pack())
        return tuple(
            one for one in self.ledger.orders.in_force(self._around.at())
            if one.hash not in self._counting and getattr(one.body, "policy_hash", b"") != in_force
        )

    def standing(self) -> Standing:
        """What we know of operators and roles."""
        ledger, at = self.ledger, self._around.at()
        everybody = list(ledger.members)
        revoked = {NodeId(node) for node in ledger.trust.revocations.nodes}
        held = {one.node_id for one in ledger.trust.quarantines if at < one.until}
        operators = {one.node_id: one.person for one in everybody if OPERATOR in one.roles and one.node_id not in revoked}
        return Standing(
            operators=operators, roles={one.node_id: one.roles for one in everybody},
            policy=ledger.trust.policy.policy, barred=frozenset(revoked | held),
        )

    def _count_again(self, signed: SignedOrder) -> None:
        """After a restart: what counted goes on to count."""
        try:
            judge(signed.verify(self.ledger.trust), self.standing())
        except Refused:
            return
        self._counting.add(signed.hash)

    def _act_on(self, verified: VerifiedOrder) -> None:
        order, ledger = verified.order, self.ledger
        self._engine.emit(OrderTaken(
            operator=str(order.operator), name=verified.operators[0].name, kind=order.kind.name.lower(),
            number=order.number, order=order.hash.hex(),
        ))
        match order.body:
            case QuarantineOrder(node=node):
                self.move(ledger.trust.with_quarantine(Quarantine(node, order.not_after, order.hash)))
            case WithdrawInvite(invite_id=invite_id):
                ledger.invites = ledger.invites.withdraw(invite_id, self._around.at())
            case Revoke() | Replace():
                self.publish_soon()
            case _:
                self.on_order(order)

    # --- lists and policies -----------------------------------------------------------------------------------------

    def take_update(self, update: TrustUpdate, sender: NodeId | None = None) -> None:
        """Lists and a policy. Raises Refused."""
        before = self.ledger.trust
        after = update.applied(before)
        if after.hash != before.hash:
            self._take_news(before, after, sender)
        if update.gate is not None:
            self.take_gate_key(update.gate, sender)

    def _take_news(self, before: TrustSet, after: TrustSet, sender: NodeId | None) -> None:
        news = TrustUpdate(
            tuple(one.der for one in after.lists if one not in before.lists),
            after.policy.raw if after.policy != before.policy else None,
        )
        self._pass_on(FrameType.TRUST_UPDATE, news.pack(), sender)  # those hear it, too, whose links end by it
        self.move(after)

    def take_gate_key(self, raw: bytes, sender: NodeId | None = None) -> None:
        """What the newest gate key is. Raises Refused."""
        ledger, at, ring = self.ledger, self._around.at(), self._ring
        if raw == ring.keys.signed:
            return
        number, key = verify_gate_key(raw, ledger.trust, ledger.was_signer, ring.keys.newest.number, at)
        if not ring.take(number, key, raw, at):
            return
        spawn(self._around.nursery, ring.write)
        self._pass_on(FrameType.TRUST_UPDATE, TrustUpdate(gate=raw).pack(), sender)
        self._engine.gate_moved()

    def move(self, after: TrustSet) -> None:
        """Another trust set is in force; who is trusted no more is gone when this returns."""
        before, self.ledger.trust = self.ledger.trust, after
        self._engine.trust_moved()
        self.on_trust()
        if after.revocations != before.revocations:
            nodes = after.revocations.nodes.keys() - before.revocations.nodes.keys()
            self._engine.emit(RevocationsChanged(
                number=after.number, nodes=tuple(sorted(str(NodeId(node)) for node in nodes)), list=after.lists[-1].hash.hex()
            ))
        if after.policy != before.policy:
            self._engine.emit(PolicyChanged(version=after.policy.policy.version, policy=after.policy.hash.hex()))
        for number in set(after.numbers_used_twice) - set(before.numbers_used_twice):
            self.alarm(self._around.own_id, Reason.BAD_REVOCATION_LIST, f"there are two lists with number {number}")

    def publish_soon(self) -> None:
        """A list is due: the signers take turns, so that usually one of them has it signed."""
        if self.ledger.share is not None and not self._publishing:
            self._publishing = True
            spawn(self._around.nursery, self._publish)

    async def _publish(self) -> None:
        try:
            for attempt in range(TRIES):
                await trio.sleep(self._turn() * TURN)
                if await self._publish_once(attempt):
                    return
                await trio.sleep(TURN)
        finally:
            self._publishing = False
        self.alarm(self._around.own_id, Reason.NOT_ENOUGH_SIGNERS, "a revocation list was not signed")

    def _turn(self) -> int:
        """How many linked signers come before us."""
        members = self.ledger.chain.newest.member_ids
        linked = [one for one in members if one == self._around.own_id or self._around.linked(one)]
        return linked.index(self._around.own_id) if self._around.own_id in linked else len(linked)

    async def _publish_once(self, attempt: int) -> bool:
        """Whether all that is ordered is revoked now."""
        ledger = self.ledger
        bound = ledger.bindings.highest_list(ledger.chain.newest_root.issuer) - ledger.trust.number if attempt else 0
        beyond = attempt + max(0, bound)  # somebody may have had us bind a number, and then not signed
        facts = next_list(ledger.trust, self.orders_that_count(), ledger.members, self._around.at(), beyond)
        if facts is None:
            return True
        try:
            der = await self.desk.sign(RevocationList(facts))
        except Refused:
            return False
        before = set(ledger.trust.revocations.nodes)
        self.take_update(TrustUpdate((der,)))
        if set(ledger.trust.revocations.nodes) - before:
            at, mesh_id = self._around.at(), ledger.trust.mesh_id
            self.take_gate_key(self._ring.next_one(self._identity(), mesh_id, self._around.chance, at))  # they know the old one
        return next_list(ledger.trust, self.orders_that_count(), ledger.members, self._around.at()) is None

    # --- the authority ----------------------------------------------------------------------------------------------

    def take_object(self, raw: bytes, sender: NodeId | None = None) -> None:
        """An authority object. Raises Refused."""
        ledger, at = self.ledger, self._around.at()
        change = ledger.chain.with_object(raw, at)
        if change.chain == ledger.chain:
            return  # known, or void: who passes that on would hear it again and again
        before, ledger.chain = ledger.chain, change.chain
        self._pass_on(FrameType.AUTHORITY_OBJECT, raw, sender)
        if before.candidates != ledger.chain.candidates:
            self.on_recovery(before)
        if change.outcome is Outcome.FORKED:
            self.alarm(self._around.own_id, Reason.AUTHORITY_FROZEN, f"authority object: {change.outcome.value}")
        if change.outcome is not Outcome.APPENDED:
            return
        newest = ledger.chain.newest
        if newest.root != before.newest_root and newest.cross is not None:
            ledger.freeze_old_leaves()
            self.move(ledger.trust.with_root(newest.cross, at))
        self.now_in_force()

    def now_in_force(self) -> None:
        """The newest object is another one than before, and its root is in the trust set."""
        ledger = self.ledger
        newest = ledger.chain.newest
        self._engine.emit(AuthorityChanged(
            number=newest.number, kind=newest.kind.value, members=tuple(map(str, newest.member_ids)),
            threshold=newest.threshold, object=newest.hash.hex(),
        ))
        self.on_object()
        self.desk.share_changed()
        if ledger.trust.lists:
            self.publish_soon()  # by the new root, too

    # --- what signers do --------------------------------------------------------------------------------------------

    def note(self, event: SignerEvent | Misbehaved | OutOfStep) -> None:
        """What a signature brought to light."""
        match event:
            case Signing(request=IssueLeaf() as request, message=message):
                node_id = verify_request(request.csr).node_id
                serial = serial_number(self.ledger.trust.mesh_id, node_id, request.not_before)
                self._engine.emit(CertificateSigned(
                    name=request.name, node=str(node_id), serial=f"{serial:040x}", leaf=sha256(message).hex(),
                    ends=int(request.not_after.timestamp()),
                ))
            case Misbehaved(node_id=node_id, reason=reason):
                self.alarm(node_id, reason, "as a signer")
            case OutOfStep(node_id=node_id, ours=ours):
                self._out_of_step(self._around.own_id if ours else node_id)
            case Equivocated(session=session):
                self.alarm(session.coordinator, Reason.EQUIVOCATION, "asked for two signatures under one nonce")
            case Declined(session=session, reason=reason, detail=detail) if reason in SUSPECT:
                self.alarm(session.coordinator, reason, f"asked us to sign: {detail}")
            case _:
                return

    def _out_of_step(self, node: NodeId) -> None:
        """Said once for each authority and generation, not for each signature."""
        share = self.ledger.share
        case = (node, self.ledger.chain.newest.number, -1 if share is None else share.generation)
        if case not in self._said_out_of_step:
            self._said_out_of_step.add(case)
            self.alarm(node, Reason.WRONG_GENERATION, "has a share of another generation: `overlay ca repair` there")

    def alarm(self, node: NodeId, reason: Reason, detail: str) -> None:
        """Somebody should look."""
        self._engine.emit(AuthorityAlarm(node=str(node), reason=reason, detail=detail))

    async def _forget(self) -> None:
        """What is long over goes: else books would be full one day, and an operator could order nothing any more."""
        while True:
            self.ledger.forget(self._around.at())
            self._counting &= self.ledger.orders.held.keys()
            await trio.sleep(FORGET_EVERY)

    async def run(self) -> None:
        """Until cancelled."""
        self.publish_soon()  # a list may be due since before we were ended
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.ledger.run)
            nursery.start_soon(self._forget)
            nursery.start_soon(self.desk.run)
