"""Who may order what. Rules:

- whoever signs an order is an operator now, and neither revoked nor in quarantine
- one operator is enough, but for what could take the mesh away from the others: that takes two, where there are two
- one person with two nodes is one operator, where persons are named; so where one operator is named, all new ones are
- a policy replaces one with a lower version; a looser one takes two
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn

from overlay.core.authority.group_orders import Distribute, Recover, Reshare
from overlay.core.authority.order_bodies import Body, GrantRoles, Invite, PolicyOrder, Replace, Revoke
from overlay.core.authority.order_payload import Order
from overlay.core.authority.order_records import Held
from overlay.core.authority.orders import OPERATOR, VerifiedOrder
from overlay.core.authority.policy_strictness import is_looser
from overlay.core.keys import NodeId
from overlay.core.policy import Policy
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason

POWERS: Final = frozenset({"operator", "scheduler", "signer", "submit"})  # trust.md, Orders
TWO: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What whoever judges an order knows of the mesh at that moment."""

    operators: Mapping[NodeId, str | None]  # all that are, those in quarantine too, and whose node each is
    roles: Mapping[NodeId, tuple[str, ...]]  # of all nodes that are known; of others nothing is assumed
    policy: Policy  # in force
    barred: frozenset[NodeId] = field(default=frozenset())  # revoked or in quarantine

    def persons(self, nodes: Iterable[NodeId]) -> int:
        """How many different operators these nodes stand for."""
        return len({self.operators[node] or node for node in nodes if node in self.operators})


def judge(verified: VerifiedOrder | Held, standing: Standing, proposed: Policy | None = None) -> None:
    """Whether this may be done. `proposed`: for an order about a policy, the policy.

    Raises:
        Refused: NOT_ALLOWED for who it is by; BAD_ORDER or BAD_POLICY for what it is about.
    """
    order = verified.order
    if order.is_leaving and order.operator not in standing.operators:
        return
    for node in verified.signers:
        _check_operator(node, standing)
    _check_named(order.body, standing)
    if isinstance(order.body, PolicyOrder):
        _check_policy(order.body, standing.policy, proposed)
    wanted = min(operators_needed(order, standing, proposed), standing.persons(standing.operators))
    if standing.persons(verified.signers) < wanted:
        raise Refused(
            Reason.NOT_ALLOWED, f"{order.kind.name.lower()} takes two operators",
            hint="have another person's operator node countersign the order",
        )  # fmt: skip


def operators_needed(order: Order, standing: Standing, proposed: Policy | None = None) -> int:
    """1 or 2, for a mesh with so many."""
    return TWO if _takes_two(order.body, standing, proposed) else 1


def _takes_two(body: Body, standing: Standing, proposed: Policy | None) -> bool:
    match body:
        case Distribute() | Reshare() | Recover():
            return True
        case Revoke(nodes=nodes):
            return any(node in standing.operators for node in nodes)
        case Replace(old=old):
            moved = standing.roles.get(old)
            return old in standing.operators or moved is None or not POWERS.isdisjoint(moved)
        case GrantRoles(node=node, roles=roles):
            return (node in standing.operators and OPERATOR not in roles) or not POWERS.isdisjoint(roles)
        case Invite(roles=roles):
            return not POWERS.isdisjoint(roles)
        case PolicyOrder():
            return proposed is None or is_looser(proposed, standing.policy)
        case _:
            return False


def _check_operator(node: NodeId, standing: Standing) -> None:
    if node not in standing.operators:
        raise Refused(Reason.NOT_ALLOWED, f"{node.short} is no operator any more")
    if node in standing.barred:
        raise Refused(Reason.NOT_ALLOWED, f"{node.short} is revoked or in quarantine")


def _check_named(body: Body, standing: Standing) -> None:
    """A second, nameless node of somebody would count as somebody else."""
    if not isinstance(body, Invite | GrantRoles) or OPERATOR not in body.roles:
        return
    nameless = isinstance(body, Invite) or body.person is None
    if nameless and any(person is not None for person in standing.operators.values()):
        raise Refused(
            Reason.NOT_ALLOWED, "operators of this mesh are named, and this one is not",
            hint="let it join without the role, then grant the role to a person",
        )  # fmt: skip


def _check_policy(body: PolicyOrder, current: Policy, proposed: Policy | None) -> None:
    if proposed is None or sha256(proposed.pack()) != body.policy_hash:
        _bad("it is about another policy")
    if proposed.version <= current.version:
        raise Refused(
            Reason.BAD_POLICY, f"version {proposed.version} where {current.version} is in force",
            hint="give the policy a higher version",
        )  # fmt: skip


def _bad(detail: str) -> NoReturn:
    raise Refused(Reason.BAD_ORDER, detail)
