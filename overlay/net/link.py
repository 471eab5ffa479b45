"""One connection with its session: a pump for bytes in, one for bytes out, one for time. It decides nothing.

What is queued goes to the connection at once, as far as that takes it; the rest waits for the pump. The reader never
waits for the writer, and nobody between: messages and stream data go to their owners in the turn in which they come, and
what those may have waiting is bounded by credit and by limits of their own.

A task that waits for something of the peer takes the lead: it carries the bytes in itself (`wait_for`), while the pump
rests. That saves a turn of the event loop for each answer.
"""

import math
from collections.abc import Callable
from contextvars import copy_context

import trio
from trio.lowlevel import ParkingLot

from overlay.core import limits
from overlay.core.evidence import Evidence
from overlay.core.identity import LocalIdentity
from overlay.core.outbox import ROOM
from overlay.core.rpc import Calls
from overlay.core.session import Session
from overlay.core.session_events import Closed, Event, Failed, MessageReceived
from overlay.core.session_states import State
from overlay.core.stream_events import (
    StreamAccepted,
    StreamBroken,
    StreamData,
    StreamEnded,
    StreamRoom,
    StreamSigned,
)
from overlay.core.stream_formats import Opening
from overlay.core.trust import VerifiedPeer
from overlay.errors import PeerUnreachable
from overlay.net.buffers import receive_buffer
from overlay.net.connection import Connection, connection_over
from overlay.net.stream import Stream
from overlay.registry import FrameType, Reason, ReplyStatus

NOTHING = memoryview(b"")
OF_STREAMS = (StreamAccepted, StreamRoom, StreamSigned, StreamEnded, StreamBroken)

Owner = Callable[["Link", Event], None]


class Link:
    """A live connection. `run` ends when the link has ended; `ended` then says why."""

    def __init__(self, stream: trio.abc.Stream, session: Session, *, owner: Owner, address: str) -> None:
        self.session = session
        self.address = address
        self.calls: Calls | None = None
        self.rounds = 0
        self.warned: set[str] = set()
        self.replies: set[bytes] = set()  # tokens of our calls that wait here
        self.streams: dict[int, Stream] = {}
        self.opened_at = -math.inf
        self.replace_at = math.inf  # when whoever opened it opens another one, under newer static keys
        self.ended: Closed | Failed | None = None
        self._connection: Connection = connection_over(stream)
        self._buffer = receive_buffer()
        self._owner = owner
        self._unsent = NOTHING  # sealed, and not taken by the connection yet
        self._carried = False  # somebody carries it out: the pump, or a task that wants to send
        self._stuck_at = math.inf  # when the connection has taken nothing of it for too long
        self._scratch = NOTHING  # where streams are sealed; most links have none
        self._held = 0  # events are being told: what they cause goes out together
        self._wake_writer = trio.Event()
        self._wake_clock = trio.Event()
        self._asleep_until = -math.inf
        self._moved = ParkingLot()
        self._room = ParkingLot()
        self._led = False  # somebody carries bytes in
        self._pump_leads = False  # and it is the pump
        self._wishes = 0  # tasks that would rather do it than the pump
        self._resting: trio.lowlevel.Task | None = None  # the pump, while another task leads
        self._lead_free = ParkingLot()
        self._context = copy_context()  # what a task that leads causes does not run in the context of that task

    @property
    def is_open(self) -> bool:
        """Whether application messages may be sent."""
        return self.session.state is State.OPEN

    @property
    def _closed(self) -> bool:
        return self.session.state is State.CLOSED

    @property
    def was_open(self) -> bool:
        """Whether both sides had said ok."""
        return self.opened_at != -math.inf

    @property
    def peer(self) -> VerifiedPeer:
        """Who is at the other end; only for links whose peer is identified."""
        peer = self.session.peer
        if peer is None:
            raise PeerUnreachable("the peer has not shown who it is")
        return peer

    async def run(self) -> None:
        """Carry bytes, time and events until the link has ended; cancelled, it still says GOODBYE, for a moment."""
        async with trio.open_nursery() as nursery:
            done = trio.Event()
            nursery.start_soon(self._carry, done)
            try:
                await done.wait()
            except trio.Cancelled:
                self.close(Reason.SHUTDOWN)
                raise

    async def _carry(self, done: trio.Event) -> None:
        """The pumps, out of reach of cancellation: they end when the session has ended."""
        with trio.CancelScope(shield=True):
            self.kick()  # an opener owes its first bytes
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump_out)
                nursery.start_soon(self._pump_time)
                await self._pump_in()
                with trio.move_on_after(limits.LINK_LAST_WORDS):
                    while self.waiting:
                        await self._room.park()
                nursery.cancel_scope.cancel()
            with trio.move_on_after(limits.LINK_HANG_UP):
                await self._hang_up()
            await self._connection.close()
        done.set()

    # --- what the owner asks ----------------------------------------------------------------------------------------

    def send(self, frame: FrameType, stream: int, body: bytes) -> None:
        """Queue an application message. Raises PeerUnreachable if the link is not open."""
        if not self.is_open:
            raise PeerUnreachable("the link is not open")
        if self.waiting + len(body) > limits.SEND_QUEUE_MAX:
            self.close(Reason.SLOW_CONSUMER)
            raise PeerUnreachable("the peer takes nothing more", hint="it is slow or stuck; the link was closed")
        self.session.send(frame, stream, body, trio.current_time())
        if not self._held:
            self._push()
        if self._moved:
            self._moved.unpark_all()

    @property
    def waiting(self) -> int:
        """Bytes that the connection has not taken yet."""
        return len(self._unsent) + self.session.queued

    async def wait_room(self) -> None:
        """Until so little waits that whoever has much to say may go on, or the link has ended."""
        while self.is_open and self.waiting > limits.SEND_QUEUE_MAX // 2:
            await self._room.park()

    def supply_evidence(self, evidence: Evidence) -> None:
        """Our evidence for admission."""
        self._dispatch(self.session.supply_evidence(evidence, trio.current_time()))

    def evidence_failed(self, detail: str) -> None:
        """Our prover could not."""
        self._dispatch(self.session.evidence_failed(detail))

    def open_round(self, number: int) -> None:
        """Lead a round on this link."""
        self.session.open_round(number)
        self.kick()

    def send_evidence(self, number: int, evidence: Evidence) -> None:
        """Our evidence for a round."""
        self.session.send_evidence(number, evidence)
        self.kick()

    def change_credentials(self, identity: LocalIdentity) -> None:
        """Go on with another endorsement or certificate."""
        self.session.change_credentials(identity)
        self.kick()

    def probe(self, within: float) -> None:
        """Ask for a sign of life."""
        self.session.probe(trio.current_time(), within)
        self.kick()

    def woke(self, within: float) -> None:
        """This machine has slept: fresh keys, and a sign of life."""
        self.session.woke(trio.current_time(), within)
        self.kick()

    def close(self, reason: Reason) -> None:
        """Say GOODBYE and end."""
        self._dispatch(self.session.close(reason))

    def refuse(self, reason: Reason, detail: str) -> None:
        """End the link for something the peer did at application level."""
        self._dispatch(self.session.fail(reason, detail))

    async def wait_idle(self) -> None:
        """Until no call and no stream is under way, or the link has ended."""
        while self.is_open and (self.streams or (self.calls is not None and self.calls.under_way)):
            await self._moved.park()

    def kick(self) -> None:
        """Something is queued, or a deadline has moved."""
        if self._held:
            return
        self._push()
        if self._moved:
            self._moved.unpark_all()
        if self.session.deadline < self._asleep_until:
            self._wake_clock.set()

    # --- streams (StreamLink) ---------------------------------------------------------------------------------------

    def open_stream(self, method: str, opening: Opening, *, deadline: int) -> int:
        """Open a stream to a handler of the peer; its id. Raises PeerUnreachable, UsageError."""
        now = trio.current_time()
        if not self.is_open or not self.session.leased(now):
            raise PeerUnreachable("the link is not open")
        stream = self.session.streams.open(
            method, opening.body, signed=opening.signed, deadline=deadline, now=now, window=opening.window
        )
        self._stirred()
        return stream

    def answer_stream(self, stream: int, refusal: ReplyStatus | None = None, text: str = "") -> None:
        """Take a stream that the peer opened, or refuse it; nothing happens if the link has ended meanwhile."""
        if not self.is_open:
            return
        now = trio.current_time()
        if refusal is None:
            self.session.streams.accept(stream, now)
        else:
            self.session.streams.refuse(stream, refusal, text, now)
        self._stirred()

    def write_stream(self, stream: int, data: memoryview) -> int:
        """Seal and send bytes of a stream: how many were taken. None while others' bytes wait, or without credit.

        Whoever has bytes left calls it again at once, until none were taken, and then waits.
        """
        if self.session.queued:
            self._push()
        if self._unsent or not self.is_open:
            return 0
        if not self._scratch:
            self._scratch = memoryview(bytearray(ROOM))
        taken, size = self.session.write_stream(stream, data, trio.current_time(), self._scratch)
        if size:
            self._send_now(self._scratch[:size], comes_back=taken < len(data))
        if self.session.streams.deadline < self._asleep_until:  # what is unsigned has to be signed within a second
            self._wake_clock.set()
        return taken

    def may_write(self) -> bool:
        """Whether the connection takes bytes of streams now."""
        return not self._unsent

    def room(self, stream: int) -> int:
        """Bytes for which there is credit."""
        return self.session.streams.room(stream) if self.is_open else 0

    async def wait_may_write(self) -> None:
        """Until it may be so, or the link has ended. The first that waits carries the bytes out itself, as in `wait_for`."""
        if not self._unsent or self._closed:
            return
        if self._carried or not self._connection.sends_in_parts:
            await self._room.park()
            return
        self._carried = True
        try:
            while self._unsent and not self._closed:
                await self._send_some()
        finally:
            self._carried = False
            if self._unsent:
                self._wake_writer.set()
        self._push()
        if self._room:
            self._room.unpark_all()
            await trio.lowlevel.checkpoint()  # streams take turns

    def finish_stream(self, stream: int) -> None:
        """Nothing more will be written."""
        if self.is_open:
            self.session.finish_stream(stream, trio.current_time())
            self.kick()

    def reset_stream(self, stream: int, status: ReplyStatus, text: str) -> None:
        """Break it off, both ways."""
        if self.is_open:
            self.session.streams.reset(stream, status, text, trio.current_time())
            self._stirred()

    def consumed(self, stream: int, count: int) -> None:
        """The reader took so many bytes."""
        if self.is_open:
            self.session.streams.consumed(stream, count, trio.current_time())
            self._stirred()

    def forget_stream(self, stream: int) -> None:
        """Nobody holds it any more."""
        self.streams.pop(stream, None)
        self._moved.unpark_all()
        if self._led and not self._pump_leads:  # perhaps for this stream
            self._connection.interrupt()
        self._lead_free.unpark_all()
        if not self.streams and not self._unsent:
            self._scratch = NOTHING

    def _stirred(self) -> None:
        self.session.stirred()
        if self.session.queued:
            self.kick()

    # --- bytes out --------------------------------------------------------------------------------------------------

    def _push(self) -> None:
        """Give the connection what it takes; the rest waits for the pump."""
        while not self._unsent and self.session.queued:
            self._send_now(memoryview(self.session.data_to_send()))

    def _send_now(self, data: memoryview, *, comes_back: bool = False) -> None:
        """`comes_back`: whoever sends waits next, and carries out itself what does not go at once."""
        try:
            sent = self._connection.send_now(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the reader sees the end, too
        if sent < len(data):
            self._keep(data[sent:])
            if not (comes_back and self._connection.sends_in_parts):
                self._wake_writer.set()

    def _keep(self, unsent: memoryview) -> None:
        """The connection has just taken what was before this; if it takes nothing for 10 s, the link ends."""
        self._unsent = unsent
        self._stuck_at = trio.current_time() + limits.SLOW_CONSUMER_AFTER if unsent else math.inf
        if self._stuck_at < self._asleep_until:
            self._wake_clock.set()

    async def _pump_out(self) -> None:
        while True:
            await self._wake_writer.wait()
            self._wake_writer = trio.Event()
            while self._unsent and not self._carried:
                self._carried = True
                while self._unsent:
                    await self._send_some()
                self._carried = False
                self._room.unpark_all()
                await trio.lowlevel.checkpoint()  # streams and messages take turns
                self._push()

    async def _send_some(self) -> None:
        """Hand some of what waits to the connection; or nothing, after an interrupt."""
        try:
            sent = await self._connection.send_some(self._unsent[: limits.RECEIVE_SIZE])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            sent = len(self._unsent)  # the reader sees the end, too
        if sent:
            self._keep(self._unsent[sent:])

    async def _hang_up(self) -> None:
        try:
            await self._connection.hang_up(self._buffer[:4096])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    # --- bytes in, and time -----------------------------------------------------------------------------------------

    async def _pump_in(self) -> None:
        while not self._closed:
            if self._led or self._wishes:
                self._lead_free.unpark_all()
                await self._rest()
            else:
                self._pump_leads = True
                await self._lead()

    async def _rest(self) -> None:
        """Until `_rouse`; a parking lot would cost a third of what a turn costs, for each answer."""

        def give_up(_cancel: object) -> trio.lowlevel.Abort:
            self._resting = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._resting = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(give_up)

    def _rouse(self) -> None:
        """The pump looks whether it must lead. Its turn comes when this task has gone on, and perhaps leads again."""
        task, self._resting = self._resting, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def wait_for(self, lot: ParkingLot) -> None:
        """Until `lot` is unparked, or bytes have come: look, and wait again. Cancelling it does no harm."""
        if self._closed:
            await trio.lowlevel.checkpoint()
        elif self._led and self._pump_leads and not self._wishes:
            await self._take_over()
        elif self._led or self._wishes:
            await lot.park()
        else:
            self._pump_leads = False
            await self._lead()

    async def _take_over(self) -> None:
        """Until the pump rests; the caller looks whether it still has to wait, and then leads."""
        self._wishes += 1
        try:
            self._connection.interrupt()
            await self._lead_free.park()
        finally:
            self._wishes -= 1
            self._rouse()

    async def _lead(self) -> None:
        """Wait for bytes and hand them over."""
        self._led = True
        try:
            count = await self._connection.receive_into(self._buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            count = 0
        finally:
            self._led = False
            self._rouse()
        if count is not None and not self._closed:
            self._context.run(self._take, count)

    def _take(self, count: int) -> None:
        now = trio.current_time()
        self._dispatch(self.session.receive(self._buffer[:count], now) if count else self.session.eof(now))

    async def _pump_time(self) -> None:
        while True:
            self._wake_clock = trio.Event()
            self._asleep_until = min(self.session.deadline, self._stuck_at)
            with trio.move_on_at(self._asleep_until):
                await self._wake_clock.wait()
            late = trio.current_time() - self._asleep_until
            self._asleep_until = -math.inf  # awake: it looks at the deadline by itself
            if late > limits.LINK_LATE:
                await trio.sleep(limits.LINK_LATE)  # this process stood still: what came meanwhile is read first
            now = trio.current_time()
            if now >= self._stuck_at:
                self._stuck_at = math.inf
                self._dispatch(self.session.fail(Reason.SLOW_CONSUMER, "no progress"))
            elif now >= self.session.deadline:
                self._dispatch(self.session.tick(now))

    # --- events -----------------------------------------------------------------------------------------------------

    def _dispatch(self, events: list[Event]) -> None:
        """Tell what happened; what we owe goes out when all is told."""
        only_data = True
        self._held += 1
        try:
            for event in events:
                if type(event) is StreamData:
                    stream = self.streams.get(event.stream)
                    if stream is not None:
                        stream.on_data(event.data)
                elif type(event) is MessageReceived:
                    self._connection.breathe()  # what was heard is read before more comes
                    self._owner(self, event)
                else:
                    only_data = False
                    self._tell(event)
        finally:
            self._held -= 1
        if not only_data or not events or self.session.queued:  # data and messages alone move no deadline forward
            self.kick()
        elif self._moved:
            self._moved.unpark_all()

    def _tell(self, event: Event) -> None:
        if isinstance(event, OF_STREAMS):
            stream = self.streams.get(event.stream)
            if stream is not None:
                stream.on_event(event)
            return
        if isinstance(event, Closed | Failed):
            self.ended = event
            self._connection.interrupt()
            self._rouse()
            self._lead_free.unpark_all()
            self._room.unpark_all()
            for one in tuple(self.streams.values()):
                one.link_ended()
        self._owner(self, event)
