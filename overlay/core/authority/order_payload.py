"""What stands in an order, before anyone has signed it: who orders what, under which number, from when to when.

    payload = {0:1, 1:operator, 2:kind, 3:number, 4:not_before, 5:not_after, 6:body}        times in Unix seconds
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from overlay.core.authority.group_orders import BODY_MAX
from overlay.core.authority.order_bodies import Body, Revoke, open_body
from overlay.core.certificates import TOLERANCE, show_time
from overlay.core.keys import NodeId
from overlay.core.revocation_profile import TIME_MAX
from overlay.core.wire import Bytes, UInt, make_map, malformed, open_map, sha256
from overlay.errors import Refused
from overlay.registry import Label, OrderKind, Reason

NUMBER_MAX: Final = 2**63 - 1  # fits SQLite's integers
PAYLOAD_MAX: Final = BODY_MAX + 256

LIFE_MAX: Final[Mapping[OrderKind, timedelta]] = MappingProxyType(
    {kind: timedelta(days=7) for kind in OrderKind}  # our guess: a week for all operators and signers to see it
    | {OrderKind.INVITE: timedelta(days=30), OrderKind.QUARANTINE: timedelta(hours=24)}  # our guess; trust.md, Leaving
)

_PAYLOAD: Final = (Bytes(32), UInt(255), UInt(NUMBER_MAX), UInt(TIME_MAX), UInt(TIME_MAX), Bytes(1, BODY_MAX))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an order says. Whether it is to be believed shows in what it hangs in."""

    operator: NodeId
    number: int  # from 1, rising per operator
    not_before: datetime  # when it was made; whole seconds
    not_after: datetime
    body: Body

    @property
    def kind(self) -> OrderKind:
        """What is ordered."""
        return self.body.kind

    @property
    def is_leaving(self) -> bool:
        """Whether a node wants itself revoked, for which it need not be an operator."""
        return isinstance(self.body, Revoke) and self.body.nodes == (self.operator,)

    @property
    def hash(self) -> bytes:
        """Names the order, whoever signed it and however often. 32 bytes."""
        return sha256(Label.ORDER, self.pack())

    @property
    def session(self) -> bytes:
        """16 bytes that name what is done on this order."""
        return self.hash[:16]

    def pack(self) -> bytes:
        """The payload, which is signed."""
        times = int(self.not_before.timestamp()), int(self.not_after.timestamp())
        return make_map(self.operator, int(self.kind), self.number, *times, self.body.pack())

    @classmethod
    def unpack(cls, payload: bytes) -> "Order":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        operator, kind, number, begin, end, body = open_map(payload, *_PAYLOAD, limit=PAYLOAD_MAX)
        if not number:
            malformed("orders are numbered from 1")
        found = cls(
            operator=NodeId(operator), number=number, not_before=read_time(begin), not_after=read_time(end),
            body=open_body(kind, body),
        )  # fmt: skip
        if not timedelta(0) < found.not_after - found.not_before <= LIFE_MAX[found.kind]:
            malformed(f"this kind of order lives at most {LIFE_MAX[found.kind]}")
        return found

    def check_time(self, at: datetime) -> None:
        """Whether it is in force, give or take five minutes. Raises Refused: BAD_ORDER, CLOCK."""
        what = f"order {self.number} of {self.operator.short}"
        if at + TOLERANCE < self.not_before:
            raise Refused(Reason.CLOCK, f"{what} is from {show_time(self.not_before)}, it is now {show_time(at)}")
        if at - TOLERANCE > self.not_after:
            ended = f"{what} ended on {show_time(self.not_after)}, it is now {show_time(at)}"
            raise Refused(Reason.BAD_ORDER, ended, hint="give the order again")


def read_time(seconds: int) -> datetime:
    """From Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC)
