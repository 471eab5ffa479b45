"""Links of joiners and of those who renew, for a task that talks over one: it sends, waits, and is told why it ended."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from overlay.core.guest_session import GuestFrame, GuestReady, GuestSession
from overlay.core.handshake import Entrance, Side
from overlay.core.limits import GUEST_ROOM, GUESTS_MAX, LINK_LAST_WORDS
from overlay.core.mesh.found import Address
from overlay.core.mesh.load import Load
from overlay.core.session_events import Closed, Failed
from overlay.errors import OverlayError, PeerUnreachable, Refused
from overlay.net.dial import connect_any
from overlay.registry import FrameType, Mode, Reason, Role

Sides = Callable[[Mode], Side | None]
Host = Callable[["GuestLink"], Awaitable[None]]
IN_ORDER = frozenset({Reason.SHUTDOWN, Reason.BUSY, Reason.LOST, Reason.TIMEOUT})


class GuestLink:
    """One connection with its session. One task waits for frames, any task may send."""

    def __init__(self, stream: trio.abc.Stream, session: GuestSession, address: str) -> None:
        self.address = address
        self.session = session
        self._stream = stream
        self._frames: deque[GuestFrame] = deque()
        self._ready: GuestReady | None = None
        self._ended: Closed | Failed | None = None
        self._sending = trio.StrictFIFOLock()

    async def ready(self) -> GuestReady:
        """Both ends hold keys. Raises as `receive`."""
        await self._flush()
        while self._ready is None:
            await self._more()
        return self._ready

    async def receive(self) -> GuestFrame:
        """The next frame.

        Raises:
            Refused: one of the two ends refused what the other said.
            PeerUnreachable: the link has ended otherwise.
        """
        await self._flush()
        while not self._frames:
            await self._more()
        return self._frames.popleft()

    async def send(self, kind: FrameType, body: bytes) -> None:
        """Say something. Nothing happens if the link has ended."""
        self.session.send(kind, body)
        await self._flush()

    async def refuse(self, error: Refused) -> None:
        """End the link for what the peer asked for; it is told the reason."""
        self._take(self.session.fail(error.reason, error.detail))
        await self._last_words()

    @property
    def ended_by_peer(self) -> bool:
        """Whether it was the other end that ended it."""
        return self._ended is not None and self._ended.by_peer

    async def close(self) -> None:
        """Say GOODBYE, if that is still to be said."""
        self._take(self.session.close(Reason.SHUTDOWN))
        await self._last_words()
        await trio.aclose_forcefully(self._stream)

    async def _more(self) -> None:
        """Wait for something of the peer, or for the end."""
        if self._ended is not None:
            raise _why(self._ended, self.address)
        with trio.move_on_at(self.session.deadline) as scope:
            try:
                data = await self._stream.receive_some(GUEST_ROOM)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
        now = trio.current_time()
        if scope.cancelled_caught:
            self._take(self.session.tick(now))
        elif data:
            self._take(self.session.receive(bytearray(data), now))
        else:
            self._take(self.session.eof(now))
        await self._flush()

    def _take(self, events: "list[GuestReady | GuestFrame | Closed | Failed]") -> None:
        for event in events:
            match event:
                case GuestReady():
                    self._ready = event
                case GuestFrame():
                    self._frames.append(event)
                case Closed() | Failed():
                    self._ended = event

    async def _flush(self) -> None:
        async with self._sending:
            while data := self.session.data_to_send():
                with trio.move_on_at(self.session.deadline) as scope:
                    try:
                        await self._stream.send_all(data)
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        return  # the reader sees the end, too
                if scope.cancelled_caught:  # it does not read, and half of what we had to say is with it
                    self._take(self.session.tick(trio.current_time()))
                    await trio.aclose_forcefully(self._stream)
                    return

    async def _last_words(self) -> None:
        with trio.move_on_after(LINK_LAST_WORDS, shield=True):
            await self._flush()


def _why(ended: Closed | Failed, address: str) -> OverlayError:
    """What to raise for the end of a link."""
    detail = ended.detail if isinstance(ended, Failed) else "said by the other end"
    if ended.reason in IN_ORDER:
        return PeerUnreachable(f"the link to {address} has ended: {ended.reason.name.lower()}")
    return Refused(ended.reason, detail)


@asynccontextmanager
async def dial_guest(address: Address, entrance: Entrance, sides: Sides, mode: Mode) -> AsyncIterator[GuestLink]:
    """A link of mode 2 or 3 to a member, whose handshake is done.

    Raises:
        PeerUnreachable: nobody answers there.
        Refused: somebody answers who should not be believed, or who refuses us.
    """
    connected = await connect_any([address])
    shown = f"{address[0]} {address[1]}"
    if connected is None:
        raise PeerUnreachable(f"nobody answers at {shown}")
    link = GuestLink(connected[1], GuestSession(Role.OPENER, entrance, sides, trio.current_time(), mode), shown)
    try:
        await link.ready()
        yield link
    finally:
        await link.close()


class GuestRoom:
    """Takes in guests that dialled us, some at a time, and hands each to the host of its mode."""

    def __init__(
        self, *, load: Load, entrance: Callable[[], Entrance], sides: Sides, hosts: Callable[[Mode], Host | None],
        nursery: trio.Nursery, tell: Callable[[GuestLink, Refused], None],
    ) -> None:
        """`tell` hears of every guest that was refused, by us or by itself."""
        self._tell = tell
        self._load = load
        self._entrance = entrance
        self._sides = sides
        self._hosts = hosts
        self._nursery = nursery
        self._places: dict[int, trio.CancelScope] = {}
        self.refused = 0

    def enter(self, stream: trio.SocketStream, address: Address, place: int) -> None:
        """Carry a connection that has a place among the half-open ones; it keeps that until it ends."""
        if len(self._places) >= GUESTS_MAX:
            self._load.closed(place)
            stream.socket.close()
            return
        self._places[place] = trio.CancelScope()
        self._nursery.start_soon(self._carry, stream, address, place)

    def evict(self, place: int) -> None:
        """This one gave way to a newer one."""
        scope = self._places.get(place)
        if scope is not None:
            scope.cancel()

    async def _carry(self, stream: trio.SocketStream, address: Address, place: int) -> None:
        session = GuestSession(Role.OTHER, self._entrance(), self._sides, trio.current_time(), Mode.JOIN)
        link = GuestLink(stream, session, f"{address[0]} {address[1]}")
        try:
            with self._places[place]:
                await self._talk(link)
        finally:
            del self._places[place]
            self._load.closed(place)
            with trio.CancelScope(shield=True):
                await link.close()

    async def _talk(self, link: GuestLink) -> None:
        """What a guest does ends its link, and nothing else."""
        try:
            ready = await link.ready()
            host = self._hosts(ready.mode)
            if host is None:
                raise Refused(Reason.UNSUPPORTED, f"mode {ready.mode.name.lower()}")
            await host(link)
        except Refused as error:
            self.refused += 1
            self._tell(link, error)
            await link.refuse(error)
        except OverlayError:
            self.refused += 1
