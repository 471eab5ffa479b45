"""What `overlay policy` does on the node: an order, and if that is enough, the signed policy."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from attest.policy import accepted_kinds, check_level
from overlay.app.authority.api import Report
from overlay.app.authority.ordered_policies import check_ordered, orders_for
from overlay.app.authority.seat import Seat
from overlay.core.authority.order_bodies import PolicyOrder
from overlay.core.authority.order_payload import LIFE_MAX, Order
from overlay.core.authority.order_rules import operators_needed
from overlay.core.authority.orders import OPERATOR, sign_order
from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificates import show_time
from overlay.core.policy import Policy
from overlay.core.policy_file import PolicyFile, parse_policy_file
from overlay.core.wire import sha256
from overlay.errors import NotAllowed, Refused, UsageError
from overlay.registry import EvidenceKind, Reason

ORDER_LIFE: Final = timedelta(days=1)

Options = Mapping[str, Any]


class PolicyCommands:
    """What `overlay policy` does on the node."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self.commands: dict[str, Callable[[Options], Awaitable[Report]]] = {"policy": self._policy}

    async def _policy(self, options: Options) -> Report:
        """Order it, unless it is ordered already; have it signed if that is enough."""
        seat, keeper = self._seat, self._seat.keeper
        identity, ledger = seat.engine.identity, keeper.ledger
        if OPERATOR not in identity.verified.roles:
            raise NotAllowed("this node is no operator", hint="give the order on a node with the role operator")
        file = parse_policy_file(str(options["policy"]))
        before, at = ledger.trust.policy.policy, seat.parts.at().replace(microsecond=0)
        if file.policy.version <= before.version:
            raise UsageError(f"version {before.version} is in force", hint=f"write `version = {before.version + 1}`, or higher")
        policy = self._with_grace(file, before, at)
        _check_own(policy, identity.verified.certificate.facts)
        order = self._order(policy, at)
        needed = operators_needed(order, keeper.standing(), policy)
        fields = {"version": policy.version, "replaces": before.version, "operators_needed": needed, "counts": False}
        if options.get("dry_run"):
            said = f"policy {policy.version} would take the place of {before.version}"
            more = "; it lets pass what that one does not, which takes two operators" if needed > 1 else ""
            return Report((f"dry run: {said}{more}",), {**fields, "dry_run": True})
        if not orders_for(ledger, policy, at):
            signed = sign_order(order, signer=identity.message, credentials=identity.credentials, mesh_id=ledger.trust.mesh_id)
            keeper.take_order(signed)
            await ledger.flush()
        try:
            check_ordered(ledger, keeper.standing(), policy, at)
        except Refused as error:
            waits = orders_for(ledger, policy, at)[0].hash.hex()
            said = f"{error.detail}; another operator runs `overlay ca countersign {waits}`, then run this again"
            return Report((said,), {**fields, "order": waits})
        await seat.policies.put_in_force(policy)
        return Report((f"policy {policy.version} is in force{_grace_of(policy, at)}",), {**fields, "counts": True})

    def _with_grace(self, file: PolicyFile, before: Policy, at: datetime) -> Policy:
        """The policy of the file; if it was ordered before, the very one that was, whose grace began then."""
        if not file.grace:
            return file.policy
        for order in self._seat.ledger.orders.in_force(at):
            if isinstance(order.body, PolicyOrder):
                ordered = file.in_place_of(before, order.not_before)
                if sha256(ordered.pack()) == order.body.policy_hash:
                    return ordered
        return file.in_place_of(before, at)

    def _order(self, policy: Policy, at: datetime) -> Order:
        own, ledger = self._seat.engine.identity.node_id, self._seat.ledger
        body = PolicyOrder(sha256(policy.pack()))
        return Order(
            operator=own, number=max(ledger.orders.next_number(own), ledger.lowest_count), not_before=at,
            not_after=at + min(ORDER_LIFE, LIFE_MAX[body.kind]), body=body,
        )


def _check_own(policy: Policy, own: LeafFacts) -> None:
    """Raises UsageError for a policy that would shut out whoever orders it: nobody would hear of the next one."""
    kind = EvidenceKind.TPM if own.ak_name is not None else EvidenceKind.SOFTWARE
    try:
        if kind not in accepted_kinds(policy):
            raise Refused(Reason.EVIDENCE_NOT_ACCEPTED, f"{kind.name.lower()} evidence is not taken")
        check_level(policy, own.level, own.roles)
    except Refused as error:
        hint = "order it on a node that meets it, so that the mesh still has an operator then"
        raise UsageError(f"the policy would shut out this node itself: {error.detail}", hint=hint) from None


def _grace_of(policy: Policy, at: datetime) -> str:
    ends = [one.until for one in policy.in_grace(at)]
    return f"; what was good before passes until {show_time(datetime.fromtimestamp(max(ends), UTC))}" if ends else ""
