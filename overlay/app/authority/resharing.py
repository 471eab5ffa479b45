"""New shares of the same mesh key: for the same members (refresh), for others (reshare), or for one that lost its own (repair).

The operator's node, or who leads a refresh that is due, says who deals: all old members that are linked then. Who is new is
told the public half of the key by those who deal, and the bindings that they have made, so that it promises nothing that was
promised otherwise.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import trio

from overlay.app.authority.closings import closing_problem
from overlay.app.authority.keeper import Keeper
from overlay.app.authority.others_bindings import joined, read_bindings
from overlay.app.authority.runs import carry
from overlay.app.authority.shares import NextShare, Shares
from overlay.app.authority.signing import Surroundings
from overlay.app.authority.succeeding import PAUSE, TURN, CeremonyPorts, all_linked, identity_of
from overlay.core.authority.bindings import Bindings
from overlay.core.authority.contents import Contents, next_contents, read_next
from overlay.core.authority.dealing import Plan
from overlay.core.authority.group_orders import Refresh, Reshare
from overlay.core.authority.objects import Signatures, assemble, check_signature, to_be_signed
from overlay.core.authority.order_payload import Order
from overlay.core.authority.record_requests import AuthorityObjectRequest
from overlay.core.authority.repair import Repair, RepairPlan
from overlay.core.authority.requests import pack_request
from overlay.core.authority.resharing import Reshared, Resharing
from overlay.core.authority.round_messages import Outgoing, RoundMessage
from overlay.core.authority.sharing import SIZE_MAX, GroupKey
from overlay.core.keys import NodeId
from overlay.core.wire import Array, Bytes, Tuple, UInt, make_map, open_map, sha256
from overlay.errors import Refused
from overlay.registry import Label, Reason, RoundKind

PLAN_WITHIN: Final = 10.0  # seconds until the operator's node has said who deals
PATIENCE: Final = 24 * 3600.0  # protocol: a refresh waits so long for a member that is away
OBJECT_WITHIN: Final = 20.0  # seconds until all members have signed the object
CLOSING_WITHIN: Final = 8.0  # of these, until our copies of logs are as long as the leader's: our guess

HELPS_MAX: Final = 4  # repairs of one member at once: our guess, its older ones are given up
HEARD: Final = frozenset({
    RoundKind.RESHARE_PLAN, RoundKind.GROUP_KEY, RoundKind.OBJECT_PAYLOAD, RoundKind.MEMBER_SIGNATURE,
})  # fmt: skip

NOBODY: Final = bytes(32)  # stands for the message key of a member that is away: nothing verifies under it

_NODES: Final = Array(Bytes(32), 64)
_SIGNED: Final = Array(Tuple((Bytes(32), Bytes(64))), 64)


@dataclass(frozen=True, slots=True)
class GroupNews:
    """What a dealer tells whoever is new: GROUP_KEY {generation, key}. What it has bound is asked for."""

    generation: int
    group: GroupKey

    def pack(self) -> bytes:
        """The body."""
        return make_map(self.generation, self.group.pack())

    @classmethod
    def unpack(cls, body: bytes) -> "GroupNews":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        generation, group = open_map(body, UInt(), Bytes(1, SIZE_MAX), limit=2 * SIZE_MAX)
        return cls(generation, GroupKey.unpack(group))


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What is to be done, by an operator's order or because it is time."""

    session: bytes  # 16
    number: int  # of the order; 0 without one
    leader: NodeId  # says who deals
    dealers: tuple[NodeId, ...] = ()  # for the leader; empty: whoever is linked then
    to: Reshare | None = None  # None: new shares for the same members

    @classmethod
    def of(cls, order: Order) -> "Assignment":
        """On an order."""
        body = order.body
        assert isinstance(body, Refresh | Reshare)
        to = body if isinstance(body, Reshare) else None
        return cls(session=order.session, number=order.number, leader=order.operator, to=to)


def call_off(assignment: Assignment, to: Iterable[NodeId]) -> Iterator[Outgoing]:
    """A plan without dealers: whoever waits for one is free again."""
    session = session_for(assignment.session, b"handover")
    return (Outgoing(one, session, RoundKind.RESHARE_PLAN, make_map([])) for one in to)


class Handover:
    """One refresh or resharing on one node."""

    def __init__(
        self, around: Surroundings, keeper: Keeper, shares: Shares, ports: CeremonyPorts, assignment: Assignment,
        patience: float = PATIENCE,
    ) -> None:
        to, newest = assignment.to, keeper.ledger.chain.newest
        self._around = around
        self._keeper = keeper
        self._shares = shares
        self._ports = ports
        self._assignment = assignment
        self._patience = patience
        self._begun = around.at()
        self._before: Contents = newest.contents
        self._old = newest.member_ids
        self._new = newest.member_ids if to is None else to.members
        self._threshold = newest.threshold if to is None else to.threshold
        self._session = session_for(assignment.session, b"handover")
        self._heard: dict[tuple[RoundKind, NodeId], RoundMessage] = {}
        self._news = trio.Event()
        self._promised = False  # our signature as a member is out: others may complete the object without asking again

    @property
    def newcomers(self) -> frozenset[NodeId]:
        """Who shall hold a share and holds none."""
        return frozenset(self._new).difference(self._old)

    @property
    def is_refresh(self) -> bool:
        """Nothing but new shares."""
        return self._old == self._new and self._threshold == self._before.threshold

    async def run(self) -> None:
        """Take part, or stand by if it is not for us. Raises Refused with why nothing came of it."""
        own = self._around.own_id
        if own not in self._old and own not in self._new and own != self._assignment.leader:
            return
        with self._keeper.carrier.listening(self._session, self._hear):
            dealers = await self._agree_on_dealers()
            if own not in dealers and own not in self._new:
                return
            plan = await self._plan(dealers)
            result = await self._deal(plan)
            if self.is_refresh:
                await self._renew_share(result)
            else:
                await self._hand_over(result, dealers)

    # --- who deals --------------------------------------------------------------------------------------------------

    async def _agree_on_dealers(self) -> tuple[NodeId, ...]:
        own = self._around.own_id
        if own == self._assignment.leader:
            chosen = self._assignment.dealers or self._old
            dealers = tuple(node for node in self._old if node in chosen and (node == own or self._around.linked(node)))
            if len(dealers) < self._before.threshold:
                wanted = self._before.threshold
                raise Refused(Reason.NOT_ENOUGH_SIGNERS, f"{len(dealers)} of the {wanted} signers that it takes are linked")
            await self._say({*self._old, *self._new}, RoundKind.RESHARE_PLAN, make_map([bytes(one) for one in dealers]))
            return dealers
        message = await self._next(RoundKind.RESHARE_PLAN, self._assignment.leader)
        (found,) = open_map(message.body, _NODES, limit=16 * 1024)
        dealers = tuple(map(NodeId, found))
        if not dealers:
            raise Refused(Reason.TIMEOUT, "the leader has called it off")
        if not set(dealers) <= set(self._old) or list(dealers) != sorted(set(dealers)):
            raise Refused(Reason.MALFORMED, "dealers are members of the authority, by node id")
        return dealers

    async def _plan(self, dealers: tuple[NodeId, ...]) -> Plan:
        ledger, own, share = self._keeper.ledger, self._around.own_id, self._keeper.ledger.share
        everybody = dealers if self.is_refresh else tuple(sorted({*dealers, *self._new}))
        keys = dict.fromkeys(self._old, NOBODY) | dict(await all_linked(self._ports, everybody))
        if own in dealers:
            if share is None:
                raise Refused(Reason.NOT_A_SIGNER, "our share is lost", hint="`overlay ca repair`")
            generation, group = share.generation, share.group
            news = GroupNews(generation, group).pack()
            await self._say(set(self._new) - set(self._old), RoundKind.GROUP_KEY, news)
        else:
            generation, group = await self._hear_group(dealers)
        try:
            return Plan(
                mesh_id=ledger.trust.mesh_id, session=self._assignment.session, order_number=self._assignment.number,
                generation=generation, group=group, old_members=self._old, dealers=dealers,
                new_members=self._new, threshold=self._threshold, message_keys=keys,
            )
        except ValueError as error:  # the operator's node chose the dealers, and the dealers said the key
            raise Refused(Reason.KEY_GENERATION_FAILED, str(error)) from None

    async def _hear_group(self, dealers: tuple[NodeId, ...]) -> tuple[int, GroupKey]:
        """What as many dealers say alike as sign together; their bindings become ours."""
        said: dict[NodeId, GroupNews] = {}
        while True:
            message = await self._next(RoundKind.GROUP_KEY)
            if message.sender not in dealers:
                continue
            try:
                said[message.sender] = GroupNews.unpack(message.body)
            except Refused as error:
                self._keeper.alarm(message.sender, error.reason, "the public half of the key")
                continue
            votes = Counter((one.generation, one.group.pack()) for one in said.values())
            (generation, packed), count = votes.most_common(1)[0]
            if count >= self._before.threshold:
                break
        group = GroupKey.unpack(packed)
        if group.public != self._before.root.public_key:
            raise Refused(Reason.WRONG_GENERATION, "the dealers hold another key than the authority's")
        ledger, threshold = self._keeper.ledger, self._before.threshold
        alike = [node for node, one in said.items() if (one.generation, one.group.pack()) == (generation, packed)]
        others = await read_bindings(self._ports.ask_bindings, alike, threshold)
        ledger.bindings = joined(ledger.bindings, others, threshold, len(self._old))
        await ledger.flush()
        return generation, group

    # --- dealing ----------------------------------------------------------------------------------------------------

    async def _deal(self, plan: Plan) -> Reshared:
        own = self._around.own_id
        share = self._keeper.ledger.share if own in plan.dealers else None
        machine = Resharing(
            plan, own, share, self._around.chance, trio.current_time(), signer=self._ports.identity().message,
            patience=self._patience if plan.is_refresh else None,
        )
        await carry(machine, self._keeper.carrier, self._assignment.session, self._name)
        assert machine.result is not None
        return machine.result

    async def _renew_share(self, result: Reshared) -> None:
        ledger = self._keeper.ledger
        await ledger.keep_share(result.share)
        self._keeper.desk.share_changed()
        for missing in result.missing:
            self._keeper.alarm(missing, Reason.WRONG_GENERATION, "was away while the shares were refreshed: repair its share")

    # --- the object -------------------------------------------------------------------------------------------------

    async def _hand_over(self, result: Reshared, dealers: tuple[NodeId, ...]) -> None:
        """All sign the object that names the new members; with it their shares come into force, and not before."""
        if result.share is not None:
            await self._shares.keep_next(NextShare(result.share, result.transcript_hash))
        try:
            with trio.fail_after(OBJECT_WITHIN):
                payload = await self._payload(result, min(set(dealers) & set(self._new) or dealers))
                signatures = await self._signatures(payload, {*dealers, *self._new})
                self._agree(payload)
                await self._complete(payload, signatures, dealers)
                await self._settle()
        except (Refused, trio.TooSlowError) as error:
            if not self._promised:
                await self._shares.drop_next()
            raise Refused(
                Reason.KEY_GENERATION_FAILED, f"not all members have signed the authority object in time: {error}"
            ) from None

    async def _payload(self, result: Reshared, leader: NodeId) -> bytes:
        """What the leader says that the object says; what it must say is looked at."""
        if self._around.own_id == leader:
            before = self._before
            payload = next_contents(
                before, before.root, [identity_of(self._ports, member) for member in self._new], self._threshold,
                transcript=result.transcript_hash, closing=self._ports.heads(self._old),
            ).pack()
            await self._say({*self._old, *self._new}, RoundKind.OBJECT_PAYLOAD, payload)
            return payload
        message = await self._next(RoundKind.OBJECT_PAYLOAD, leader)
        contents = read_next(message.body, self._before)
        right = (contents.member_ids, contents.threshold, contents.transcript)
        if right != (self._new, self._threshold, result.transcript_hash):
            raise Refused(Reason.BAD_AUTHORITY_OBJECT, "not what was reshared")
        await self._check_closing(contents)
        return message.body

    async def _check_closing(self, contents: Contents) -> None:
        """Logs end where they do here; entries may be on their way. Raises Refused."""
        until, own, copy_of = trio.current_time() + CLOSING_WITHIN, self._around.own_id, self._ports.copy_of
        while problem := await closing_problem(contents, self._before, own, self._begun, copy_of):
            if trio.current_time() >= until:
                raise Refused(Reason.BAD_AUTHORITY_OBJECT, problem)
            await trio.sleep(PAUSE)

    async def _signatures(self, payload: bytes, everybody: set[NodeId]) -> dict[NodeId, bytes]:
        """Of all new members, and each is good. Everybody gets all of them: so nobody alone can hold the object back, and the
        mesh key is bound to none that lacks anything but its own signature."""
        own, contents = self._around.own_id, read_next(payload, self._before)
        keys, found = dict(zip(contents.member_ids, contents.members, strict=True)), dict[NodeId, bytes]()
        if own in keys:
            self._promised = True
            found[own] = await self._signature(payload)
            await self._say(everybody, RoundKind.MEMBER_SIGNATURE, make_map([[own, found[own]]]))
        while found.keys() != keys.keys():
            message = await self._next(RoundKind.MEMBER_SIGNATURE)
            try:
                (rows,) = open_map(message.body, _SIGNED, limit=16 * 1024)
                for node, signature in rows:
                    if NodeId(node) in keys and NodeId(node) not in found:
                        check_signature(keys[NodeId(node)], signature, self._keeper.ledger.trust.mesh_id, payload)
                        found[NodeId(node)] = signature
            except Refused as error:
                self._keeper.alarm(message.sender, error.reason, "a member's signature of the authority object")
        await self._say(everybody, RoundKind.MEMBER_SIGNATURE, make_map([[node, found[node]] for node in sorted(found)]))
        return found

    async def _complete(self, payload: bytes, signatures: dict[NodeId, bytes], dealers: tuple[NodeId, ...]) -> None:
        """Have the mesh key sign; whoever deals can, one after the other. Until the object is in force here."""
        ledger, own = self._keeper.ledger, self._around.own_id
        transcript = read_next(payload, self._before).transcript
        turn = dealers.index(own) if own in dealers else None
        while ledger.chain.newest.contents.transcript != transcript:
            await trio.sleep(TURN if turn is None else (turn + 1) * TURN)  # a dealer before us may have done it
            if turn is None or ledger.chain.newest.contents.transcript == transcript:
                continue
            try:
                root = await self._keeper.desk.signature(AuthorityObjectRequest(payload))
            except Refused:  # others are not as far yet
                continue
            self._keeper.take_object(assemble(payload, Signatures(root.signature, [signatures[one] for one in self._new])))

    async def _settle(self) -> None:
        await self._keeper.ledger.flush()
        await self._shares.settle()
        self._keeper.desk.share_changed()

    def _agree(self, payload: bytes) -> None:
        self._keeper.approvals.agreed.add(pack_request(AuthorityObjectRequest(payload)))

    async def _signature(self, payload: bytes) -> bytes:
        data = to_be_signed(self._keeper.ledger.trust.mesh_id, payload)
        return await trio.to_thread.run_sync(self._ports.sign, data)

    # --- with the others --------------------------------------------------------------------------------------------

    async def _say(self, to: set[NodeId], kind: RoundKind, body: bytes) -> None:
        others = sorted(to - {self._around.own_id})
        self._keeper.carrier.send(Outgoing(node, self._session, kind, body) for node in others)
        await trio.lowlevel.checkpoint()

    def _hear(self, message: RoundMessage) -> None:
        """Of each who takes part the newest message of each kind is kept, and no more."""
        if message.kind in HEARD and message.sender in {*self._old, *self._new, self._assignment.leader}:
            self._heard[message.kind, message.sender] = message
            self._news.set()

    async def _next(self, kind: RoundKind, sender: NodeId | None = None) -> RoundMessage:
        """The next message of this kind. Raises Refused when none comes."""
        with trio.move_on_after(PLAN_WITHIN):
            while True:
                found = next((one for one in self._heard if one[0] is kind and sender in (None, one[1])), None)
                if found is not None:
                    return self._heard.pop(found)
                self._news = trio.Event()
                await self._news.wait()
        raise Refused(Reason.TIMEOUT, f"nobody says {kind.name.lower()}")

    def _name(self, node: NodeId) -> str:
        seen = self._keeper.ledger.members.get(node)
        return node.short if seen is None else seen.name


class Mending:
    """Repairs of shares on one node: our own, or another member's with our help."""

    def __init__(self, around: Surroundings, keeper: Keeper, ports: CeremonyPorts) -> None:
        self._around = around
        self._keeper = keeper
        self._ports = ports
        self._helping: Counter[NodeId] = Counter()

    async def repair(self, news: GroupNews, bindings: Bindings) -> None:
        """Get our share back. `news`: what members say of key and generation; `bindings`: ours and theirs. Raises Refused."""
        ledger, own = self._keeper.ledger, self._around.own_id
        members = ledger.chain.newest.member_ids
        helpers = tuple(node for node in members if node != own and self._around.linked(node))[: news.group.threshold]
        if own not in members or len(helpers) < news.group.threshold:
            raise Refused(Reason.NOT_ENOUGH_SIGNERS, f"{len(helpers)} of {news.group.threshold} members are there to help")
        session = session_for(self._around.chance.token(16), b"repair")
        body = make_map(news.generation, [bytes(one) for one in helpers])
        run = session_for(session, own)
        plan = await self._plan(run, news, helpers, own)
        self._keeper.carrier.send(Outgoing(node, session, RoundKind.REPAIR_PLAN, body) for node in helpers)
        machine = Repair(
            plan, own, None, self._around.chance, trio.current_time(), signer=self._ports.identity().message
        )
        await carry(machine, self._keeper.carrier, run, lambda node: node.short)
        assert machine.result is not None
        ledger.bindings = bindings
        await ledger.flush()
        await ledger.keep_share(machine.result)
        self._keeper.desk.share_changed()

    async def help(self, message: RoundMessage) -> None:
        """A member asks for help with its share: it is its own, so there is nothing to decide. Raises Refused."""
        ledger, own = self._keeper.ledger, self._around.own_id
        share = ledger.share
        generation, found = open_map(message.body, UInt(), _NODES, limit=16 * 1024)
        helpers = tuple(map(NodeId, found))
        if share is None or own not in helpers or not ledger.is_signer(message.sender) or generation != share.generation:
            raise Refused(Reason.NOT_ALLOWED, "no member asks, or of another generation")
        if self._helping[message.sender] >= HELPS_MAX:
            raise Refused(Reason.TOO_MANY, "repairs at once")
        run = session_for(message.session, message.sender)  # so nobody chooses a session that is another's
        self._helping[message.sender] += 1
        try:
            plan = await self._plan(run, GroupNews(generation, share.group), helpers, message.sender)
            machine = Repair(
                plan, own, share, self._around.chance, trio.current_time(), signer=self._ports.identity().message
            )
            await carry(machine, self._keeper.carrier, run, lambda node: node.short)
        finally:
            self._helping[message.sender] -= 1

    async def _plan(self, session: bytes, news: GroupNews, helpers: tuple[NodeId, ...], lost: NodeId) -> RepairPlan:
        ledger = self._keeper.ledger
        keys = await all_linked(self._ports, tuple(sorted({*helpers, lost})))
        try:
            return RepairPlan(
                mesh_id=ledger.trust.mesh_id, session=session, generation=news.generation, group=news.group,
                members=ledger.chain.newest.member_ids, helpers=helpers, lost=lost, message_keys=keys,
            )
        except ValueError as error:  # whoever asks has chosen the helpers
            raise Refused(Reason.MALFORMED, str(error)) from None


def session_for(session: bytes, what: bytes) -> bytes:
    """16 bytes for what goes on beside a run; not of a signature by a key to come."""
    found = sha256(Label.RESHARING, session, what)[:16]
    return bytes([found[0] & 0x7F]) + found[1:]
