"""A new mesh key takes the place of the old one: key generation, then one durable step after the other, by whoever can.

What comes next says `core/authority/rollover_actions.py`; here it is done, written down, and shown to the others.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import trio

from overlay.app.authority.closings import CopyOf, closing_problem
from overlay.app.authority.keeper import Keeper
from overlay.app.authority.runs import carry
from overlay.app.authority.shares import NextShare, Shares
from overlay.app.authority.signing import Hand, SigningDesk, Surroundings
from overlay.core.authority.contents import ClosingCheckpoint
from overlay.core.authority.group_orders import Distribute
from overlay.core.authority.key_generation import KeyGeneration, KeyPlan
from overlay.core.authority.objects import to_be_signed
from overlay.core.authority.order_payload import Order
from overlay.core.authority.record_requests import AuthorityObjectRequest
from overlay.core.authority.requests import Request, pack_request
from overlay.core.authority.rollover import Proposal, Rollover, RolloverStep
from overlay.core.authority.rollover_actions import Action, next_action
from overlay.core.authority.round_messages import Outgoing, RoundMessage
from overlay.core.authority.stored_rollover import pack_rollover, unpack_rollover
from overlay.core.authority.x509_requests import CrossCertificate
from overlay.core.certificate_profile import Issuer
from overlay.core.identity import LocalIdentity
from overlay.core.keys import IdentityKey, NodeId
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import sha256
from overlay.errors import OverlayError, Refused
from overlay.net.background import spawn
from overlay.registry import Label, Reason, RoundKind
from overlay.store.state import ROLLOVER, StateFolder

LINKS_WITHIN: Final = 10.0  # seconds until all members are linked: our guess
TURN: Final = 0.3  # seconds from one member's turn to the next one's
PAUSE: Final = 0.5  # after a step that did not work
DOUBT: Final = 10.0  # seconds in which entries that others hold may still come: our guess


@dataclass(frozen=True, slots=True, kw_only=True)
class CeremonyPorts:
    """What ceremonies need of the node."""

    folder: StateFolder
    identity: Callable[[], LocalIdentity]
    sign: Callable[[bytes], bytes] = field(repr=False)  # by our identity key; blocks, for a TPM
    peer: Callable[[NodeId], VerifiedPeer | None]
    heads: Callable[[tuple[NodeId, ...]], tuple[ClosingCheckpoint, ...]]
    copy_of: CopyOf
    ask_group: Callable[[NodeId], Awaitable[bytes]]  # a member says which key it has a share of
    ask_bindings: Callable[[NodeId, bytes], Awaitable[bytes]]  # and a page of what it has bound


def message_keys(ports: CeremonyPorts, members: tuple[NodeId, ...]) -> Mapping[NodeId, bytes] | None:
    """The message keys of all of them, those linked and our own; None while one is missing."""
    own = ports.identity()
    found = {own.node_id: own.message.public_key}
    for member in members:
        peer = ports.peer(member)
        if peer is not None:
            found[member] = peer.message_public
    return found if set(members) <= set(found) else None


async def all_linked(ports: CeremonyPorts, members: tuple[NodeId, ...]) -> Mapping[NodeId, bytes]:
    """Their message keys, once all are linked. Raises Refused(KEY_GENERATION_FAILED) naming who is not."""
    with trio.move_on_after(LINKS_WITHIN):
        while (keys := message_keys(ports, members)) is None:  # noqa: ASYNC110 (links tell others)
            await trio.sleep(0.05)
        return keys
    own = ports.identity().node_id
    missing = ", ".join(member.short for member in members if member != own and ports.peer(member) is None)
    raise Refused(Reason.KEY_GENERATION_FAILED, f"not linked: {missing}", hint="all members take part; `overlay status`")


class Succession:
    """One roll-over on one node, from its order or from its record to its end."""

    def __init__(self, around: Surroundings, keeper: Keeper, shares: Shares, ports: CeremonyPorts, record: Rollover) -> None:
        self.record = record
        self._around = around
        self._keeper = keeper
        self._shares = shares
        self._ports = ports
        self._session = session_of(record.proposal)
        self._agreed: set[bytes] = set()  # by the new key
        self._keys_said: dict[NodeId, tuple[bytes | None, bytes | None]] = {}  # key and transcript, by new member
        self._closed = b""  # a payload whose closing checkpoints agree with what we hold
        self._looking: set[NodeId] = set()  # whose record is being looked at
        self._doubts: dict[NodeId, tuple[bytes, float]] = {}  # whose payload does not agree, and since when; inf: it was told
        self._woken = trio.Event()
        self._writing = trio.Lock()
        self._over = False
        self.desk = SigningDesk(
            around, keeper.ledger, keeper.carrier, approve=self._approve, note=keeper.note, hand=self._next_hand, next_key=True
        )

    @classmethod
    def proposal(cls, keeper: Keeper, ports: CeremonyPorts, order: Order) -> Proposal:
        """What the order asks for. Raises Refused."""
        body = order.body
        assert isinstance(body, Distribute)
        keys = [identity_of(ports, member) for member in body.members]
        return Proposal.of(keeper.ledger.chain.newest.contents, keys, body.threshold, order.not_before)

    # --- life -------------------------------------------------------------------------------------------------------

    async def generate(self, order: Order) -> None:
        """As a member: make the key with all others, and keep our share. Raises Refused."""
        body, own = order.body, self._around.own_id
        assert isinstance(body, Distribute)
        plan = KeyPlan(
            mesh_id=self._keeper.ledger.trust.mesh_id, session=order.session, members=body.members,
            threshold=body.threshold, message_keys=await all_linked(self._ports, body.members),
        )
        machine = KeyGeneration(plan, own, self._around.chance, trio.current_time(), signer=self._ports.identity().message)
        await carry(machine, self._keeper.carrier, order.session, self._name)
        result = machine.result
        assert result is not None
        await self._shares.keep_next(NextShare(result.share, result.transcript_hash))
        await self._keep(self.record.with_key(result.group.public, result.transcript_hash))

    async def run(self) -> None:
        """Step by step, until the new key is in force, or this one is given up."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.desk.run)
            with self._keeper.carrier.listening(self._session, self._hear):
                await self._steps()
            nursery.cancel_scope.cancel()

    async def _steps(self) -> None:
        while True:
            self._agree()
            self._show()
            action = self._action()
            if action is Action.DONE:
                await self._forget()
                return
            if action is Action.GIVE_UP:
                await self._shares.drop_next()
                await self._forget()
                self._keeper.alarm(self._around.own_id, Reason.KEY_GENERATION_FAILED, "the roll-over was given up")
                return
            before = self.record
            try:
                await self._do(action)
            except OverlayError as error:
                reason = getattr(error, "reason", Reason.INTERNAL)
                if reason not in (Reason.NOT_ENOUGH_SIGNERS, Reason.NOT_A_SIGNER):  # others are not as far yet
                    self._keeper.alarm(self._around.own_id, reason, f"{action.value}: {error}")
                await trio.sleep(PAUSE)
            if self.record == before:
                with trio.move_on_after(PAUSE):
                    await self._woken.wait()
                self._woken = trio.Event()

    def _action(self) -> Action:
        ledger = self._keeper.ledger
        share = ledger.share
        old = share is not None and share.group.public != self.record.public_key
        return next_action(self.record, ledger.chain, self._around.at(), has_old_share=old)

    async def _do(self, action: Action) -> None:
        """One step, if it is for us."""
        steps: dict[Action, Callable[[], Awaitable[None]]] = {
            Action.SIGN_ROOT: self._sign_root, Action.SIGN_CROSS: self._sign_cross, Action.SIGN_AS_MEMBER: self._sign_as_member,
            Action.SIGN_WITH_NEW_ROOT: self._sign_with_new_root, Action.BIND: self._bind,
            Action.SIGN_WITH_OLD_ROOT: self._sign_with_old_root, Action.PUBLISH: self._publish,
            Action.ERASE_OLD_SHARE: self._shares.settle,
        }
        step = steps.get(action)
        if step is not None:
            await step()

    # --- the steps --------------------------------------------------------------------------------------------------

    async def _sign_root(self) -> None:
        if self._is_member and await self._turn(self._members):
            signed = await self.desk.signature(self._certificate())
            if self.record.step is RolloverStep.KEY_GENERATED:
                await self._keep(self.record.with_root(signed.signature))

    async def _sign_cross(self) -> None:
        if self._is_old and await self._turn(self._old):
            signed = await self._keeper.desk.signature(self._certificate())
            if self.record.step is RolloverStep.ROOT_SIGNED:
                await self._keep(self.record.with_cross(signed.signature, self._ports.heads(self._old)))

    async def _sign_as_member(self) -> None:
        if not self._is_member:
            return
        place = self._members.index(self._around.own_id)
        if place in self.record.members_signed:
            return
        data = to_be_signed(self._keeper.ledger.trust.mesh_id, self.record.payload)
        payload = self.record.payload
        signature = await trio.to_thread.run_sync(self._ports.sign, data)
        if self.record.payload == payload and place not in self.record.members_signed:
            await self._keep(self.record.with_own(place, signature))

    async def _sign_with_new_root(self) -> None:
        if self._is_member and await self._turn(self._members):
            signed = await self.desk.signature(AuthorityObjectRequest(self.record.payload))
            if self.record.step is RolloverStep.MEMBERS_SIGNED:
                await self._keep(self.record.with_new_root(signed.signature))

    async def _bind(self) -> None:
        if self._is_old:
            await self._keep(self.record.with_binding())

    async def _sign_with_old_root(self) -> None:
        if self._is_old and await self._turn(self._old):
            signed = await self._keeper.desk.signature(AuthorityObjectRequest(self.record.payload))
            if self.record.step in (RolloverStep.NEW_ROOT_SIGNED, RolloverStep.BOUND):
                await self._keep(self.record.with_old_root(signed.signature))

    async def _publish(self) -> None:
        whole = self.record.object
        assert whole is not None
        self._keeper.take_object(whole)
        await self._keeper.ledger.flush()
        await self._shares.settle()

    # --- what we agree to -------------------------------------------------------------------------------------------

    def _agree(self) -> None:
        """Let our signers sign what has come out of steps that we have seen ourselves."""
        record = self.record
        if record.public_key is not None:
            self._agreed.add(pack_request(self._certificate()))
        if record.root is not None:
            self._keeper.approvals.agreed.add(pack_request(self._certificate()))
        if record.step >= RolloverStep.MEMBERS_SIGNED:
            self._agreed.add(pack_request(AuthorityObjectRequest(record.payload)))
        if record.bound:
            self._keeper.approvals.agreed.add(pack_request(AuthorityObjectRequest(record.payload)))

    def _approve(self, request: Request, coordinator: NodeId) -> None:
        del coordinator
        if pack_request(request) not in self._agreed:
            raise Refused(Reason.NOT_ALLOWED, f"not a step of this roll-over: {request.kind.name.lower()}")

    def _certificate(self) -> CrossCertificate:
        """The request for both: by the new key it is the root's own certificate, by the old key the cross-certificate."""
        proposal, key = self.record.proposal, self.record.public_key
        assert key is not None
        found = proposal.next_root(key)
        return CrossCertificate(
            number=proposal.number, spki=found.spki, not_before=found.life.not_before, not_after=found.life.not_after
        )

    def _next_hand(self) -> Hand | None:
        kept, proposal = self._shares.next, self.record.proposal
        if kept is None or kept.share.group.public != self.record.public_key:
            return None
        found = proposal.next_root(kept.share.group.public)
        return Hand(kept.share, Issuer(found.previous.mesh_id, found.previous.name, found.spki), self._members)

    # --- with the others --------------------------------------------------------------------------------------------

    @property
    def _members(self) -> tuple[NodeId, ...]:
        return tuple(member.node_id for member in self.record.proposal.members)

    @property
    def _old(self) -> tuple[NodeId, ...]:
        return self.record.proposal.before.member_ids

    @property
    def _is_member(self) -> bool:
        return self._around.own_id in self._members

    @property
    def _is_old(self) -> bool:
        return self._around.own_id in self._old

    async def _turn(self, among: tuple[NodeId, ...]) -> bool:
        """Wait until it is ours; whether the step is still to be done then."""
        own, before = self._around.own_id, self.record.step
        linked = [one for one in among if one == own or self._around.linked(one)]
        with trio.move_on_after(linked.index(own) * TURN):
            while self.record.step == before:
                await self._woken.wait()
                self._woken = trio.Event()
        return self.record.step == before

    def _show(self) -> None:
        """Our record, to everybody who takes part."""
        body = pack_rollover(self.record)
        everybody = {*self._members, *self._old} - {self._around.own_id}
        self._keeper.carrier.send(
            Outgoing(node, self._session, RoundKind.ROLLOVER_RECORD, body) for node in sorted(everybody)
        )

    def _hear(self, message: RoundMessage) -> None:
        """Another's record: merged, once it has been checked as our own would be."""
        if message.kind is not RoundKind.ROLLOVER_RECORD or message.sender not in (*self._members, *self._old):
            return
        try:
            other = unpack_rollover(message.body, self._keeper.ledger.chain)
        except Refused as error:
            self._keeper.alarm(message.sender, error.reason, "a record of a roll-over")
            return
        if not self._believes(other, message.sender):
            return
        if other.contents is None or other.payload in (self.record.payload, self._closed):
            self._merge(other)
        elif message.sender not in self._looking:
            self._looking.add(message.sender)
            spawn(self._around.nursery, self._look_at_closing, other, message.sender)

    async def _look_at_closing(self, other: Rollover, sender: NodeId) -> None:
        """Take a record over only if logs end where they do here; it is shown again and again, and so looked at."""
        contents, proposal = other.contents, other.proposal
        assert contents is not None
        try:
            problem = await closing_problem(
                contents, proposal.before, self._around.own_id, proposal.proposed_at, self._ports.copy_of
            )
        except OverlayError as error:
            problem = str(error)
        finally:
            self._looking.discard(sender)
        if not problem:
            self._closed = other.payload
            self._merge(other)
            return
        payload, since = self._doubts.get(sender, (b"", 0.0))
        now = trio.current_time()
        if payload != other.payload:
            since = now
        if now - since >= DOUBT:
            self._keeper.alarm(sender, Reason.BAD_AUTHORITY_OBJECT, problem)
            since = math.inf
        self._doubts[sender] = other.payload, since

    def _merge(self, other: Rollover) -> None:
        merged = self.record.merged(other, self._around.own_id)
        if merged != self.record:
            self.record = merged
            spawn(self._around.nursery, self._write)
            self._woken.set()

    def _believes(self, other: Rollover, sender: NodeId) -> bool:
        """Whether the key of that record is the new one, for a node that was not there when it was made: all who hold a share
        of it say so, or have signed the object that names it. A key that one alone could name would be one that one holds."""
        if self._is_member or self.record.public_key is not None or other.public_key is None:
            return True
        if sender in self._members and other.proposal == self.record.proposal:
            self._keys_said[sender] = other.public_key, other.transcript
        said = {self._keys_said.get(member) for member in self._members}
        return said == {(other.public_key, other.transcript)} or other.step >= RolloverStep.MEMBERS_SIGNED

    async def _keep(self, record: Rollover) -> None:
        """Durable before anybody hears of it."""
        self.record = record
        await self._write()
        self.desk.share_changed()

    async def _write(self) -> None:
        async with self._writing:
            if not self._over:
                await trio.to_thread.run_sync(self._ports.folder.write, ROLLOVER, pack_rollover(self.record))

    async def _forget(self) -> None:
        async with self._writing:
            self._over = True
            await trio.to_thread.run_sync(self._ports.folder.remove, ROLLOVER)

    def _name(self, node: NodeId) -> str:
        seen = self._keeper.ledger.members.get(node)
        return node.short if seen is None else seen.name


def session_of(proposal: Proposal) -> bytes:
    """16 bytes that name a roll-over among those who take part, after a restart, too; not of a signature by the next key."""
    members = b"".join(member.spki for member in proposal.members)
    found = sha256(Label.KEY_GENERATION, proposal.before.hash, bytes([proposal.threshold]), members)[:16]
    return bytes([found[0] & 0x7F]) + found[1:]


def identity_of(ports: CeremonyPorts, member: NodeId) -> IdentityKey:
    """Of a linked node, or our own. Raises Refused."""
    own = ports.identity()
    if member == own.node_id:
        return own.verified.certificate.identity
    peer = ports.peer(member)
    if peer is None:
        raise Refused(Reason.KEY_GENERATION_FAILED, f"{member.short} is not linked")
    return peer.certificate.identity
