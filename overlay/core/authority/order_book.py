"""The orders that a node has seen: what is new, what is a replay, and who gave two different orders under one number.

A book is a value. Rules:

- an order that is held already changes nothing, however often it comes
- orders that only add something (invite, revoke, ...) may come late; one that replaces something has a higher number than
  all such orders of that operator before it, so that nobody brings back an old state by holding an order back
- two different orders under one number by one operator: both are kept as proof, and that operator orders nothing more
- what has ended is forgotten after a day and does not come back, even if the clock is set back; proofs are kept
- merging two books gives the same book either way: signers that were apart come to hold the same orders
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from overlay.core.authority.order_payload import NUMBER_MAX, Order, read_time
from overlay.core.authority.order_records import Countersigned, Fork, Forked, Heights, Held, Known, Outcome, Recorded
from overlay.core.authority.order_signatures import COUNTERSIGNATURES_MAX
from overlay.core.authority.orders import CARRIED_MAX, SignedOrder, VerifiedOrder
from overlay.core.keys import NodeId
from overlay.core.revocation_profile import TIME_MAX
from overlay.core.wire import Array, Bytes, Tuple, UInt, make_map, malformed, open_map
from overlay.errors import Refused
from overlay.registry import OrderKind, Reason

ORDERS_PER_OPERATOR: Final = 256  # at once: our guess
ORDERS_MAX: Final = 4096  # in all: our guess
OPERATORS_MAX: Final = 1024  # that ever were: our guess
BOOK_MAX: Final = 64 * 1024 * 1024  # bytes: our guess, an order with its credentials has 2 to 16 KiB
KEPT_FOR: Final = timedelta(hours=24)  # after its end: our guess, for whoever has to look it up

REPLACING: Final = frozenset({
    OrderKind.REPLACE, OrderKind.ROLES, OrderKind.POLICY, OrderKind.DISTRIBUTE, OrderKind.REFRESH, OrderKind.RESHARE,
    OrderKind.RECOVER,
})  # fmt: skip

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_SIGNERS: Final = Array(Bytes(32), 1 + COUNTERSIGNATURES_MAX)
_HELD: Final = Array(Tuple((Bytes(1, CARRIED_MAX), _SIGNERS)), ORDERS_MAX)
_HEIGHTS: Final = Array(Tuple((Bytes(32), UInt(NUMBER_MAX), UInt(NUMBER_MAX))), OPERATORS_MAX)


@dataclass(frozen=True, slots=True)
class OrderBook:
    """What we hold. Give it durable storage before acting on what it records."""

    held: Mapping[bytes, Held] = field(default_factory=dict)  # by hash of the order
    heights: Mapping[NodeId, Heights] = field(default_factory=dict)
    horizon: datetime = _EPOCH  # what ended before it is forgotten
    _numbers: Mapping[tuple[NodeId, int], tuple[bytes, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numbers: dict[tuple[NodeId, int], tuple[bytes, ...]] = {}
        for name, held in sorted(self.held.items()):
            place = held.order.operator, held.order.number
            numbers[place] = (*numbers.get(place, ()), name)
        object.__setattr__(self, "_numbers", numbers)

    # --- asking -----------------------------------------------------------------------------------------------------

    @property
    def forks(self) -> tuple[Fork, ...]:
        """The first proof against each operator who said two things."""
        first: dict[NodeId, tuple[bytes, ...]] = {}
        for (operator, _), names in sorted(self._numbers.items()):
            if len(names) > 1:
                first.setdefault(operator, names)
        return tuple(Fork(self.held[one].signed, self.held[two].signed) for one, two in first.values())

    @property
    def forked(self) -> frozenset[NodeId]:
        """Operators whose orders do not count."""
        return frozenset(operator for (operator, _), names in self._numbers.items() if len(names) > 1)

    def next_number(self, operator: NodeId) -> int:
        """For that operator's next order."""
        return self.heights.get(operator, Heights()).any + 1

    def in_force(self, at: datetime, kind: OrderKind | None = None) -> tuple[Order, ...]:
        """The orders that count at that time, by operator and number."""
        bad = self.forked
        found = [held.order for held in self.held.values() if held.order.operator not in bad]
        found = [one for one in found if one.not_before <= at <= one.not_after and kind in {None, one.kind}]
        return tuple(sorted(found, key=lambda one: (one.operator, one.number)))

    # --- moving -----------------------------------------------------------------------------------------------------

    def add(self, verified: VerifiedOrder, at: datetime) -> tuple["OrderBook", Outcome]:
        """The book with an order that has just come, to be acted on. It was verified with `verify_now`.

        Raises:
            Refused: BAD_ORDER, CLOCK, EQUIVOCATION or TOO_MANY.
        """
        order, new = verified.order, Held(verified.signed, verified.signers)
        order.check_time(at)
        self._check_horizon(order)
        known = self.held.get(order.hash)
        if known is not None:
            merged = known.merged(new)
            if merged == known:
                return self, Known(order)
            more = len(merged.signers) > len(known.signers)
            return self._with([merged]), Countersigned(order) if more else Known(order)
        if (order.operator, order.number) in self._numbers:
            book = self._with([new])
            return book, Forked(order.operator, next(one for one in book.forks if one.first.says.operator == order.operator))
        self._check_new(order)
        return self._with([new]), Recorded(order)

    def merge(self, other: "OrderBook") -> "OrderBook":
        """What both hold. For books whose orders were all verified here; how late an order came does not matter then.

        Raises:
            Refused: TOO_MANY.
        """
        heights = dict(other.heights)
        for operator, height in self.heights.items():
            heights[operator] = height.merged(heights.get(operator, height))
        joined = replace(self, heights=heights, horizon=max(self.horizon, other.horizon))
        return joined._with(other.held.values())._forgotten()

    def forget(self, at: datetime) -> "OrderBook":
        """The book without what ended more than a day ago."""
        horizon = max(self.horizon, (at - KEPT_FOR).astimezone(UTC).replace(microsecond=0))
        return self if horizon == self.horizon else replace(self, horizon=horizon)._forgotten()

    def _check_horizon(self, order: Order) -> None:
        if order.not_after < self.horizon:
            raise Refused(Reason.BAD_ORDER, f"order {order.number} of {order.operator.short} ended and was forgotten")

    def _check_new(self, order: Order) -> None:
        whose, height = order.operator.short, self.heights.get(order.operator, Heights())
        if order.operator in self.forked:
            raise Refused(Reason.EQUIVOCATION, f"{whose} gave two different orders under one number")
        if order.kind in REPLACING and order.number <= height.replacing:
            raise Refused(Reason.BAD_ORDER, f"order {order.number} of {whose} after its order {height.replacing}")
        if sum(operator == order.operator for operator, _ in self._numbers) >= ORDERS_PER_OPERATOR:
            raise Refused(Reason.TOO_MANY, f"{whose} has {ORDERS_PER_OPERATOR} orders that have not ended")

    def _with(self, new: Iterable[Held]) -> "OrderBook":
        """The book and these orders; of more than two under one number, the two with the lowest hashes."""
        held, heights = dict(self.held), dict(self.heights)
        for one in new:
            order = one.order
            known = held.get(order.hash)
            held[order.hash] = one if known is None else known.merged(one)
            height = Heights(order.number, order.number if order.kind in REPLACING else 0)
            heights[order.operator] = height.merged(heights.get(order.operator, height))
        if len(heights) > OPERATORS_MAX or len(held) > ORDERS_MAX:
            raise Refused(Reason.TOO_MANY, "a book holds no more orders")
        book = replace(self, held=held, heights=heights)
        surplus = {name for names in book._numbers.values() for name in names[2:]}
        return book if not surplus else replace(book, held={name: held[name] for name in held.keys() - surplus})

    def _forgotten(self) -> "OrderBook":
        proofs = {name for names in self._numbers.values() if len(names) > 1 for name in names}
        kept = {
            name: held for name, held in self.held.items() if name in proofs or held.order.not_after >= self.horizon
        }
        return replace(self, held=kept)

    # --- storing ----------------------------------------------------------------------------------------------------

    def pack(self) -> bytes:
        """For durable storage of our own."""
        held = [[one.signed.pack(), list(one.signers)] for _, one in sorted(self.held.items())]
        heights = [[operator, height.any, height.replacing] for operator, height in sorted(self.heights.items())]
        return make_map(held, heights, int(self.horizon.timestamp()))

    @classmethod
    def unpack(cls, raw: bytes) -> "OrderBook":
        """From our own storage, which is believed. Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        rows, heights, horizon = open_map(raw, _HELD, _HEIGHTS, UInt(TIME_MAX), limit=BOOK_MAX)
        found = [Held(SignedOrder.unpack(signed), tuple(map(NodeId, signers))) for signed, signers in rows]
        if any(len(one.signers) != len(one.signed.signatures) for one in found):
            malformed("as many signers as signatures")
        book = cls(
            {one.signed.hash: one for one in found},
            {NodeId(operator): Heights(number, replacing) for operator, number, replacing in heights},
            read_time(horizon),
        )
        if book.pack() != raw:
            malformed("a book is sorted, nothing twice")
        return book
