"""Links of mode 3 between members that have no open link: so a mesh that was switched off renews itself.

Whoever's certificate has ended dials everybody whom it knows; both sides keep such a link while it lives (60 s), and speak of
trust, orders and signatures over it as over an open one. Nothing of the application passes there.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from overlay.core.authority.revoking import check_not_out
from overlay.core.certificates import VerifiedCertificate
from overlay.core.guests import renewer
from overlay.core.join_frames import Renewal
from overlay.core.join_result import JoinResult
from overlay.core.keys import NodeId
from overlay.core.mesh.found import Address
from overlay.core.revocation_profile import serial_bytes
from overlay.core.trust import VerifiedPeer
from overlay.errors import OverlayError, PeerUnreachable, Refused
from overlay.events import NodeEvent
from overlay.net.background import spawn
from overlay.net.guest import GuestLink, dial_guest
from overlay.net.node import Node
from overlay.registry import FrameType, Mode, Reason

LOOK: Final = 1.0  # seconds between two looks at whom to dial
ANSWER_WITHIN: Final = 25.0
TAG: Final = bytes(8)

Received = Callable[[VerifiedPeer, FrameType, bytes], None]
Renew = Callable[[Renewal, VerifiedCertificate], Awaitable[JoinResult]]


class Restricted:
    """All such links of one node, and open ones before them."""

    def __init__(
        self, engine: Node, addresses_of: Callable[[NodeId], tuple[str, ...]], received: Received, nursery: trio.Nursery
    ) -> None:
        self._engine = engine
        self._addresses_of = addresses_of
        self._received = received
        self._nursery = nursery
        self._links: dict[NodeId, tuple[GuestLink, VerifiedPeer]] = {}
        self._talking: list[tuple[GuestLink, VerifiedPeer]] = []  # all of them: one node may have two
        self._answering: set[GuestLink] = set()
        self._answers: dict[NodeId, trio.MemorySendChannel[JoinResult]] = {}
        self._dialling: set[Address] = set()
        self._met: dict[Address, NodeId] = {}  # who answered where
        self.renew: Renew | None = None
        self.opened: Callable[[NodeId], None] = lambda _node: None

    # --- Engine of the keeper: an open link, else one of ours --------------------------------------------------------

    def tell(self, peer: NodeId, frame: FrameType, body: bytes) -> bool:
        """Send a frame of trust."""
        if self._engine.tell(peer, frame, body):
            return True
        found = self._links.get(peer)
        if found is None:
            return False
        spawn(self._nursery, found[0].send, frame, body)
        return True

    def trust_moved(self) -> None:
        """Judge everybody anew."""
        self._engine.trust_moved()
        for link, peer in tuple(self._talking):
            certificate = peer.certificate
            try:
                check_not_out(
                    peer.node_id, self._engine.parts.trust(), (), self._engine.parts.calendar(),
                    serial=serial_bytes(certificate.serial), ek_tag=certificate.facts.ek_tag,
                )
            except Refused as error:
                spawn(self._nursery, link.refuse, error)

    def gate_moved(self) -> None:
        """There is another gate key."""
        self._engine.gate_moved()

    def linked_ids(self) -> tuple[NodeId, ...]:
        """Who can be told something."""
        return tuple(dict.fromkeys((*self._engine.linked_ids(), *self._links)))

    def emit(self, event: NodeEvent) -> None:
        """Tell observers."""
        self._engine.emit(event)

    def linked(self, node_id: NodeId) -> bool:
        """Whether it can be told something."""
        return node_id in self._links or self._engine.verified_peer(node_id) is not None

    def peer(self, node_id: NodeId) -> VerifiedPeer | None:
        """What it has shown."""
        found = self._engine.verified_peer(node_id)
        if found is None and node_id in self._links:
            return self._links[node_id][1]
        return found

    # --- links ------------------------------------------------------------------------------------------------------

    async def host(self, link: GuestLink) -> None:
        """Somebody has dialled us."""
        ready = await link.ready()
        if ready.peer is None:
            raise Refused(Reason.BAD_CERTIFICATE, "who renews shows a certificate")
        await self._talk(link, ready.peer)

    async def run(self, needed: Callable[[], bool]) -> None:
        """Dial everybody whose link is missing, whenever that is needed: our own certificate is over, or policies differ."""
        while True:
            if needed():
                for address in self._worth_dialling():
                    self._dialling.add(address)
                    spawn(self._nursery, self._dial, address)
            await trio.sleep(LOOK)

    def _worth_dialling(self) -> list[Address]:
        """Where members were, or may be now: whoever answers shows who it is."""
        known = [_read_address(text) for node in self._engine.parts.known() for text in self._addresses_of(node)]
        found = dict.fromkeys((*known, *self._engine.pool.target_addresses()))
        return [one for one in found if one not in self._dialling and not self._is_linked_at(one)]

    def _is_linked_at(self, address: Address) -> bool:
        peer = self._met.get(address)
        return peer is not None and (peer == self._engine.identity.node_id or self.linked(peer))

    async def _dial(self, address: Address) -> None:
        try:
            await self._dial_at(address)
        finally:
            self._dialling.discard(address)

    async def _dial_at(self, address: Address) -> None:
        engine = self._engine
        side = renewer(engine.identity, engine.parts.trust, engine.parts.calendar)
        try:
            async with dial_guest(address, engine.entrance(TAG), lambda _mode: side, Mode.RENEW) as link:
                ready = await link.ready()
                if ready.peer is not None:
                    self._met[address] = ready.peer.node_id
                    await self._talk(link, ready.peer)
        except Refused as error:
            if error.reason is Reason.SELF_DIAL:
                self._met[address] = engine.identity.node_id
        except OverlayError:
            return

    async def _talk(self, link: GuestLink, peer: VerifiedPeer) -> None:
        """Until it ends."""
        self._links[peer.node_id] = link, peer
        self._talking.append((link, peer))
        self.opened(peer.node_id)
        try:
            while True:
                frame = await link.receive()
                if frame.type is FrameType.RENEWAL:
                    self._begin_answer(link, peer, frame.body)
                elif frame.type is FrameType.JOIN_RESULT:
                    self._take_answer(peer.node_id, frame.body)
                else:
                    self._received(peer, frame.type, frame.body)
        finally:
            self._talking.remove((link, peer))
            if self._links.get(peer.node_id) == (link, peer):
                del self._links[peer.node_id]
                channel = self._answers.get(peer.node_id)
                if channel is not None:
                    channel.close()  # whoever waits for an answer waits no more

    def _begin_answer(self, link: GuestLink, peer: VerifiedPeer, body: bytes) -> None:
        """One at a time on each link: a question that comes before the answer to the last one is not heard."""
        if link not in self._answering:
            self._answering.add(link)
            spawn(self._nursery, self._answer, link, peer, body)

    async def _answer(self, link: GuestLink, peer: VerifiedPeer, body: bytes) -> None:
        assert self.renew is not None
        try:
            result = await self.renew(Renewal.unpack(body), peer.certificate)
        except OverlayError as error:  # a disk that is full ends no node either
            result = JoinResult(reason=error.reason if isinstance(error, Refused) else Reason.INTERNAL)
        finally:
            self._answering.discard(link)
        await link.send(FrameType.JOIN_RESULT, result.pack())

    def _take_answer(self, peer: NodeId, body: bytes) -> None:
        channel = self._answers.get(peer)
        if channel is None:
            return
        try:
            channel.send_nowait(JoinResult.unpack(body))
        except (trio.WouldBlock, trio.ClosedResourceError):
            raise Refused(Reason.UNEXPECTED_FRAME, "answers that nobody asked for") from None

    async def ask(self, member: NodeId, renewal: Renewal) -> JoinResult:
        """A signer's answer over such a link; one question at a time. Raises PeerUnreachable."""
        found = self._links.get(member)
        if found is None or member in self._answers:
            raise PeerUnreachable(f"there is no link to {member.short}")
        self._answers[member], answers = trio.open_memory_channel[JoinResult](8)
        try:
            await found[0].send(FrameType.RENEWAL, renewal.pack())
            with trio.move_on_after(ANSWER_WITHIN):
                return await answers.receive()
        except trio.EndOfChannel:
            raise PeerUnreachable(f"the link to {member.short} has ended") from None
        finally:
            del self._answers[member]
        raise PeerUnreachable(f"{member.short} does not answer")


def _read_address(text: str) -> Address:
    """From `host port`."""
    host, _, port = text.rpartition(" ")
    return host, int(port)
