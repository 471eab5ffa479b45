"""New shares of the same mesh key: for the same members (refresh), for others (reshare), or for one that lost its own (repair).

The operator's node says who deals: all old members that are linked then. Who is new is told the public half of the key by
those who deal, and the bindings that they have made, so that it promises nothing that was promised otherwise.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import trio

from overlay.app.authority.keeper import Keeper
from overlay.app.authority.runs import carry
from overlay.app.authority.shares import NextShare, Shares
from overlay.app.authority.signing import Surroundings
from overlay.app.authority.succeeding import CeremonyPorts, all_linked, identity_of
from overlay.core.authority.bindings import Bindings
from overlay.core.authority.contents import Contents, next_contents, read_next
from overlay.core.authority.dealing import Plan
from overlay.core.authority.group_orders import Refresh, Reshare
from overlay.core.authority.objects import Signatures, assemble, to_be_signed
from overlay.core.authority.order_payload import Order
from overlay.core.authority.record_requests import AuthorityObjectRequest
from overlay.core.authority.repair import Repair, RepairPlan
from overlay.core.authority.requests import pack_request
from overlay.core.authority.resharing import Reshared, Resharing
from overlay.core.authority.round_messages import Outgoing, RoundMessage
from overlay.core.authority.sharing import SIZE_MAX, GroupKey
from overlay.core.keys import NodeId
from overlay.core.limits import MESSAGE_MAX
from overlay.core.wire import Array, Bytes, UInt, make_map, open_map, sha256
from overlay.errors import Refused
from overlay.registry import Label, Reason, RoundKind

PLAN_WITHIN: Final = 10.0  # seconds until the operator's node has said who deals
PATIENCE: Final = 24 * 3600.0  # protocol: a refresh waits so long for a member that is away
OBJECT_WITHIN: Final = 20.0  # seconds until all members have signed the object
BINDINGS_MAX: Final = MESSAGE_MAX - 64 * 1024

NOBODY: Final = bytes(32)  # stands for the message key of a member that is away: nothing verifies under it

_NODES: Final = Array(Bytes(32), 64)


@dataclass(frozen=True, slots=True)
class GroupNews:
    """What a dealer tells whoever is new: GROUP_KEY {generation, key, bindings}."""

    generation: int
    group: GroupKey
    bindings: Bindings = field(repr=False)

    def pack(self) -> bytes:
        """The body."""
        return make_map(self.generation, self.group.pack(), self.bindings.pack())

    @classmethod
    def unpack(cls, body: bytes) -> "GroupNews":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        generation, group, bindings = open_map(
            body, UInt(), Bytes(1, SIZE_MAX), Bytes(1, BINDINGS_MAX), limit=MESSAGE_MAX
        )
        return cls(generation, GroupKey.unpack(group), Bindings.unpack(bindings))


class Handover:
    """One refresh or resharing on one node."""

    def __init__(
        self, around: Surroundings, keeper: Keeper, shares: Shares, ports: CeremonyPorts, order: Order,
        patience: float = PATIENCE,
    ) -> None:
        body, newest = order.body, keeper.ledger.chain.newest
        assert isinstance(body, Refresh | Reshare)
        self._around = around
        self._keeper = keeper
        self._shares = shares
        self._ports = ports
        self._order = order
        self._patience = patience
        self._before: Contents = newest.contents
        self._old = newest.member_ids
        self._new = newest.member_ids if isinstance(body, Refresh) else body.members
        self._threshold = newest.threshold if isinstance(body, Refresh) else body.threshold
        self._session = _named(order.session, b"handover")
        self._news, self._heard = trio.open_memory_channel[RoundMessage](1024)

    @property
    def is_refresh(self) -> bool:
        """Nothing but new shares."""
        return self._old == self._new and self._threshold == self._before.threshold

    async def run(self) -> None:
        """Take part, or stand by if it is not for us. Raises Refused with why nothing came of it."""
        own = self._around.own_id
        if own not in self._old and own not in self._new and own != self._order.operator:
            return
        with self._keeper.carrier.listening(self._session, self._news.send_nowait):
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
        if own == self._order.operator:
            dealers = tuple(node for node in self._old if node == own or self._around.linked(node))
            if len(dealers) < self._before.threshold:
                wanted = self._before.threshold
                raise Refused(Reason.NOT_ENOUGH_SIGNERS, f"{len(dealers)} of the {wanted} signers that it takes are linked")
            await self._say({*self._old, *self._new}, RoundKind.RESHARE_PLAN, make_map([bytes(one) for one in dealers]))
            return dealers
        message = await self._next(RoundKind.RESHARE_PLAN, self._order.operator)
        (found,) = open_map(message.body, _NODES, limit=16 * 1024)
        dealers = tuple(map(NodeId, found))
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
            news = GroupNews(generation, group, ledger.bindings).pack()
            await self._say(set(self._new) - set(self._old), RoundKind.GROUP_KEY, news)
        else:
            generation, group = await self._hear_group(dealers)
        return Plan(
            mesh_id=ledger.trust.mesh_id, session=self._order.session, order_number=self._order.number,
            generation=generation, group=group, old_members=self._old, dealers=dealers,
            new_members=self._new, threshold=self._threshold, message_keys=keys,
        )

    async def _hear_group(self, dealers: tuple[NodeId, ...]) -> tuple[int, GroupKey]:
        """What as many dealers say alike as sign together; their bindings become ours."""
        said: dict[NodeId, GroupNews] = {}
        while True:
            message = await self._next(RoundKind.GROUP_KEY)
            if message.sender not in dealers:
                continue
            said[message.sender] = GroupNews.unpack(message.body)
            votes = Counter((one.generation, one.group.pack()) for one in said.values())
            (generation, packed), count = votes.most_common(1)[0]
            if count >= self._before.threshold:
                break
        group = GroupKey.unpack(packed)
        if group.public != self._before.root.public_key:
            raise Refused(Reason.WRONG_GENERATION, "the dealers hold another key than the authority's")
        ledger = self._keeper.ledger
        for one in said.values():
            if (one.generation, one.group.pack()) == (generation, packed):
                ledger.bindings = _joined(ledger.bindings, one.bindings)
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
        await carry(machine, self._keeper.carrier, self._order.session, self._name)
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
        own = self._around.own_id
        if result.share is not None:
            await self._shares.keep_next(NextShare(result.share, result.transcript_hash))
        leader = min(set(dealers) & set(self._new) or dealers)
        with trio.move_on_after(OBJECT_WITHIN):
            if own == leader:
                await self._lead(result, dealers)
            else:
                await self._follow(result, leader)
            return
        await self._shares.drop_next()
        raise Refused(Reason.KEY_GENERATION_FAILED, "not all members have signed the authority object in time")

    async def _lead(self, result: Reshared, dealers: tuple[NodeId, ...]) -> None:
        before, own = self._before, self._around.own_id
        contents = next_contents(
            before, before.root, [identity_of(self._ports, member) for member in self._new], self._threshold,
            transcript=result.transcript_hash, closing=self._ports.heads(self._old),
        )
        payload = contents.pack()
        self._agree(payload)
        await self._say({*dealers, *self._new}, RoundKind.OBJECT_PAYLOAD, payload)
        signatures = {own: await self._signature(payload)} if own in self._new else {}
        while set(signatures) < set(self._new):
            message = await self._next(RoundKind.MEMBER_SIGNATURE)
            if message.sender in self._new and len(message.body) == 64:
                signatures[message.sender] = message.body
        root = await self._keeper.desk.signature(AuthorityObjectRequest(payload))
        raw = assemble(payload, Signatures(root.signature, [signatures[member] for member in contents.member_ids]))
        self._keeper.take_object(raw)
        await self._settle()

    async def _follow(self, result: Reshared, leader: NodeId) -> None:
        message = await self._next(RoundKind.OBJECT_PAYLOAD, leader)
        contents = read_next(message.body, self._before)
        right = (contents.member_ids, contents.threshold, contents.transcript)
        if right != (self._new, self._threshold, result.transcript_hash):
            raise Refused(Reason.BAD_AUTHORITY_OBJECT, "not what was reshared")
        self._agree(message.body)
        if self._around.own_id in self._new:
            await self._say({leader}, RoundKind.MEMBER_SIGNATURE, await self._signature(message.body))
        ledger = self._keeper.ledger
        while ledger.chain.newest.contents.transcript != result.transcript_hash:  # noqa: ASYNC110 (objects tell others)
            await trio.sleep(0.05)
        await self._settle()

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

    async def _next(self, kind: RoundKind, sender: NodeId | None = None) -> RoundMessage:
        """The next message of this kind; others are put back. Raises Refused when none comes."""
        aside: list[RoundMessage] = []
        try:
            with trio.move_on_after(PLAN_WITHIN):
                while True:
                    message = await self._heard.receive()
                    if message.kind is kind and sender in (None, message.sender):
                        return message
                    aside.append(message)
        finally:
            for message in aside:
                self._news.send_nowait(message)
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

    async def repair(self, news: GroupNews) -> None:
        """Get our share back. `news`: what members say of key and generation. Raises Refused."""
        ledger, own = self._keeper.ledger, self._around.own_id
        members = ledger.chain.newest.member_ids
        helpers = tuple(node for node in members if node != own and self._around.linked(node))[: news.group.threshold]
        if own not in members or len(helpers) < news.group.threshold:
            raise Refused(Reason.NOT_ENOUGH_SIGNERS, f"{len(helpers)} of {news.group.threshold} members are there to help")
        session = _named(self._around.chance.token(16), b"repair")
        body = make_map(news.generation, [bytes(one) for one in helpers])
        plan = await self._plan(session, news, helpers, own)
        self._keeper.carrier.send(Outgoing(node, session, RoundKind.REPAIR_PLAN, body) for node in helpers)
        machine = Repair(
            plan, own, None, self._around.chance, trio.current_time(), signer=self._ports.identity().message
        )
        await carry(machine, self._keeper.carrier, session, lambda node: node.short)
        assert machine.result is not None
        ledger.bindings = _joined(ledger.bindings, news.bindings)
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
        plan = await self._plan(
            message.session, GroupNews(generation, share.group, ledger.bindings), helpers, message.sender
        )
        machine = Repair(plan, own, share, self._around.chance, trio.current_time(), signer=self._ports.identity().message)
        await carry(machine, self._keeper.carrier, message.session, lambda node: node.short)

    async def _plan(self, session: bytes, news: GroupNews, helpers: tuple[NodeId, ...], lost: NodeId) -> RepairPlan:
        ledger = self._keeper.ledger
        everybody = tuple(sorted({*helpers, lost}))
        return RepairPlan(
            mesh_id=ledger.trust.mesh_id, session=session, generation=news.generation, group=news.group,
            members=ledger.chain.newest.member_ids, helpers=helpers, lost=lost,
            message_keys=await all_linked(self._ports, everybody),
        )


def _named(session: bytes, what: bytes) -> bytes:
    """16 bytes for what goes on beside a run; not of a signature by a key to come."""
    found = sha256(Label.RESHARING, session, what)[:16]
    return bytes([found[0] & 0x7F]) + found[1:]


def _joined(own: Bindings, others: Bindings) -> Bindings:
    """Ours and what does not contradict it: whoever lies about bindings can make us refuse, never promise twice."""
    for rows in others.rows.values():
        for row in rows.values():
            if own.get(row.kind, row.key) is None:
                own = own.adding([row])
    return own
