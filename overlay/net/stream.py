"""A stream to or from a peer, as users see it: a trio stream whose bytes the sender signs, segment by segment.

Bytes reach the reader when the link has authenticated them. `signed_up_to` says how many of them the sender's signature
covers already, which anyone can be shown (`segment`): at most 1 MiB or a second behind.
"""

import operator
from collections import deque
from types import TracebackType
from typing import Protocol, Self

import trio
from trio.lowlevel import ParkingLot

from overlay.core.limits import STREAM_CREDIT_AFTER, STREAM_TURNS
from overlay.core.stream_events import (
    StreamAccepted,
    StreamBroken,
    StreamEnded,
    StreamEvent,
    StreamRoom,
    StreamSigned,
)
from overlay.core.stream_formats import Opening
from overlay.errors import StreamReset, Truncated
from overlay.net.request import PeerInfo
from overlay.registry import ReplyStatus


class BrokenStream(StreamReset, trio.BrokenResourceError):
    """The stream was broken off, by the peer or with its link."""


class StreamLink(Protocol):
    """What a stream asks of its link."""

    def write_stream(self, stream: int, data: memoryview) -> int:
        """Send bytes: how many were taken; none while the connection is busy, or without credit."""
        ...

    def may_write(self) -> bool:
        """Whether the connection takes bytes of streams now."""
        ...

    def room(self, stream: int) -> int:
        """Bytes for which there is credit."""
        ...

    async def wait_may_write(self) -> None:
        """Until it may be so."""
        ...

    def finish_stream(self, stream: int) -> None:
        """Nothing more will be written."""
        ...

    def reset_stream(self, stream: int, status: ReplyStatus, text: str) -> None:
        """Break it off, both ways."""
        ...

    async def wait_for(self, lot: ParkingLot) -> None:
        """Until `lot` is unparked, or something has come."""
        ...

    def consumed(self, stream: int, count: int) -> None:
        """The reader took so many bytes."""
        ...

    def forget_stream(self, stream: int) -> None:
        """Nobody holds it any more."""
        ...


class Turn:
    """One task at a time, as trio's own streams have it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._taken = False

    def __enter__(self) -> None:
        if self._taken:
            raise trio.BusyResourceError(f"another task is {self._what} this stream")
        self._taken = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._taken = False


class Stream(trio.abc.HalfCloseableStream):
    """`peer` is who is at the other end, `name` the handler, `body` what the opener said first, `signed` whether segments are.

    Leaving `async with` in order finishes it; leaving it by an exception breaks it off, and the peer sees that.
    """

    def __init__(self, link: StreamLink, stream_id: int, opening: Opening, *, peer: PeerInfo, name: str) -> None:
        self.peer = peer
        self.name = name
        self.body = opening.body
        self.signed = opening.signed
        self.signed_up_to = 0
        self.segment = b""  # the peer's last segment: COSE_Sign1
        self._link = link
        self._id = stream_id
        self._chunks: deque[bytes | bytearray | memoryview] = deque()
        self._ended: StreamEnded | None = None  # the peer's end, behind the chunks
        self._broken: BaseException | None = None
        self._finished = False  # our end
        self._closed = False
        self._sending = Turn("sending on")
        self._receiving = Turn("receiving from")
        self._readable = ParkingLot()
        self._writable = ParkingLot()
        self._turns = 0
        self._read = 0  # bytes that the peer has not been given credit for yet
        self._credit_after = min(STREAM_CREDIT_AFTER, opening.window // 4)

    # --- what the link tells ----------------------------------------------------------------------------------------

    def on_data(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes of the peer; nobody else holds them."""
        self._chunks.append(data)
        if self._readable:
            self._readable.unpark_all()

    def on_event(self, event: StreamEvent) -> None:
        """Something happened to it."""
        match event:
            case StreamRoom() | StreamAccepted():
                self._writable.unpark_all()
            case StreamSigned(offset=offset, evidence=evidence):
                self.signed_up_to, self.segment = offset, evidence
            case StreamEnded():
                self._ended = event
                self._readable.unpark_all()
                self._forget_if_done()
            case StreamBroken(status=status, text=text):
                self._break(BrokenStream(_why(status, text)))

    def link_ended(self) -> None:
        """There will be nothing more."""
        self._break(BrokenStream("the link ended"))

    def _break(self, error: BrokenStream) -> None:
        if self._broken is None:
            self._broken = error
        self._readable.unpark_all()
        self._writable.unpark_all()
        self._link.forget_stream(self._id)

    # --- sending ----------------------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Returns when all bytes are on their way. `data` must not change meanwhile. Cancelled in its midst, it breaks the
        stream off: nobody knows how much was sent.

        Raises:
            BrokenStream: the peer or the end of the link broke it off.
            trio.ClosedResourceError, trio.BusyResourceError: as other trio streams.
        """
        with self._sending:
            self._turns += 1
            if self._turns % STREAM_TURNS:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await trio.lowlevel.checkpoint()
            self._check_sending()
            left = memoryview(data).cast("B")
            while left:
                taken = self._link.write_stream(self._id, left)
                left = left[taken:]
                if left and not taken:
                    await self._wait_in_send()

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_sending()
            while not (self._link.may_write() and self._link.room(self._id)):
                await self._wait_writable()

    async def send_eof(self) -> None:
        """Nothing more will be sent; the final segment says so."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self._closed or not self._finished:
                self._check_sending()
            self._finish()

    async def _wait_in_send(self) -> None:
        """Cancelled here, nobody knows how much was sent: such a stream has no clean end any more."""
        try:
            await self._wait_writable()
        except trio.Cancelled:
            if not self._closed:
                self._link.reset_stream(self._id, ReplyStatus.CANCELLED, "a send was cancelled")
                self._break(BrokenStream("a send was cancelled in its midst"))
            raise

    async def _wait_writable(self) -> None:
        if self._link.may_write():
            await self._writable.park()
        else:
            await self._link.wait_may_write()
        self._check_sending()

    def _check_sending(self) -> None:
        if self._closed or self._finished:
            raise trio.ClosedResourceError("the stream was closed for sending")
        if self._broken is not None:
            raise self._broken

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._link.finish_stream(self._id)
            self._forget_if_done()

    # --- receiving --------------------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has come, at least one byte; nothing at the end, which the peer has then signed.

        Raises:
            Truncated: the peer ended a signed stream without signing the end.
            BrokenStream: it was broken off; what had come before was given first.
            trio.ClosedResourceError, trio.BusyResourceError: as other trio streams.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            if self._chunks:
                await self._turn()
            elif self._closed or self._ended is not None or self._broken is not None:
                await trio.lowlevel.checkpoint()
            while not self._chunks:
                if self._closed:
                    raise trio.ClosedResourceError("the stream was closed")
                if self._ended is not None:
                    self._give_credit()
                    return self._end(self._ended)
                if self._broken is not None:
                    raise self._broken
                await self._link.wait_for(self._readable)
            return self._take(max_bytes)

    def _take(self, max_bytes: int | None) -> bytes:
        chunk = self._chunks.popleft()
        if max_bytes is not None and len(chunk) > max_bytes:
            view = memoryview(chunk)
            self._chunks.appendleft(view[max_bytes:])
            chunk = view[:max_bytes]
        self._read += len(chunk)
        if self._read >= self._credit_after:
            self._give_credit()
        return bytes(chunk)

    def _give_credit(self) -> None:
        """Not for each few bytes: the peer has at least as much left."""
        if self._read:
            count, self._read = self._read, 0
            self._link.consumed(self._id, count)

    @staticmethod
    def _end(ended: StreamEnded) -> bytes:
        if ended.truncated:
            raise Truncated("the stream ended without a signed end", hint="what came may be incomplete: ask for it again")
        return b""

    # --- the end ----------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Finish what we sent; what the peer still sends is not wanted."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """The same, without waiting."""
        if self._closed:
            return
        if self._broken is None:
            self._finish()
        self._end_here(ReplyStatus.CANCELLED, "not wanted any more")

    def break_off(self, status: ReplyStatus = ReplyStatus.CANCELLED, text: str = "") -> None:
        """Tell the peer that what we sent is not the whole."""
        if not self._closed:
            self._end_here(status, text)

    def _end_here(self, status: ReplyStatus, text: str) -> None:
        self._link.reset_stream(self._id, status, text)  # nothing is said of one that is over: what is unread is forgotten
        self._closed = True
        self._read = 0
        self._chunks.clear()
        self._readable.unpark_all()
        self._writable.unpark_all()
        self._link.forget_stream(self._id)

    def _forget_if_done(self) -> None:
        if self._finished and self._ended is not None:
            self._link.forget_stream(self._id)

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Finish it, or break it off if an exception passes."""
        if error is None:
            await self.aclose()
        else:
            self.break_off()

    async def _turn(self) -> None:
        """A checkpoint; a whole turn of the event loop only now and then."""
        self._turns += 1
        if self._turns % STREAM_TURNS:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()


def _why(status: ReplyStatus, text: str) -> str:
    return f"the peer broke the stream off ({status.name.lower().replace('_', ' ')})" + (f": {text}" if text else "")
