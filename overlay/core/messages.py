"""What a node says at application level: signed calls and replies (docs/protocol/messages.md).

Each is a COSE_Sign1 by the author's message key with kid = H(endorsement); whoever keeps one can show it to others.
Publications have the same form and stand in `mesh/topics.py`, because they are chained.
"""

from dataclasses import dataclass, field

from overlay.core import limits
from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import Bytes, Flag, Text, UInt, make_map, open_map, parse_sign1, sha256, sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason, ReplyStatus

METHOD_MAX = 128
CALL_ID_SIZE = 16
ENVELOPE_MAX = limits.MESSAGE_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A verified call. `deadline` is in Unix milliseconds by the caller's clock and informs only; `hash` names it."""

    caller: NodeId
    call_id: bytes  # 16
    method: str
    deadline: int
    body: bytes = field(repr=False)
    hash: bytes  # 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A verified reply to the call with that hash."""

    sender: NodeId
    call_hash: bytes  # 32
    index: int
    final: bool
    status: ReplyStatus
    body: bytes = field(repr=False)


def sign_call(
    own: LocalIdentity, mesh_id: bytes, *, to: NodeId, call_id: bytes, first_h: bytes, method: str, deadline: int, body: bytes
) -> bytes:
    """A call's bytes; its hash is their SHA-256."""
    payload = make_map(own.node_id, to, call_id, first_h, method, deadline, body)
    return sign1(payload, signer=own.message, aad=Label.CALL + mesh_id, kid=own.kid)


def verify_call(raw: bytes, *, own_id: NodeId, mesh_id: bytes, first_h: bytes, peer: VerifiedPeer) -> Call:
    """Raises Refused: MALFORMED, TOO_LARGE, BAD_SIGNATURE, WRONG_AUTHOR, WRONG_RECIPIENT, WRONG_LINK."""
    payload = _payload(raw, Label.CALL + mesh_id, peer)
    caller, to, call_id, h, method, deadline, body = open_map(
        payload, Bytes(32), Bytes(32), Bytes(CALL_ID_SIZE), Bytes(32), Text(METHOD_MAX), UInt(), Bytes(0, limits.BODY_MAX),
        limit=ENVELOPE_MAX,
    )
    _check_ends(caller, to, own_id, peer)
    if h != first_h:
        raise Refused(Reason.WRONG_LINK, "a call made on another link")
    return Call(caller=NodeId(caller), call_id=call_id, method=method, deadline=deadline, body=body, hash=sha256(raw))


def sign_reply(
    own: LocalIdentity, mesh_id: bytes, *, to: NodeId, call_hash: bytes, index: int, final: bool, status: ReplyStatus,
    body: bytes,
) -> bytes:
    """A reply's bytes."""
    payload = make_map(own.node_id, to, call_hash, index, final, int(status), body)
    return sign1(payload, signer=own.message, aad=Label.REPLY + mesh_id, kid=own.kid)


def verify_reply(raw: bytes, *, own_id: NodeId, mesh_id: bytes, peer: VerifiedPeer) -> Reply:
    """Raises Refused: MALFORMED, TOO_LARGE, BAD_SIGNATURE, WRONG_AUTHOR, WRONG_RECIPIENT."""
    payload = _payload(raw, Label.REPLY + mesh_id, peer)
    sender, to, call_hash, index, final, status, body = open_map(
        payload, Bytes(32), Bytes(32), Bytes(32), UInt(), Flag(), UInt(255), Bytes(0, limits.BODY_MAX), limit=ENVELOPE_MAX
    )
    _check_ends(sender, to, own_id, peer)
    try:
        known = ReplyStatus(status)
    except ValueError:
        raise Refused(Reason.MALFORMED, f"reply status {status}") from None
    return Reply(sender=NodeId(sender), call_hash=call_hash, index=index, final=final, status=known, body=body)


def _payload(raw: bytes, aad: bytes, peer: VerifiedPeer) -> bytes:
    """The payload, if the peer signed it under the endorsement in force."""
    message = parse_sign1(raw, limit=ENVELOPE_MAX)
    if message.kid != peer.kid:
        raise Refused(Reason.WRONG_AUTHOR, "signed under another endorsement than the peer's")
    return message.verify(peer.message_public, aad=aad)


def _check_ends(author: bytes, to: bytes, own_id: NodeId, peer: VerifiedPeer) -> None:
    if author != peer.node_id:
        raise Refused(Reason.WRONG_AUTHOR, "the author is not the node at the other end")
    if to != own_id:
        raise Refused(Reason.WRONG_RECIPIENT, "meant for another node")
