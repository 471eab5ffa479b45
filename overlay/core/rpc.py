"""Calls over one link: ours that wait for a reply, and the peer's that run once.

Sans-IO: the session delivers messages, the shell runs handlers. A repeated call is answered REPEATED and never runs again.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from overlay.core import limits
from overlay.core.chance import Chance
from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.messages import CALL_ID_SIZE, METHOD_MAX, Call, sign_call, sign_reply, verify_call, verify_reply
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import sha256
from overlay.errors import Refused, UsageError
from overlay.registry import FrameType, Reason, ReplyStatus


class SeenCalls:
    """Which calls ran, by (caller, its start, call id), for all links of a node; the oldest are forgotten."""

    def __init__(self, size: int = limits.CALLS_REMEMBERED) -> None:
        self._seen: OrderedDict[tuple[bytes, bytes, bytes], None] = OrderedDict()
        self._size = size

    def first_time(self, caller: NodeId, start_id: bytes, call_id: bytes) -> bool:
        """Whether this call is new; it is not from now on."""
        key = (bytes(caller), start_id, call_id)
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > self._size:
            self._seen.popitem(last=False)
        return True


@dataclass(frozen=True, slots=True)
class CallReceived:
    """Run the handler, then `Calls.reply`."""

    call: Call
    stream: int


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """The answer to a call of ours; `token` is what `Calls.call` returned."""

    token: bytes
    status: ReplyStatus
    body: bytes = field(repr=False)


class Calls:
    """The calls of one link. `send` is the session's, bound by the driver."""

    def __init__(
        self, *, identity: Callable[[], LocalIdentity], mesh_id: bytes, first_h: bytes, chance: Chance, seen: SeenCalls,
        send: Callable[[FrameType, int, bytes], None],
    ) -> None:
        self._identity = identity
        self._mesh_id = mesh_id
        self._first_h = first_h
        self._chance = chance
        self._seen = seen
        self._send = send
        self._pending: dict[bytes, int] = {}  # token to stream
        self._running = 0

    @property
    def under_way(self) -> int:
        """Calls that wait for a reply, both ways."""
        return len(self._pending) + self._running

    def call(self, to: NodeId, stream: int, method: str, body: bytes, deadline: int) -> bytes:
        """Send a call; returns the token that its reply will carry.

        Raises:
            UsageError: the method's name or the body is too long, or too many calls are under way.
        """
        if not method or len(method.encode()) > METHOD_MAX:
            raise UsageError(f"a method's name has 1 to {METHOD_MAX} bytes")
        if len(body) > limits.BODY_MAX:
            raise UsageError(f"a call's body has at most {limits.BODY_MAX} bytes", hint="send more in several calls")
        if len(self._pending) >= limits.CALLS_UNDER_WAY:
            raise UsageError(f"{limits.CALLS_UNDER_WAY} calls to this peer are under way", hint="wait for some of them")
        raw = sign_call(
            self._identity(), self._mesh_id, to=to, call_id=self._chance.token(CALL_ID_SIZE), first_h=self._first_h,
            method=method, deadline=deadline, body=body,
        )
        token = sha256(raw)
        self._send(FrameType.CALL, stream, raw)
        self._pending[token] = stream
        return token

    def forget(self, token: bytes) -> None:
        """Nobody waits for this reply any more."""
        self._pending.pop(token, None)

    def on_call(self, raw: bytes, stream: int, peer: VerifiedPeer) -> list[CallReceived]:
        """A call of the peer. Raises Refused, which ends the link."""
        own = self._identity()
        call = verify_call(raw, own_id=own.node_id, mesh_id=self._mesh_id, first_h=self._first_h, peer=peer)
        if self._running >= limits.CALLS_UNDER_WAY:  # before it is remembered: it does not run, and may come again
            self._answer(call, stream, ReplyStatus.BUSY, b"")
            return []
        if not self._seen.first_time(call.caller, peer.start_id, call.call_id):
            self._answer(call, stream, ReplyStatus.REPEATED, b"")
            return []
        self._running += 1
        return [CallReceived(call, stream)]

    def reply(self, received: CallReceived, status: ReplyStatus, body: bytes) -> None:
        """The handler has ended."""
        self._running -= 1
        self._answer(received.call, received.stream, status, body)

    def abandon(self) -> None:
        """The handler has ended and the link is gone."""
        self._running -= 1

    def on_reply(self, raw: bytes, stream: int, peer: VerifiedPeer) -> list[ReplyReceived]:
        """A reply of the peer. One that nobody waits for is dropped. Raises Refused, which ends the link."""
        reply = verify_reply(raw, own_id=self._identity().node_id, mesh_id=self._mesh_id, peer=peer)
        if not reply.final or reply.index:
            raise Refused(Reason.UNSUPPORTED, "a reply in several messages")
        if reply.call_hash not in self._pending:
            return []
        if self._pending[reply.call_hash] != stream:
            raise Refused(Reason.MALFORMED, "a reply on another stream than its call")
        del self._pending[reply.call_hash]
        return [ReplyReceived(reply.call_hash, reply.status, reply.body)]

    def _answer(self, call: Call, stream: int, status: ReplyStatus, body: bytes) -> None:
        own = self._identity()
        raw = sign_reply(
            own, self._mesh_id, to=call.caller, call_hash=call.hash, index=0, final=True, status=status, body=body
        )
        self._send(FrameType.REPLY, stream, raw)
