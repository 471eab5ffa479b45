"""An invite as it stands in a token: without what the token's seed gives, so that the token is shorter by a fifth.

    [kid32, operator32, number, not_before, life in seconds, [roles], name or "", uses, signature64]

Join key and invite id come from the seed. The order is put together again byte by byte, else its signature does not verify.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from overlay.core.authority.order_bodies import NAME_MAX, USES_MAX, Invite
from overlay.core.authority.order_payload import NUMBER_MAX, Order, read_time
from overlay.core.authority.order_signatures import assemble_order
from overlay.core.authority.orders import UnverifiedOrder, parse_order
from overlay.core.certificate_profile import ROLE_SIZE_MAX, ROLES_MAX
from overlay.core.join_key import JoinKey
from overlay.core.keys import MeshId, NodeId
from overlay.core.revocation_profile import TIME_MAX
from overlay.core.wire import Array, Bytes, Text, Tuple, UInt

INVITE: Final = Tuple((
    Bytes(32), Bytes(32), UInt(NUMBER_MAX), UInt(TIME_MAX), UInt(2**32 - 1), Array(Text(ROLE_SIZE_MAX), ROLES_MAX),
    Text(NAME_MAX), UInt(USES_MAX), Bytes(64),
))  # fmt: skip


def fold_invite(invite: UnverifiedOrder) -> list[Any]:
    """For a field of the kind INVITE. Raises ValueError for an order that is no invite."""
    order, body = invite.says, invite.says.body
    if not isinstance(body, Invite):
        raise ValueError("a token carries an invite")
    begin, end = int(order.not_before.timestamp()), int(order.not_after.timestamp())
    return [
        invite.kid, order.operator, order.number, begin, end - begin, list(body.roles), body.name or "", body.uses,
        invite.signed.signature,
    ]  # fmt: skip


def unfold_invite(found: Sequence[Any], seed: bytes, mesh_id: MeshId) -> bytes:
    """The COSE_Sign1 of the invite; what it says is not verified. Raises Refused(MALFORMED)."""
    kid, operator, number, begin, life, roles, name, uses, signature = found
    key = JoinKey.of(seed, mesh_id)
    body = Invite(invite_id=key.invite_id, join_public=key.public, roles=tuple(roles), name=name or None, uses=uses)
    not_before = read_time(begin)
    order = Order(
        operator=NodeId(operator), number=number, not_before=not_before, not_after=not_before + timedelta(seconds=life),
        body=body,
    )  # fmt: skip
    raw = assemble_order(order, kid, signature)
    parse_order(raw)  # of the right form
    return raw
