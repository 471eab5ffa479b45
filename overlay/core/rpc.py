"""Calls over one link: ours that wait for an answer, and the peer's that run once.

Sans-IO: the session delivers messages, the shell runs handlers. Every call that runs is answered by parts, or none, and one
final message; until that has come it counts at both ends, also when nobody wants it any more. Parts need credit.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from overlay.core import limits
from overlay.core.chance import Chance
from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.messages import (
    CALL_ID_SIZE,
    Call,
    Reply,
    pack_cancel,
    pack_credit,
    seconds_left,
    sign_call,
    sign_reply,
    unpack_cancel,
    unpack_credit,
    verify_call,
    verify_reply,
)
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import malformed, sha256
from overlay.errors import LocalProtocolError, Refused, UsageError
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
    """Run the handler, then `Calls.reply`. `left`: seconds to its deadline, below 0 if that is over; inf without one."""

    call: Call
    stream: int
    left: float


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """A part of the answer to a call of ours, or all of it; `token` is what `Calls.call` returned."""

    token: bytes
    status: ReplyStatus
    body: bytes = field(repr=False)
    final: bool = True


@dataclass(slots=True)
class _Asked:
    """A call of ours, until its final message has come."""

    stream: int
    wanted: bool = True
    parts: int = 0  # that came
    spent: int = 0  # their cost
    taken: int = 0  # the cost of those that were read
    credit: int = limits.REPLY_WINDOW  # what the peer may spend


@dataclass(slots=True)
class _Running:
    """A call of the peer, until it is answered."""

    stream: int
    parts: int = 0  # that were sent
    spent: int = 0
    credit: int = limits.REPLY_WINDOW


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
        self._asked: dict[bytes, _Asked] = {}  # by token
        self._running: dict[bytes, _Running] = {}  # by the call's hash, which is the caller's token

    @property
    def under_way(self) -> int:
        """Calls that have no final message yet, both ways."""
        return len(self._asked) + len(self._running)

    @property
    def running(self) -> tuple[bytes, ...]:
        """The hashes of the peer's calls that run."""
        return tuple(self._running)

    # --- ours ---------------------------------------------------------------------------------------------------------

    def call(self, to: NodeId, stream: int, method: str, body: bytes, deadline: int) -> bytes:
        """Send a call; returns the token that its answer will carry. `deadline`: Unix milliseconds, or NO_DEADLINE.

        Raises:
            UsageError: the method's name or the body is too long, or too many calls are under way.
        """
        if not method or len(method.encode()) > limits.METHOD_MAX:
            raise UsageError(f"a method's name has 1 to {limits.METHOD_MAX} bytes")
        if len(body) > limits.BODY_MAX:
            raise UsageError(f"a call's body has at most {limits.BODY_MAX} bytes", hint="send more in several calls")
        if len(self._asked) >= limits.CALLS_UNDER_WAY:
            raise UsageError(f"{limits.CALLS_UNDER_WAY} calls to this peer are under way", hint="wait for some of them")
        raw = sign_call(
            self._identity(), self._mesh_id, to=to, call_id=self._chance.token(CALL_ID_SIZE), first_h=self._first_h,
            method=method, deadline=deadline, body=body,
        )
        token = sha256(raw)
        self._send(FrameType.CALL, stream, raw)
        self._asked[token] = _Asked(stream)
        return token

    def cancel(self, token: bytes) -> None:
        """Nobody wants this answer any more: the peer is told, unless the answer is complete; what still comes is dropped."""
        asked = self._asked.get(token)
        if asked is not None and asked.wanted:
            asked.wanted = False
            self._send(FrameType.CANCEL, asked.stream, pack_cancel(token))

    def taken(self, token: bytes, part: bytes) -> None:
        """The reader has taken this part; the peer gets new credit when half of it is used up."""
        asked = self._asked.get(token)
        if asked is None or not asked.wanted:
            return
        asked.taken += _cost(part)
        if asked.credit - asked.taken <= limits.REPLY_WINDOW // 2:
            asked.credit = asked.taken + limits.REPLY_WINDOW
            self._send(FrameType.REPLY_CREDIT, asked.stream, pack_credit(token, asked.credit))

    def on_reply(self, raw: bytes, stream: int, peer: VerifiedPeer) -> list[ReplyReceived]:
        """A reply of the peer. One that nobody waits for is dropped. Raises Refused, which ends the link."""
        reply = verify_reply(raw, own_id=self._identity().node_id, mesh_id=self._mesh_id, peer=peer)
        asked = self._asked.get(reply.call_hash)
        if asked is None:
            return []
        _check_stream(asked, stream)
        _check_part(asked, reply)
        if reply.final:
            del self._asked[reply.call_hash]
        else:
            asked.parts += 1
            asked.spent += _cost(reply.body)
        return [ReplyReceived(reply.call_hash, reply.status, reply.body, reply.final)] if asked.wanted else []

    # --- the peer's ---------------------------------------------------------------------------------------------------

    def on_call(self, raw: bytes, stream: int, peer: VerifiedPeer, at: float) -> list[CallReceived]:
        """A call of the peer; `at` is our calendar's time in Unix seconds. Raises Refused, which ends the link."""
        own = self._identity()
        call = verify_call(raw, own_id=own.node_id, mesh_id=self._mesh_id, first_h=self._first_h, peer=peer)
        left = seconds_left(call.deadline, at)
        refusal = self._refusal(call, peer, left)
        if refusal is not None:
            self._answer(call, stream, 0, refusal)
            return []
        self._running[call.hash] = _Running(stream)
        return [CallReceived(call, stream, left)]

    def _refusal(self, call: Call, peer: VerifiedPeer, left: float) -> ReplyStatus | None:
        """Why a call does not run. All but the last question leave no trace: the same call may come again."""
        if left < -limits.CLOCK_TOLERANCE:
            return ReplyStatus.EXPIRED
        if len(self._running) >= limits.CALLS_UNDER_WAY:
            return ReplyStatus.BUSY
        if call.hash in self._running or not self._seen.first_time(call.caller, peer.start_id, call.call_id):
            return ReplyStatus.REPEATED
        return None

    def on_cancel(self, raw: bytes, stream: int) -> list[bytes]:
        """The peer wants no answer any more: the hash of its call, if that runs; stop it, then `reply`. Raises Refused."""
        token = unpack_cancel(raw)
        return [token] if self._find(token, stream) else []

    def on_credit(self, raw: bytes, stream: int) -> list[bytes]:
        """The peer lets us send more of an answer: the hash of its call, if that runs. Raises Refused."""
        token, credit = unpack_credit(raw)
        running = self._find(token, stream)
        if running is None:
            return []
        running.credit = max(running.credit, credit)
        return [token]

    def has_credit(self, received: CallReceived) -> bool:
        """Whether the next part of this answer may be sent."""
        running = self._running[received.call.hash]
        return running.spent < running.credit

    def part(self, received: CallReceived, body: bytes) -> None:
        """Send a part of the answer; more follows. Raises LocalProtocolError without credit."""
        running = self._running[received.call.hash]
        if running.spent >= running.credit:
            raise LocalProtocolError("a part of an answer without credit")
        self._answer(received.call, received.stream, running.parts, ReplyStatus.OK, body, final=False)
        running.parts += 1
        running.spent += _cost(body)

    def reply(self, received: CallReceived, status: ReplyStatus, body: bytes = b"") -> None:
        """The handler has ended: send the final message."""
        running = self._running.pop(received.call.hash)
        self._answer(received.call, received.stream, running.parts, status, body)

    def abandon(self, received: CallReceived) -> None:
        """The handler has ended and the link is gone."""
        del self._running[received.call.hash]

    def _find(self, token: bytes, stream: int) -> _Running | None:
        """The running call of that hash; None if it was answered meanwhile, or never came."""
        running = self._running.get(token)
        if running is not None:
            _check_stream(running, stream)
        return running

    def _answer(
        self, call: Call, stream: int, index: int, status: ReplyStatus, body: bytes = b"", *, final: bool = True
    ) -> None:
        raw = sign_reply(
            self._identity(), self._mesh_id, to=call.caller, call_hash=call.hash, index=index, final=final, status=status,
            body=body,
        )
        self._send(FrameType.REPLY, stream, raw)


def _cost(body: bytes) -> int:
    """What a part of an answer takes of its credit."""
    return len(body) + limits.PART_COST


def _check_stream(state: _Asked | _Running, stream: int) -> None:
    if state.stream != stream:
        malformed("on another stream than its call")


def _check_part(asked: _Asked, reply: Reply) -> None:
    """The next message of an answer, in order and within its credit. Raises Refused."""
    if reply.index != asked.parts:
        raise Refused(Reason.CHAIN_BROKEN, f"part {reply.index} of an answer after {asked.parts} parts")
    if reply.final:
        return
    if reply.status is not ReplyStatus.OK:
        malformed(f"{reply.status.name} before the end of an answer")
    if asked.spent >= asked.credit:
        raise Refused(Reason.FLOW_CONTROL, "a part of an answer beyond its credit")
