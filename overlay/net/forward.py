"""Forwarding: services of this host that members may use, and local addresses that lead to services of members.

Who may use a service is asked when a connection begins, and again whenever something about its caller changes.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import trio

from overlay.core.forwarding import (
    HANDLER,
    OFFERS,
    READY,
    Exposed,
    Place,
    check_ready,
    check_service,
    may_use,
    pack_offers,
    pack_opening,
    parse_listen,
    unpack_offers,
    unpack_opening,
)
from overlay.core.keys import NodeId
from overlay.core.limits import WINDOW_LEAST
from overlay.errors import NotAllowed, OverlayError, PeerUnreachable, Refused, UsageError
from overlay.net.background import background
from overlay.net.carrying import Carrier, Traffic, keep_alive, reset
from overlay.net.listening import listening
from overlay.net.peer import Peer
from overlay.net.request import Handler, PeerInfo, Request
from overlay.net.rights import Rights
from overlay.net.statistics import ServiceStatistics
from overlay.net.stream import BrokenStream, Stream

CONNECT_WITHIN: Final = 10.0  # seconds for the service itself: our guess, as much as TCP's first four tries take
READY_WITHIN: Final = CONNECT_WITHIN + 5.0
ASK_WITHIN: Final = 2.0  # seconds for "what do you offer?": our guess
LOOK_EVERY: Final = 10.0  # seconds between two looks at who uses what, beside those when something changes: our guess
BEGINNING_MAX: Final = 128  # connections of one local address that wait for the other end: half of what a link allows

Denied = Callable[[PeerInfo, str], None]


class ForwardEngine(Protocol):
    """What forwarding asks of a node."""

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The linked members, by name."""
        ...

    async def wait_peers_change(self) -> None:
        """Until a peer came, went or changed."""
        ...

    def info_of(self, node_id: NodeId, name: str) -> PeerInfo:
        """What is known of a node now."""
        ...

    @property
    def rights(self) -> Rights:
        """What the policy lets members use."""
        ...

    def open_stream(
        self, peer: NodeId, name: str, body: bytes, *, signed: bool, window: int
    ) -> AbstractAsyncContextManager[Stream]:
        """See `Peer.open_stream`; `window` is the first window."""
        ...


@dataclass(slots=True, eq=False)
class _Exposure:
    """A service of ours and who uses it."""

    exposed: Exposed
    traffic: Traffic = field(default_factory=Traffic)
    carriers: dict[Carrier, PeerInfo] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A local address that leads to a service of a member."""

    service: str
    listen: Place
    peer: str | None = None  # name or id; None for any member that offers the service
    signed: bool = True
    traffic: Traffic = field(default_factory=Traffic, compare=False)


class Forwarding:
    """All services of one node. `engine` is given once it runs."""

    def __init__(self, denied: Denied = lambda _peer, _service: None) -> None:
        self.engine: ForwardEngine | None = None
        self._exposures: dict[str, _Exposure] = {}
        self._forwards: list[Forward] = []
        self._providers: dict[str, NodeId] = {}  # who took the last connection to a service
        self._denied = denied

    @property
    def services(self) -> dict[str, Handler]:
        """For NodeParts."""
        return {OFFERS: self._offers}

    @property
    def streams(self) -> dict[str, Callable[[Stream], Awaitable[None]]]:
        """For NodeParts."""
        return {HANDLER: self._serve}

    def statistics(self) -> tuple[ServiceStatistics, ...]:
        """All services, exposed ones first."""
        exposed = [_figures("exposed", name, str(one.exposed.to), one.traffic) for name, one in self._exposures.items()]
        return (*exposed, *(_figures("forwarded", one.service, str(one.listen), one.traffic) for one in self._forwards))

    async def run(self) -> None:
        """End connections of those who may use a service no more, until cancelled."""
        while True:
            with trio.move_on_after(LOOK_EVERY):
                await self._running().wait_peers_change()
            for exposure in self._exposures.values():
                self._look_at(exposure)

    def _look_at(self, exposure: _Exposure) -> None:
        for carrier, peer in list(exposure.carriers.items()):
            if not self._lets(exposure, self._running().info_of(peer.node_id, peer.name)):
                carrier.cut("no longer allowed")

    def _lets(self, exposure: _Exposure, caller: PeerInfo) -> bool:
        """By our own rules, and by what the policy says of a service of that name."""
        exposed = exposure.exposed
        return may_use(exposed.rules, caller) and self._running().rights.refusal(caller, exposed.service) is None

    def _running(self) -> ForwardEngine:
        if self.engine is None:
            raise OverlayError("the node does not run yet")
        return self.engine

    # --- ours, for members --------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def expose(self, service: str, to: str, allow: Iterable[str]) -> AsyncIterator[None]:
        """Let members use a service of this host, for the length of the block; its connections end with it.

        Args:
            service: the name by which they ask for it.
            to: where it is: `host:port`, `[ipv6]:port` or `unix:/path`.
            allow: rules, see `parse_rule`; who fits one of them may use it.

        Raises:
            UsageError: a text that is wrong, or a name that is exposed already.
        """
        exposure = _Exposure(Exposed.of(service, to, tuple(allow)))
        if service in self._exposures:
            raise UsageError(f"{service} is exposed already, as {self._exposures[service].exposed.to}")
        self._exposures[service] = exposure
        try:
            yield
        finally:
            del self._exposures[service]
            for carrier in exposure.carriers:
                carrier.cut("no longer exposed")

    async def _offers(self, request: Request) -> bytes:
        await trio.lowlevel.checkpoint()
        mine = self._exposures.items()
        return pack_offers(name for name, one in mine if self._lets(one, request.peer))

    async def _serve(self, stream: Stream) -> None:
        """One connection of a member. Whoever may not use a service is told the same as where there is none."""
        try:
            service = unpack_opening(stream.body)
        except Refused as error:
            raise NotAllowed(str(error)) from None
        exposure = self._exposures.get(service)
        if exposure is None or not self._lets(exposure, stream.peer):
            if exposure is not None:
                exposure.traffic.refused += 1
            self._denied(stream.peer, service)
            raise NotAllowed(f"{service} is not offered to {stream.peer.name}")
        connection = await self._connect(exposure)
        carrier = Carrier(connection, stream, exposure.traffic)
        exposure.carriers[carrier] = stream.peer
        try:
            await stream.send_all(READY)
            await carrier.run()
        except BrokenStream:
            reset(connection)
        finally:
            del exposure.carriers[carrier]

    async def _connect(self, exposure: _Exposure) -> trio.SocketStream:
        to = exposure.exposed.to
        try:
            with trio.fail_after(CONNECT_WITHIN):
                if to.path:
                    found = await trio.open_unix_socket(to.path)
                else:
                    found = await trio.open_tcp_stream(to.host, to.port)
        except (OSError, trio.TooSlowError) as error:
            exposure.traffic.failed += 1
            why = "does not answer" if isinstance(error, trio.TooSlowError) else "does not take the connection"
            raise PeerUnreachable(f"the service behind {exposure.exposed.service} {why}") from None
        keep_alive(found)
        return found

    # --- members', for programs of this host --------------------------------------------------------------------------

    @asynccontextmanager
    async def forward(
        self, service: str, listen: str, *, peer: str | None = None, signed: bool = True
    ) -> AsyncIterator[Forward]:
        """Listen on a local address for the length of the block; each connection is carried to the service.

        Args:
            service: its name.
            listen: a port of 127.0.0.1 (0 for any), `host:port`, `[ipv6]:port` or `unix:/path`.
            peer: name or id of the member to use; None for whoever offers the service.
            signed: whether each side signs what it sends, so that it can be shown to others.

        Raises:
            UsageError: a text that is wrong.
            HostLacks: there cannot be listened.
        """
        service, place = check_service(service), parse_listen(listen)
        async with listening(place) as (listener, bound), background() as tasks:
            one = Forward(service=service, listen=bound, peer=peer, signed=signed)
            use = partial(self._use, one, trio.CapacityLimiter(BEGINNING_MAX))
            tasks.start_soon(partial(trio.serve_listeners, use, [listener], handler_nursery=tasks))
            self._forwards.append(one)
            try:
                yield one
            finally:
                self._forwards.remove(one)

    async def _use(self, one: Forward, beginning: trio.CapacityLimiter, connection: trio.SocketStream) -> None:
        """One local connection, from its begin to its end; a member that does not take it is not the last one to ask."""
        keep_alive(connection)
        async with AsyncExitStack() as stack:
            try:
                async with beginning:
                    stream = await self._begin(one, stack)
            except (OverlayError, trio.BrokenResourceError):
                one.traffic.failed += 1
                reset(connection)
                return
            except trio.Cancelled:
                reset(connection)
                raise
            await Carrier(connection, stream, one.traffic).run()

    async def _begin(self, one: Forward, stack: AsyncExitStack) -> Stream:
        """A stream to somebody whose service has taken the connection. Raises PeerUnreachable or what the last one said."""
        problem: OverlayError = PeerUnreachable(f"no linked member offers {one.service}")
        async for peer in self._candidates(one):
            try:
                async with AsyncExitStack() as trial:
                    opening = self._running().open_stream(
                        peer, HANDLER, pack_opening(one.service), signed=one.signed, window=WINDOW_LEAST
                    )
                    stream = await trial.enter_async_context(opening)
                    with trio.fail_after(READY_WITHIN):
                        check_ready(await stream.receive_some(len(READY)))
                    stack.push_async_exit(trial.pop_all())
            except (OverlayError, trio.TooSlowError) as error:
                self._providers.pop(one.service, None)
                problem = error if isinstance(error, OverlayError) else PeerUnreachable("the service did not answer in time")
            else:
                self._providers[one.service] = peer
                return stream
        raise problem

    async def _candidates(self, one: Forward) -> AsyncIterator[NodeId]:
        """Whom to ask: the member that was named; else who took the last connection, then all who offer the service."""
        peers = {peer.node_id: peer for peer in self._running().peers}
        if one.peer is not None:
            for peer in peers.values():
                if one.peer in (peer.name, str(peer.node_id)):
                    yield peer.node_id
            return
        last = self._providers.get(one.service)
        if last is not None and last in peers:
            yield last
        for node_id in await _offering(one.service, [peer for peer in peers.values() if peer.node_id != last]):
            yield node_id


async def _offering(service: str, peers: Iterable[Peer]) -> list[NodeId]:
    """Who of them offers a service to us, by name; who does not answer in time does not."""
    found: list[tuple[str, NodeId]] = []

    async def ask(peer: Peer) -> None:
        try:
            if service in unpack_offers(await peer.call(OFFERS, timeout=ASK_WITHIN)):
                found.append((peer.name, peer.node_id))
        except OverlayError:
            return

    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(ask, peer)
    return [node_id for _, node_id in sorted(found)]


def _figures(kind: str, name: str, place: str, traffic: Traffic) -> ServiceStatistics:
    return ServiceStatistics(
        kind=kind, name=name, place=place, open=traffic.open, connections=traffic.connections, refused=traffic.refused,
        failed=traffic.failed, broken=traffic.broken, received=traffic.received, sent=traffic.sent,
    )  # fmt: skip
