"""Which policies operators have ordered: an order names the hash only, so whoever judges it has to have seen the policy."""

from datetime import datetime

from overlay.app.authority.ledger import Ledger
from overlay.core.authority.order_bodies import PolicyOrder
from overlay.core.authority.order_payload import Order
from overlay.core.authority.order_rules import Standing, judge
from overlay.core.certificates import TOLERANCE
from overlay.core.policy import Policy
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason


def check_ordered(ledger: Ledger, standing: Standing, policy: Policy, at: datetime) -> None:
    """Whether so many operators have ordered this policy as it takes. Raises Refused: NOT_ALLOWED, BAD_POLICY."""
    lacks = Refused(Reason.NOT_ALLOWED, "no operator has ordered this policy")
    for order in orders_for(ledger, policy, at):
        try:
            judge(ledger.orders.held[order.hash], standing, policy)
        except Refused as error:
            lacks = error
        else:
            return
    raise lacks


def orders_for(ledger: Ledger, policy: Policy, at: datetime) -> tuple[Order, ...]:
    """Those in force that are about this policy; clocks of operators may be ahead of ours."""
    wanted = sha256(policy.pack())
    found = {one.hash: one for when in (at, at + TOLERANCE) for one in ledger.orders.in_force(when)}
    return tuple(one for one in found.values() if isinstance(one.body, PolicyOrder) and one.body.policy_hash == wanted)
