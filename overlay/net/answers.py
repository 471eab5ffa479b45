"""The answer to a call of ours: whoever called waits here, and the reader of the link hands in what comes."""

from collections import deque
from contextlib import suppress
from typing import Protocol

import trio
from trio.lowlevel import ParkingLot

from overlay.core.messages import unpack_failure
from overlay.core.rpc import Calls, ReplyReceived
from overlay.errors import DeadlineExceeded, NotAllowed, OverlayError, PeerUnreachable, RemoteError
from overlay.registry import ReplyStatus


class StreamNumbers(Protocol):
    """What calls need of a session."""

    def next_stream(self) -> int:
        """A stream id that was never used."""
        ...


class CallLink(Protocol):
    """What calls need of a link."""

    @property
    def calls(self) -> Calls | None:
        """Its calls, from the moment it is open."""
        ...

    @property
    def replies(self) -> set[bytes]:
        """Tokens of our calls that wait here."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether application messages may be sent."""
        ...

    @property
    def session(self) -> StreamNumbers:
        """Its machine."""
        ...

    async def wait_room(self) -> None:
        """Until less than half of what may wait to be sent does, or the link has ended."""
        ...

    async def wait_for(self, lot: ParkingLot) -> None:
        """Until `lot` is unparked, or something has come: look, and wait again."""
        ...


class Answer:
    """What has come for one call, in order. One task waits for it."""

    def __init__(self, link: CallLink, calls: Calls, token: bytes, method: str) -> None:
        self.token = token
        self.method = method
        self._link = link
        self._calls = calls
        self._replies: deque[ReplyReceived] = deque()
        self._lost = False
        self._news = ParkingLot()
        link.replies.add(token)

    def give(self, reply: ReplyReceived) -> None:
        """The next message of the answer."""
        self._replies.append(reply)
        self._news.unpark_all()

    def lose(self) -> None:
        """The link has ended: nothing more comes."""
        self._lost = True
        self._news.unpark_all()

    async def next_reply(self) -> ReplyReceived:
        """The next message. Raises PeerUnreachable when the link has ended before it."""
        if self._replies:
            await trio.lowlevel.checkpoint()
        while not self._replies:
            if self._lost:
                raise PeerUnreachable("the link ended before the answer")
            await self._link.wait_for(self._news)
        return self._replies.popleft()

    def taken(self, part: bytes) -> None:
        """The reader has this part: the peer may send more."""
        if self._link.is_open:
            with suppress(PeerUnreachable):
                self._calls.taken(self.token, part)

    def close(self) -> None:
        """Nobody waits any more: the peer is told, if it has not answered in full."""
        self._link.replies.discard(self.token)
        if self._link.is_open:
            with suppress(PeerUnreachable):
                self._calls.cancel(self.token)


class Parts:
    """An answer in parts, as an async iterator of bytes."""

    def __init__(self, answer: Answer, timeout: float) -> None:
        self._answer = answer
        self._timeout = timeout
        self._over = False

    def __aiter__(self) -> "Parts":
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        reply = await self._next_reply()
        self._over = reply.final
        if reply.final:
            if reply.status is not ReplyStatus.OK:
                raise error_of(reply, self._answer.method)
            if not reply.body:
                raise StopAsyncIteration
        self._answer.taken(reply.body)
        return reply.body

    async def _next_reply(self) -> ReplyReceived:
        with trio.move_on_after(self._timeout):
            return await self._answer.next_reply()
        raise DeadlineExceeded(f"no part of the answer to {self._answer.method} within {self._timeout:g} s")


def body_of(reply: ReplyReceived, method: str) -> bytes:
    """The answer of a service that gives it in one piece. Raises what the peer says instead."""
    if reply.status is not ReplyStatus.OK:
        raise error_of(reply, method)
    if not reply.final:
        raise RemoteError(f"{method!r} answers in parts", hint="use peer.call_stream()")
    return reply.body


def error_of(reply: ReplyReceived, method: str) -> OverlayError:
    """What a status other than OK means to the caller."""
    match reply.status:
        case ReplyStatus.FAILED:
            kind, text = unpack_failure(reply.body)
            return RemoteError(f"{kind}: {text}", kind=kind)
        case ReplyStatus.NO_SUCH_METHOD:
            return RemoteError(f"the peer has no service {method!r}", hint="services are given to open_node() on that node")
        case ReplyStatus.NOT_ALLOWED:
            return NotAllowed(f"the peer does not let us call {method!r}")
        case ReplyStatus.EXPIRED:
            hint = "compare the clocks of both machines"
            return DeadlineExceeded(f"by the peer's clock it is too late for {method!r}", hint=hint)
        case ReplyStatus.BUSY:
            return RemoteError("the peer is busy with other calls of ours", hint="wait for some of them")
    return RemoteError(f"the peer answered {reply.status.name.lower()}")
