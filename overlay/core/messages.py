"""What a node says at application level: signed calls and replies (docs/protocol/messages.md).

Each is a COSE_Sign1 by the author's message key with kid = H(endorsement); whoever keeps one can show it to others.
CANCEL and REPLY_CREDIT are not signed: the link authenticates them, and nobody needs to show them.
Publications have the same form and stand in `mesh/topics.py`, because they are chained.
"""

import math
from dataclasses import dataclass, field
from typing import Final

from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.limits import (
    BODY_MAX,
    CALL_CONTROL_MAX,
    FAILURE_KIND_MAX,
    FAILURE_MAX,
    FAILURE_TEXT_MAX,
    MESSAGE_MAX,
    METHOD_MAX,
)
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import UINT_MAX, Bytes, Flag, Text, UInt, make_map, malformed, open_map, parse_sign1, sha256, sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason, ReplyStatus

CALL_ID_SIZE: Final = 16
NO_DEADLINE: Final = 0  # in place of a time: the call lasts as long as its caller wants it

_HASH: Final = Bytes(32)
_BODY: Final = Bytes(0, BODY_MAX)
_CALL: Final = (_HASH, _HASH, Bytes(CALL_ID_SIZE), _HASH, Text(METHOD_MAX), UInt(), _BODY)
_REPLY: Final = (_HASH, _HASH, _HASH, UInt(), Flag(), UInt(255), _BODY)
_FAILURE: Final = (Text(FAILURE_KIND_MAX), Text(FAILURE_TEXT_MAX))
_STATUSES: Final = {int(status): status for status in ReplyStatus}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A verified call. `deadline` is in Unix milliseconds by the caller's clock, or NO_DEADLINE; `hash` names it."""

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
    caller, to, call_id, h, method, deadline, body = open_map(payload, *_CALL, limit=MESSAGE_MAX)
    _check_ends(caller, to, own_id, peer)
    if h != first_h:
        raise Refused(Reason.WRONG_LINK, "a call made on another link")
    return Call(caller=peer.node_id, call_id=call_id, method=method, deadline=deadline, body=body, hash=sha256(raw))


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
    sender, to, call_hash, index, final, number, body = open_map(payload, *_REPLY, limit=MESSAGE_MAX)
    _check_ends(sender, to, own_id, peer)
    status = _STATUSES.get(number)
    if status is None:
        malformed(f"reply status {number}")
    if status is ReplyStatus.FAILED:
        unpack_failure(body)
    return Reply(sender=peer.node_id, call_hash=call_hash, index=index, final=final, status=status, body=body)


def _payload(raw: bytes, aad: bytes, peer: VerifiedPeer) -> bytes:
    """The payload, if the peer signed it under the endorsement in force."""
    message = parse_sign1(raw, limit=MESSAGE_MAX)
    if message.kid != peer.kid:
        raise Refused(Reason.WRONG_AUTHOR, "signed under another endorsement than the peer's")
    return message.verify(peer.message_public, aad=aad)


def _check_ends(author: bytes, to: bytes, own_id: NodeId, peer: VerifiedPeer) -> None:
    if author != peer.node_id:
        raise Refused(Reason.WRONG_AUTHOR, "the author is not the node at the other end")
    if to != own_id:
        raise Refused(Reason.WRONG_RECIPIENT, "meant for another node")


# --- deadlines ------------------------------------------------------------------------------------------------------


def deadline_of(at: float, timeout: float) -> int:
    """The deadline of a call made now, which is `at` in Unix seconds; without end if that is longer than a number holds."""
    ends = (at + timeout) * 1000
    return NO_DEADLINE if ends >= UINT_MAX else max(int(ends), NO_DEADLINE + 1)


def seconds_left(deadline: int, at: float) -> float:
    """Seconds from `at`, our own Unix time, to a deadline; below 0 if it is over; math.inf for none."""
    return math.inf if deadline == NO_DEADLINE else deadline / 1000 - at


# --- bodies of FAILED, CANCEL and REPLY_CREDIT ----------------------------------------------------------------------


def pack_failure(kind: str, text: str) -> bytes:
    """The body of FAILED: what the handler raised, cut to its limits."""
    return make_map(_cut(kind, FAILURE_KIND_MAX), _cut(text, FAILURE_TEXT_MAX))


def unpack_failure(body: bytes) -> tuple[str, str]:
    """(kind, text). Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
    kind, text = open_map(body, *_FAILURE, limit=FAILURE_MAX)
    return kind, text


def _cut(text: str, size: int) -> str:
    """At most so many bytes of UTF-8, no letter in halves; what is not Unicode becomes a question mark."""
    return text.encode(errors="replace")[:size].decode(errors="ignore")


def pack_cancel(token: bytes) -> bytes:
    """CANCEL of the call with that hash."""
    return make_map(token)


def unpack_cancel(body: bytes) -> bytes:
    """The hash of the call. Raises Refused."""
    [token] = open_map(body, _HASH, limit=CALL_CONTROL_MAX)
    return bytes(token)


def pack_credit(token: bytes, credit: int) -> bytes:
    """REPLY_CREDIT: what all parts of the answer to that call may cost, from the first one on."""
    return make_map(token, credit)


def unpack_credit(body: bytes) -> tuple[bytes, int]:
    """(hash of the call, credit). Raises Refused."""
    token, credit = open_map(body, _HASH, UInt(), limit=CALL_CONTROL_MAX)
    return token, credit
