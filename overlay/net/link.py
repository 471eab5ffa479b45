"""One connection with its session: a pump for bytes in, one for bytes out, one for time. It decides nothing.

The reader never waits for the writer. Events go to the owner at once; application messages through a bounded queue, so
that a slow owner slows the peer.
"""

import math
from collections.abc import Callable

import trio

from overlay.core import limits
from overlay.core.evidence import Evidence
from overlay.core.identity import LocalIdentity
from overlay.core.rpc import Calls
from overlay.core.session import Session
from overlay.core.session_events import Closed, Event, Failed, MessageReceived
from overlay.core.session_states import State
from overlay.core.trust import VerifiedPeer
from overlay.errors import PeerUnreachable
from overlay.registry import FrameType, Reason

RECEIVE_SIZE = 256 * 1024
LAST_WORDS = 1.0  # seconds for what is queued when the session ends, GOODBYE the last of it
HANG_UP = 0.5  # seconds for the peer to close its side: what it still sends would reset the connection
MESSAGES_WAITING = 256  # our guess; each is at most 1 MiB, and most are small

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
        self.opened_at = -math.inf
        self.ended: Closed | Failed | None = None
        self._stream = stream
        self._owner = owner
        self._wake_writer = trio.Event()
        self._wake_clock = trio.Event()
        self._moved = trio.Event()
        self._unsent = 0
        self._reading = trio.CancelScope()
        self._flushing = trio.Lock()
        self._cut = False
        self._messages_in, self.messages = trio.open_memory_channel[MessageReceived](MESSAGES_WAITING)

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
            async with trio.open_nursery() as nursery, self._messages_in:
                nursery.start_soon(self._pump_out)
                nursery.start_soon(self._pump_time)
                await self._pump_in()
                with trio.move_on_after(LAST_WORDS):
                    await self._flush()
                nursery.cancel_scope.cancel()
            with trio.move_on_after(HANG_UP):
                await self._hang_up()
            await trio.aclose_forcefully(self._stream)
        done.set()

    # --- what the owner asks ----------------------------------------------------------------------------------------

    def send(self, frame: FrameType, stream: int, body: bytes) -> None:
        """Queue an application message. Raises PeerUnreachable if the link is not open."""
        if not self.is_open:
            raise PeerUnreachable("the link is not open")
        if self._unsent + self.session.queued + len(body) > limits.SEND_QUEUE_MAX:
            self.close(Reason.SLOW_CONSUMER)
            raise PeerUnreachable("the peer takes nothing more", hint="it is slow or stuck; the link was closed")
        self.session.send(frame, stream, body, trio.current_time())
        self.kick()

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
        """Until no call is under way, or the link has ended."""
        while self.is_open and self.calls is not None and self.calls.under_way:
            await self._moved.wait()

    def kick(self) -> None:
        """Something is queued, or a deadline has moved."""
        self._moved.set()
        self._moved = trio.Event()
        self._wake_writer.set()
        self._wake_clock.set()

    # --- pumps ------------------------------------------------------------------------------------------------------

    async def _pump_in(self) -> None:
        while not self._closed:
            try:
                data = await self._receive()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if self._closed:
                return
            now = trio.current_time()
            events = self.session.receive(data, now) if data else self.session.eof(now)
            await self._deliver(events)

    async def _receive(self) -> bytes:
        """The next bytes; nothing if the session ends meanwhile."""
        with trio.CancelScope() as scope:
            self._reading = scope
            return bytes(await self._stream.receive_some(RECEIVE_SIZE))
        return b""

    async def _pump_out(self) -> None:
        while True:
            await self._wake_writer.wait()
            self._wake_writer = trio.Event()
            await self._flush()

    async def _hang_up(self) -> None:
        """Close so that the peer still reads our GOODBYE: a socket closed with unread bytes would reset the connection."""
        async with self._stream:
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                try:
                    await self._stream.send_eof()
                    while await self._stream.receive_some(RECEIVE_SIZE):
                        pass
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return

    async def _flush(self) -> None:
        """Hand everything to the connection; one that makes no progress for 10 s ends the link."""
        async with self._flushing:
            await self._send_all()

    async def _send_all(self) -> None:
        if self._cut:
            return  # half a record is out: what followed it would not decrypt
        data = self.session.data_to_send()
        self._unsent = len(data)
        view = memoryview(data)
        for start in range(0, len(data), RECEIVE_SIZE):
            with trio.move_on_after(limits.SLOW_CONSUMER_AFTER) as scope:
                try:
                    await self._stream.send_all(view[start : start + RECEIVE_SIZE])
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return  # the reader sees the end, too
            if scope.cancelled_caught:
                self._cut = True
                self._dispatch(self.session.fail(Reason.SLOW_CONSUMER, "no progress"))
                return
            self._unsent -= RECEIVE_SIZE
        self._unsent = 0

    async def _pump_time(self) -> None:
        while True:
            self._wake_clock = trio.Event()
            with trio.move_on_at(self.session.deadline):
                await self._wake_clock.wait()
            now = trio.current_time()
            if now >= self.session.deadline:
                await self._deliver(self.session.tick(now))

    # --- events -----------------------------------------------------------------------------------------------------

    async def _deliver(self, events: list[Event]) -> None:
        self.kick()
        for event in events:
            if isinstance(event, MessageReceived):
                await self._hand_over(event)
            else:
                self._tell(event)

    async def _hand_over(self, message: MessageReceived) -> None:
        """Wait until the owner has room; what does not fit when the link has ended is lost with it."""
        try:
            self._messages_in.send_nowait(message)
        except trio.WouldBlock:
            with trio.CancelScope() as scope:
                self._reading = scope
                if not self._closed:
                    await self._messages_in.send(message)

    def _dispatch(self, events: list[Event]) -> None:
        """Events of verbs that the owner called; there is no application message among them."""
        self.kick()
        for event in events:
            self._tell(event)

    def _tell(self, event: Event) -> None:
        if isinstance(event, Closed | Failed):
            self.ended = event
            self._reading.cancel()
        self._owner(self, event)
