"""What operators order about the mesh key itself: a new one, new shares, other members. One at a time on each node.

A ceremony that fails changes nothing, says why and who is to blame, and can be ordered again.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from overlay.app.authority.keeper import Keeper
from overlay.app.authority.others_bindings import joined, read_bindings
from overlay.app.authority.resharing import PATIENCE, Assignment, GroupNews, Handover, Mending
from overlay.app.authority.shares import Shares
from overlay.app.authority.signing import OF_SIGNERS, Surroundings, is_of_next_key
from overlay.app.authority.succeeding import CeremonyPorts, Succession, all_linked
from overlay.core.authority.bindings import Bindings
from overlay.core.authority.group_orders import Distribute, Refresh, Reshare
from overlay.core.authority.order_payload import Order
from overlay.core.authority.rollover import Rollover
from overlay.core.authority.round_messages import RoundMessage
from overlay.core.authority.stored_rollover import unpack_rollover
from overlay.core.keys import NodeId
from overlay.errors import OverlayError, Refused
from overlay.net.background import spawn
from overlay.registry import Reason, RoundKind
from overlay.store.files import damaged
from overlay.store.state import ROLLOVER

UNLOCK_EVERY: Final = 30.0  # seconds between two tries to open a share that a TPM has sealed: our guess
OUTCOMES_KEPT: Final = 64  # of orders, for whoever asks what became of them: our guess


class Ceremonies:
    """Of one node."""

    def __init__(
        self, around: Surroundings, keeper: Keeper, shares: Shares, ports: CeremonyPorts, patience: float = PATIENCE
    ) -> None:
        self.shares = shares
        self.outcomes: dict[bytes, str] = {}  # by hash of the order: what went wrong, empty when it is done
        self._around = around
        self._keeper = keeper
        self._ports = ports
        self._one = trio.Lock()
        self._succession: Succession | None = None
        self._handover: Handover | None = None
        self.on_refresh: Callable[[RoundMessage], None] = lambda _message: None  # another signer wants new shares
        self.on_repaired: Callable[[], None] = lambda: None
        self._told_locked = False
        self._patience = patience  # seconds that a refresh waits for a member that is away
        self._mending = Mending(around, keeper, ports)
        keeper.on_order = self.ordered
        keeper.on_round = self._heard
        keeper.on_object = self._object_came

    async def run(self) -> None:
        """Go on with what a crash has cut off; then wait for orders, until cancelled."""
        await self.shares.settle()
        self._keeper.desk.share_changed()
        self._tell_locked()
        record = self._load()
        if record is not None:
            async with self._one:
                await self._succeed(record)
        await self._unlock_later()

    def _tell_locked(self) -> None:
        """Once for each time that it happens."""
        locked = self.shares.locked
        if locked is not None and not self._told_locked:
            self._keeper.alarm(self._around.own_id, Reason.BAD_SHARE, str(locked))
        self._told_locked = locked is not None

    async def _unlock_later(self) -> None:
        """A TPM that was away may come back; until cancelled."""
        while True:
            await trio.sleep(UNLOCK_EVERY)
            if self.shares.locked is not None and await self.shares.unlock():
                self._keeper.desk.share_changed()
            self._tell_locked()

    def ordered(self, order: Order) -> None:
        """An order counts from now on."""
        match order.body:
            case Distribute():
                spawn(self._around.nursery, self._perform, order, self._distribute)
            case Refresh() | Reshare():
                spawn(self._around.nursery, self._perform, order, self._hand_over)
            case _:
                return

    async def _perform(self, order: Order, does: Callable[[Order], Awaitable[None]]) -> None:
        async with self._one:
            try:
                await does(order)
            except OverlayError as error:
                self._ended(order, str(error))
                reason = error.reason if isinstance(error, Refused) else Reason.INTERNAL
                self._keeper.alarm(self._around.own_id, reason, f"{order.kind.name.lower()}: {error}")
            else:
                self._ended(order, "")

    def _ended(self, order: Order, what: str) -> None:
        self.outcomes[order.hash] = what
        while len(self.outcomes) > OUTCOMES_KEPT:
            del self.outcomes[next(iter(self.outcomes))]

    # --- a new key --------------------------------------------------------------------------------------------------

    async def _distribute(self, order: Order) -> None:
        body, own, newest = order.body, self._around.own_id, self._keeper.ledger.chain.newest
        assert isinstance(body, Distribute)
        if own not in body.members and own not in newest.member_ids:
            return
        await self.shares.check()
        await all_linked(self._ports, body.members)
        record = Rollover(proposal=Succession.proposal(self._keeper, self._ports, order))
        succession = Succession(self._around, self._keeper, self.shares, self._ports, record)
        if own in body.members:
            await succession.generate(order)
        await self._go_on(succession)

    async def _succeed(self, record: Rollover) -> None:
        await self._go_on(Succession(self._around, self._keeper, self.shares, self._ports, record))

    async def _hand_over(self, order: Order) -> None:
        """New shares of the same key."""
        await self.hand_over(Assignment.of(order))

    async def hand_over(self, assignment: Assignment) -> None:
        """The same, for who has claimed it. Raises OverlayError."""
        await self.shares.check()
        self._handover = Handover(self._around, self._keeper, self.shares, self._ports, assignment, self._patience)
        try:
            await self._handover.run()
        finally:
            self._handover = None

    @property
    def is_idle(self) -> bool:
        """Whether no ceremony is under way or was begun, here or before a restart."""
        begun = self._ports.folder.file(ROLLOVER).exists()
        waits = self.shares.next is not None or self.shares.locked is not None
        return not (self._one.locked() or self._succession is not None or waits or begun)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """None other begins for the length of the block. Raises Refused(BUSY)."""
        try:
            self._one.acquire_nowait()
        except trio.WouldBlock:
            raise Refused(Reason.BUSY, "another ceremony is under way") from None
        try:
            yield
        finally:
            self._one.release()

    async def repair(self) -> None:
        """Get our share back from the others. Raises OverlayError."""
        async with self._one:
            await self.shares.check()
            await self._mending.repair(*await self._ask_group())
        self.on_repaired()

    async def _ask_group(self) -> tuple[GroupNews, Bindings]:
        """What t members say alike of the key and its generation, and what they and we have bound. Raises Refused."""
        ledger, said = self._keeper.ledger, dict[NodeId, GroupNews]()
        members, threshold = ledger.chain.newest.member_ids, ledger.chain.newest.threshold
        for member in members:
            if member != self._around.own_id and self._around.linked(member):
                try:
                    said[member] = GroupNews.unpack(await self._ports.ask_group(member))
                except OverlayError:
                    continue
        votes = Counter((one.generation, one.group.pack()) for one in said.values())
        [(found, count)] = votes.most_common(1) or [((0, b""), 0)]
        if count < threshold:
            raise Refused(Reason.NOT_ENOUGH_SIGNERS, f"{count} of {threshold} members say which generation is in force")
        alike = [node for node, one in said.items() if (one.generation, one.group.pack()) == found]
        others = await read_bindings(self._ports.ask_bindings, alike, threshold)
        return said[alike[0]], joined(ledger.bindings, others, threshold, len(members))

    def group_news(self) -> bytes:
        """What we tell a member that has lost its share. Raises Refused(NOT_A_SIGNER)."""
        share = self._keeper.ledger.share
        if share is None:
            raise Refused(Reason.NOT_A_SIGNER, "this node has no share")
        return GroupNews(share.generation, share.group).pack()

    def may_read_bindings(self, node: NodeId) -> bool:
        """Members of the authority, and who is given a share by us at this moment."""
        coming = self._handover is not None and node in self._handover.newcomers
        return coming or self._keeper.ledger.is_signer(node)

    async def _help(self, message: RoundMessage) -> None:
        try:
            await self._mending.help(message)
        except OverlayError as error:
            self._keeper.alarm(message.sender, getattr(error, "reason", Reason.INTERNAL), f"asked for its share: {error}")

    async def _go_on(self, succession: Succession) -> None:
        self._succession = succession
        try:
            await succession.run()
        finally:
            self._succession = None

    def _load(self) -> Rollover | None:
        content = self._ports.folder.read(ROLLOVER)
        if content is None:
            return None
        try:
            return unpack_rollover(content, self._keeper.ledger.chain)
        except Refused as error:
            raise damaged(self._ports.folder.file(ROLLOVER), str(error)) from None

    # --- what comes -------------------------------------------------------------------------------------------------

    def _heard(self, message: RoundMessage) -> None:
        """A message of no session that is listened to: for the signer of a key to come, or early."""
        if message.kind in OF_SIGNERS and is_of_next_key(message.session):
            if self._succession is not None:
                self._succession.desk.heard(message)
            return
        if message.kind is RoundKind.REPAIR_PLAN and not self._keeper.ledger.is_signer(message.sender):
            return
        if message.kind is RoundKind.REFRESH_WANTED:
            self.on_refresh(message)
            return
        if message.kind is RoundKind.REPAIR_PLAN:
            spawn(self._around.nursery, self._help, message)
            return
        self._keeper.carrier.keep(message)

    def _object_came(self) -> None:
        """Another authority is in force: our share of it counts from now on."""
        spawn(self._around.nursery, self._settle)

    async def _settle(self) -> None:
        await self.shares.settle()
        self._keeper.desk.share_changed()
