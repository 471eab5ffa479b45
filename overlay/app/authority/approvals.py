"""What this signer would sign: what it has seen and worked out itself, and never what a coordinator says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from overlay.app.authority.ledger import Ledger
from overlay.app.authority.ordered_policies import check_ordered
from overlay.core.authority.order_bodies import Invite
from overlay.core.authority.order_payload import Order
from overlay.core.authority.order_rules import Standing
from overlay.core.authority.record_requests import AuthorityTest, PolicyRequest
from overlay.core.authority.requests import Request, pack_request
from overlay.core.authority.revoking import check_list, check_not_out
from overlay.core.authority.x509_requests import IssueLeaf, RevocationList
from overlay.core.certificate_request import verify_request
from overlay.core.join_ports import LEAF_LIFE, Approval
from overlay.core.keys import NodeId
from overlay.core.policy import Policy
from overlay.core.renewal import RenewalApproval
from overlay.core.revocation_profile import serial_bytes
from overlay.errors import Refused
from overlay.registry import Reason

T = TypeVar("T")

KEPT: Final = 1024  # approvals that nobody has asked to finish yet: our guess

Key = tuple[NodeId, datetime]  # who, and from when: so much of a certificate is the joiner's to choose


@dataclass(slots=True)
class Approvals:
    """Of one signer. In memory: after a restart the joiner begins again, which costs it nothing."""

    ledger: Ledger
    acted_on: Callable[[], Sequence[Order]]  # the orders that count now
    at: Callable[[], datetime]
    standing: Callable[[], Standing]
    joins: dict[Key, Approval] = field(default_factory=dict)
    renewals: dict[Key, tuple[RenewalApproval, NodeId | None]] = field(default_factory=dict)
    agreed: set[bytes] = field(default_factory=set)  # packed requests of a ceremony that we take part in

    def join(self, approval: Approval) -> None:
        """Everything about this joiner was right."""
        _keep(self.joins, (approval.node_id, approval.not_before), approval)

    def renewal(self, approval: RenewalApproval, instead_of: NodeId | None = None) -> None:
        """Everything about this renewal was right; `instead_of`: the node whose place it takes, by an order."""
        _keep(self.renewals, (approval.request.node_id, approval.not_before), (approval, instead_of))

    def request_for_join(self, approval: Approval) -> IssueLeaf:
        """What is to be signed for a joiner. Raises Refused: BAD_INVITE, INVITE_SPENT."""
        uses = self._invite_of(approval).uses
        use = self.ledger.bindings.use_for(approval.invite_id, approval.node_id, uses)
        if use is None:
            raise Refused(Reason.INVITE_SPENT, f"{uses} of {uses} uses")
        return _leaf_of(approval, use)

    def request_for_renewal(self, approval: RenewalApproval, instead_of: NodeId | None = None) -> IssueLeaf:
        """What is to be signed for a renewal."""
        return IssueLeaf(
            csr=approval.request.der, name=approval.name, facts=approval.facts, not_before=approval.not_before,
            not_after=approval.not_before + LEAF_LIFE, renews=serial_bytes(approval.replaces), instead_of=instead_of,
        )

    def approve(self, request: Request, coordinator: NodeId) -> None:
        """Raises Refused for what we have not seen to be right."""
        del coordinator  # nobody is trusted with more because of who asks
        match request:
            case IssueLeaf(renews=None):
                self._check_join(request)
                self.check_not_out(request.node_id, serial=None, ek_tag=request.facts.ek_tag)
            case IssueLeaf():
                self._check_renewal(request)
                self.check_not_out(request.node_id, serial=request.renews, ek_tag=request.facts.ek_tag)
            case RevocationList(facts=facts):
                bound = self.ledger.bindings.highest_list(self.ledger.chain.newest_root.issuer)
                check_list(facts, self.ledger.trust, self.acted_on(), self.ledger.members, self.at(), bound)
            case PolicyRequest(payload=payload):
                self._check_policy(payload)
            case AuthorityTest():
                return
            case _ if pack_request(request) in self.agreed:
                return
            case _:
                raise Refused(Reason.NOT_ALLOWED, f"no order that we know asks for {request.kind.name.lower()}")

    def check_not_out(self, node_id: NodeId, *, serial: bytes | None, ek_tag: bytes | None) -> None:
        """What we know now counts, whatever was in force when a link was made or a yes was given. Raises Refused."""
        check_not_out(node_id, self.ledger.trust, self.acted_on(), self.at(), serial=serial, ek_tag=ek_tag)

    def _check_join(self, request: IssueLeaf) -> None:
        node_id = verify_request(request.csr).node_id
        approval = self.joins.get((node_id, request.not_before))
        if approval is None:
            raise Refused(Reason.NOT_ALLOWED, "we have not approved this joiner")
        use = request.use
        if use is None or use >= self._invite_of(approval).uses or request != _leaf_of(approval, use):
            raise Refused(Reason.BOUND_OTHERWISE, "not what we have approved for this joiner")

    def _invite_of(self, approval: Approval) -> Invite:
        """Raises Refused(BAD_INVITE) for one that does not count any more."""
        if approval.invite_id in self.ledger.invites.withdrawn:
            raise Refused(Reason.BAD_INVITE, "the invite was withdrawn")
        for order in self.acted_on():
            if order.hash == approval.invite_hash and isinstance(order.body, Invite):
                return order.body
        raise Refused(Reason.BAD_INVITE, "the invite does not count any more")

    def _check_renewal(self, request: IssueLeaf) -> None:
        node_id = verify_request(request.csr).node_id
        approved = self.renewals.get((node_id, request.not_before))
        if approved is None:
            raise Refused(Reason.NOT_ALLOWED, "not a renewal that we have approved")
        if request != self.request_for_renewal(*approved):
            raise Refused(Reason.BOUND_OTHERWISE, "not the renewal that we have approved")

    def _check_policy(self, payload: bytes) -> None:
        policy = Policy.unpack(payload)
        if policy.version <= self.ledger.trust.policy.policy.version:
            raise Refused(Reason.BAD_POLICY, "a policy that is no newer")
        check_ordered(self.ledger, self.standing(), policy, self.at())


def _leaf_of(approval: Approval, use: int) -> IssueLeaf:
    return IssueLeaf(
        csr=approval.csr, name=approval.name, facts=approval.facts, not_before=approval.not_before,
        not_after=approval.not_before + LEAF_LIFE, invite_id=approval.invite_id, use=use,
    )


def _keep(held: dict[Key, T], key: Key, value: T) -> None:
    """The newest so many."""
    held.pop(key, None)
    while len(held) >= KEPT:
        del held[next(iter(held))]
    held[key] = value

