"""What all commands need that give orders: who may, the next order of this node, and giving it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from overlay.app.authority.api import Report
from overlay.app.authority.keeper import Taken
from overlay.app.authority.seat import Seat
from overlay.core.authority.order_bodies import Body
from overlay.core.authority.order_payload import LIFE_MAX, Order
from overlay.core.authority.orders import OPERATOR, sign_order
from overlay.core.keys import NodeId
from overlay.errors import NotAllowed, UsageError

ORDER_LIFE: Final = timedelta(days=1)

Options = Mapping[str, Any]


class OrderDesk:
    """Of one node."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    @property
    def own(self) -> NodeId:
        """Our id."""
        return self._seat.engine.identity.node_id

    def at(self) -> datetime:
        """Now, in whole seconds."""
        return self._seat.parts.at().replace(microsecond=0)

    def must_be_operator(self) -> None:
        """Raises NotAllowed."""
        if OPERATOR not in self._seat.engine.identity.verified.roles:
            raise NotAllowed("this node is no operator", hint="give the order on a node with the role operator")

    def order(self, body: Body, life: timedelta = ORDER_LIFE) -> Order:
        """The next one of this node, from now on."""
        at, ledger = self.at(), self._seat.keeper.ledger
        longest = min(life, LIFE_MAX[body.kind])
        number = max(ledger.orders.next_number(self.own), ledger.lowest_count)
        return Order(operator=self.own, number=number, not_before=at, not_after=at + longest, body=body)

    async def give(self, order: Order) -> Taken:
        """Sign it, keep it, let everybody know. Raises Refused if it may not be given."""
        identity, ledger = self._seat.engine.identity, self._seat.keeper.ledger
        signed = sign_order(
            order, signer=identity.message, credentials=identity.credentials, mesh_id=ledger.trust.mesh_id
        )
        taken = self._seat.keeper.take_order(signed)
        await ledger.flush()
        return taken

    async def simple(self, order: Order, options: Options, done: str) -> Report:
        """Give an order, or say that one could."""
        fields = {"order": order.hash.hex(), "kind": order.kind.name.lower(), "number": order.number,
                  "not_after": order.not_after.isoformat()}  # fmt: skip
        if options.get("dry_run"):
            return Report((f"dry run: {done}",), {**fields, "counts": False, "dry_run": True})
        taken = await self.give(order)
        waits = f"{taken.lacks}; another operator runs `overlay ca countersign {order.hash.hex()}`"
        return Report((done if taken.counts else waits,), {**fields, "counts": taken.counts})


def read_hex(text: str, size: int, what: str) -> bytes:
    """So many bytes. Raises UsageError, which says what was expected."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != size:
        raise UsageError(f"{text!r} does not name {what}")
    return found
