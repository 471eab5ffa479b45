"""What the orders of operators revoke, and whether a list that somebody wants signed says that and nothing else.

Every signer works it out from the orders that it holds itself: a coordinator can leave nothing out and put nothing in.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from overlay.core.authority.order_bodies import Replace, Revoke
from overlay.core.authority.order_payload import Order
from overlay.core.certificates import TOLERANCE, Root, check_signature
from overlay.core.keys import NodeId
from overlay.core.members import Members
from overlay.core.revocation_profile import LIST_LIFE, LIST_MAX, ListFacts, Mark, RevocationReason, Revocations
from overlay.core.trust import TrustSet
from overlay.errors import Refused
from overlay.registry import Reason

AHEAD_MAX: Final = 64  # numbers that a list may skip: our guess; without an end to it one list would be the last one


def ordered(orders: Iterable[Order]) -> Revocations:
    """By node id, for ever, and where their logs end."""
    found = Revocations()
    for order in orders:
        match order.body:
            case Revoke(nodes=nodes, reason=reason, since=since, ends=ends):
                mark = Mark(min(since, order.not_before), order.not_before, reason)
                found = found.merged(Revocations(nodes=dict.fromkeys(nodes, mark), ends=ends))
            case Replace(old=old):
                mark = Mark(order.not_before, order.not_before, RevocationReason.SUPERSEDED)
                found = found.merged(Revocations(nodes={old: mark}))
            case _:
                continue
    return found


def next_list(
    trust: TrustSet, orders: Iterable[Order], members: Members, at: datetime, attempt: int = 0
) -> ListFacts | None:
    """The list that is due; None where all that is ordered is revoked already, in a list by the newest root.

    The certificates of a revoked node that are still in force are named too, for tools that know serials only. The list
    follows from the orders, its time as well: signers that propose one at the same time propose the same bytes. After an
    `attempt` that found the number bound otherwise, a higher number is taken.
    """
    wanted = trust.revocations.merged(ordered(orders))
    wanted = wanted.merged(_serials(wanted, members, at))
    if wanted == trust.revocations and (not trust.lists or _is_by(trust.lists[-1].der, trust.roots.newest)):
        return None
    begin = max(mark.revoked for mark in wanted.nodes.values())
    return ListFacts(
        number=trust.number + 1 + attempt, this_update=begin, next_update=begin + LIST_LIFE, revocations=wanted
    )


def check_list(
    facts: ListFacts, trust: TrustSet, orders: Iterable[Order], members: Members, at: datetime, bound: int = 0
) -> None:
    """Whether we would sign this list. `bound`: the highest number that we have bound ourselves to.

    Raises:
        Refused: BAD_REVOCATION_LIST for a number that goes back or far ahead, a list that says nothing new, something that is
            left out or that nobody has ordered.
    """
    if not trust.number < facts.number <= max(trust.number, bound) + AHEAD_MAX:
        raise Refused(Reason.BAD_REVOCATION_LIST, f"number {facts.number} where {trust.number} is in force")
    if facts.revocations == trust.revocations and (not trust.lists or _is_by(trust.lists[-1].der, trust.roots.newest)):
        raise Refused(Reason.BAD_REVOCATION_LIST, "it says nothing new")
    if not facts.revocations.covers(trust.revocations):
        raise Refused(Reason.BAD_REVOCATION_LIST, "it leaves out what is revoked")
    allowed = trust.revocations.merged(ordered(orders))
    allowed = allowed.merged(_serials(allowed, members, None))
    if not allowed.covers(facts.revocations):
        raise Refused(Reason.BAD_REVOCATION_LIST, "it revokes what no operator has ordered")
    if facts.this_update - TOLERANCE > at or facts.next_update - facts.this_update != LIST_LIFE:
        raise Refused(Reason.CLOCK, "the list is of another time")


def check_not_out(
    node_id: NodeId, trust: TrustSet, orders: Iterable[Order], at: datetime, *, serial: bytes | None, ek_tag: bytes | None
) -> None:
    """Whether nothing stands against a node for which a certificate is wanted, in no list and in no order that counts.

    Args:
        serial: of the certificate that is renewed, 20 bytes.
        ek_tag: of its machine, 32 bytes.

    Raises:
        Refused: REVOKED, QUARANTINED.
    """
    found = trust.revocations.merged(ordered(orders))
    marks = (
        found.nodes.get(node_id), found.keys.get(node_id), None if serial is None else found.serials.get(serial),
        None if ek_tag is None else found.machines.get(ek_tag),
    )
    if any(mark is not None for mark in marks):
        raise Refused(Reason.REVOKED, f"{node_id.short} is revoked")
    if trust.quarantine_end(node_id, at) is not None:
        raise Refused(Reason.QUARANTINED, f"{node_id.short} is in quarantine")


def _is_by(der: bytes, root: Root) -> bool:
    """Whether that root signed it: tools look for a list by the issuer of the leaf."""
    try:
        check_signature(der, root.public_key, limit=LIST_MAX)
    except Refused:
        return False
    return True


def _serials(revoked: Revocations, members: Members, at: datetime | None) -> Revocations:
    """Serials of revoked nodes; with a time, of certificates that are in force then only."""
    marks = {}
    for node_id, mark in revoked.nodes.items():
        seen = members.get(NodeId(node_id))
        if seen is not None and (at is None or at <= seen.not_after):
            marks.update(dict.fromkeys(seen.serials if at is None else seen.serials[-1:], mark))
    return Revocations(serials=marks)
