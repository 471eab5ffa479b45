"""What an order book holds and tells: an order with everyone who signed it, and the proof when an operator says two things."""

from dataclasses import dataclass
from datetime import datetime

from overlay.core.authority.order_payload import Order
from overlay.core.authority.order_signatures import COUNTERSIGNATURES_MAX, OrderSignature
from overlay.core.authority.orders import CARRIED_MAX, SignedOrder
from overlay.core.keys import NodeId
from overlay.core.trust import TrustSet
from overlay.core.wire import Bytes, make_map, open_map
from overlay.errors import Refused
from overlay.registry import Reason


@dataclass(frozen=True, slots=True)
class Held:
    """An order that was verified when it came, and who signed it."""

    signed: SignedOrder
    signers: tuple[NodeId, ...]  # of `signed.signatures`

    @property
    def order(self) -> Order:
        """What it says."""
        return self.signed.says

    def merged(self, other: "Held") -> "Held":
        """The same order with the signatures of both; of two by one operator, and of too many, the lowest."""
        found: dict[NodeId, OrderSignature] = {}
        for held in (self, other):
            for node, one in zip(held.signers, held.signed.signatures, strict=True):
                found[node] = min(found.get(node, one), one, key=_signature_rank)
        operator = self.order.operator
        others = sorted(found.keys() - {operator})[:COUNTERSIGNATURES_MAX]
        by_kid = sorted(others, key=lambda node: found[node].kid)
        countersignatures = tuple(found[node] for node in by_kid)
        return Held(SignedOrder(self.order, found[operator], countersignatures), (operator, *by_kid))


@dataclass(frozen=True, slots=True)
class Fork:
    """Two different orders under one number by one operator: proof that he, or a thief of his keys, says two things."""

    first: SignedOrder  # of the lower hash
    second: SignedOrder

    def verify(self, trust: TrustSet) -> NodeId:
        """Who did it. Raises Refused: BAD_ORDER if it proves nothing, or any reason of `SignedOrder.verify`."""
        one, two = (signed.verify(trust).order for signed in (self.first, self.second))
        if (one.operator, one.number) != (two.operator, two.number) or one.hash == two.hash:
            raise Refused(Reason.BAD_ORDER, "no fork: two numbers, two operators, or one order")
        return one.operator

    def pack(self) -> bytes:
        """For whoever has to see it."""
        return make_map(self.first.pack(), self.second.pack())

    @classmethod
    def unpack(cls, raw: bytes) -> "Fork":
        """Not verified. Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        first, second = open_map(raw, Bytes(1, CARRIED_MAX), Bytes(1, CARRIED_MAX), limit=2 * CARRIED_MAX + 64)
        return cls(SignedOrder.unpack(first), SignedOrder.unpack(second))


@dataclass(frozen=True, slots=True)
class Recorded:
    """It is new. Act on it, once the book is durable."""

    order: Order


@dataclass(frozen=True, slots=True)
class Countersigned:
    """It was known, and another operator has signed it now: it may have become enough."""

    order: Order


@dataclass(frozen=True, slots=True)
class Known:
    """Nothing is new."""

    order: Order


@dataclass(frozen=True, slots=True)
class Forked:
    """It is the second order under its number: an alarm; nothing by that operator counts any more."""

    operator: NodeId
    fork: Fork


Outcome = Recorded | Countersigned | Known | Forked


@dataclass(frozen=True, slots=True)
class Heights:
    """The highest numbers of one operator: of any order, and of one that replaces something."""

    any: int = 0
    replacing: int = 0

    def merged(self, other: "Heights") -> "Heights":
        """The higher of each."""
        return Heights(max(self.any, other.any), max(self.replacing, other.replacing))


def _signature_rank(one: OrderSignature) -> tuple[datetime, bytes, bytes, bytes, tuple[bytes, ...]]:
    shown = one.credentials
    return one.made_at, one.signature, shown.endorsement, shown.leaf, shown.chain
