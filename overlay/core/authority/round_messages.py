"""What one signer says to another: one signed envelope for signing, key generation, resharing and repair.

    payload = {0:1, 1:from, 2:to, 3:session16, 4:kind, 5:body}

a COSE_Sign1 by the sender's message key with kid = H(endorsement), AAD = "overlay/1 authority round\\0" || mesh_id. The link
authenticates it anyway; it is signed so that whoever was lied to can show it to others. Machines below work on `Outgoing` and
(sender, session, kind, body), unsigned: the driver signs and verifies here, so a machine may rely on who sent a message.
"""

from dataclasses import dataclass, field
from typing import Final

from overlay.core.identity import LocalIdentity
from overlay.core.keys import MeshId, NodeId
from overlay.core.limits import MESSAGE_MAX
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import Bytes, UInt, make_map, malformed, open_map, parse_sign1, sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason, RoundKind

SESSION_SIZE: Final = 16
ROUND_MESSAGE_MAX: Final = MESSAGE_MAX  # in parts, as calls: a full revocation list has to be asked for
ROUND_BODY_MAX: Final = MESSAGE_MAX - 1024  # the envelope takes some 300 bytes; each machine wants less of its own kinds

_FORM: Final = (Bytes(32), Bytes(32), Bytes(SESSION_SIZE), UInt(255), Bytes(0, ROUND_BODY_MAX))
_KINDS: Final = {int(kind): kind for kind in RoundKind}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What a machine wants sent."""

    to: NodeId
    session: bytes  # 16
    kind: RoundKind
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundMessage:
    """A verified message; `raw` shows to others that its sender said this."""

    sender: NodeId
    to: NodeId
    session: bytes  # 16
    kind: RoundKind
    body: bytes = field(repr=False)
    raw: bytes = field(repr=False)


def sign_round_message(own: LocalIdentity, mesh_id: MeshId, message: Outgoing) -> bytes:
    """A message's bytes, from us."""
    if len(message.session) != SESSION_SIZE or len(message.body) > ROUND_BODY_MAX:
        raise ValueError("a session has 16 bytes, a body at most 1 MiB")
    payload = make_map(own.node_id, message.to, message.session, int(message.kind), message.body)
    return sign1(payload, signer=own.message, aad=Label.AUTHORITY_ROUND + mesh_id, kid=own.kid)


def verify_round_message(raw: bytes, *, own_id: NodeId, mesh_id: MeshId, peer: VerifiedPeer) -> RoundMessage:
    """Check that `peer` said this to us.

    Raises:
        Refused: MALFORMED, TOO_LARGE, UNSUPPORTED, BAD_SIGNATURE, WRONG_AUTHOR or WRONG_RECIPIENT.
    """
    signed = parse_sign1(raw, limit=ROUND_MESSAGE_MAX)
    if signed.kid != peer.kid:
        raise Refused(Reason.WRONG_AUTHOR, "signed under another endorsement than the peer's")
    payload = signed.verify(peer.message_public, aad=Label.AUTHORITY_ROUND + mesh_id)
    sender, to, session, number, body = open_map(payload, *_FORM, limit=ROUND_MESSAGE_MAX)
    if sender != peer.node_id:
        raise Refused(Reason.WRONG_AUTHOR, "the author is not the node at the other end")
    if to != own_id:
        raise Refused(Reason.WRONG_RECIPIENT, "meant for another node")
    kind = _KINDS.get(number)
    if kind is None:
        malformed(f"kind {number} of a message between signers")
    return RoundMessage(sender=peer.node_id, to=own_id, session=session, kind=kind, body=body, raw=raw)
