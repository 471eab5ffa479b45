"""How a signer judges an invite: `InviteChecker` (`join_ports.py`) over its books of orders and invites. Rules:

- the invite is an order that is held here, so it was verified when it came; nothing in the joiner's copy is believed
- it may still be given: its operator is an operator now, and has not said two things
- whoever shows it proves, for this link, signer and request, that he holds the token
- it has a use left for this node, under this name
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from overlay.core.authority.invites import InviteBook
from overlay.core.authority.order_bodies import Invite
from overlay.core.authority.order_book import OrderBook
from overlay.core.authority.order_records import Held
from overlay.core.authority.order_rules import Standing, judge
from overlay.core.authority.orders import parse_order
from overlay.core.certificate_request import Request
from overlay.core.join_frames import Join
from overlay.core.join_key import verify_join_proof
from overlay.core.join_ports import GrantedInvite, JoinLink
from overlay.errors import Refused
from overlay.registry import Reason

_HINT: Final = "the operator's node hands its invites to the signers: see that it runs and has links"


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a signer holds at one moment."""

    orders: OrderBook
    invites: InviteBook
    standing: Standing


@dataclass(frozen=True, slots=True)
class LedgerChecker:
    """Judges by the ledger of the moment. It binds nothing: whoever approves calls `InviteBook.use` and stores the book."""

    ledger: Callable[[], Ledger]

    def check_invite(self, join: Join, link: JoinLink, request: Request, at: datetime) -> GrantedInvite:
        """See `InviteChecker`. Raises Refused: BAD_INVITE, BAD_PROOF, any reason of `judge` or of `InviteBook.use`."""
        ledger = self.ledger()
        held, invite = find_invite(ledger.orders, join.invite)
        verify_join_proof(
            join.proof, invite.join_public, mesh_id=link.mesh_id, h=link.h, signer=link.signer,
            invite_id=invite.invite_id, csr=join.csr,
        )  # fmt: skip
        judge(held, ledger.standing)
        name = invite.name or join.name or request.name
        ledger.invites.use(held.order, request.node_id, name, at)  # for its refusals
        return GrantedInvite(invite_id=invite.invite_id, hash=held.order.hash, roles=invite.roles, name=invite.name)


def find_invite(orders: OrderBook, raw: bytes) -> tuple[Held, Invite]:
    """The order that we hold and that those bytes repeat. Raises Refused: BAD_INVITE, MALFORMED, TOO_LARGE, UNSUPPORTED."""
    held = orders.held.get(parse_order(raw).says.hash)
    if held is None or not isinstance(held.order.body, Invite):
        raise Refused(Reason.BAD_INVITE, "no invite that is known here", hint=_HINT)
    if held.order.operator in orders.forked:
        raise Refused(Reason.BAD_INVITE, "by an operator who gave two different orders under one number")
    return held, held.order.body
