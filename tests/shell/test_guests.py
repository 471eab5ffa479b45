"""Links of guests over loopback: who may say what, how many at once, and how they end for the task that talks over them."""

from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio
import trio.testing

from overlay.app.compose import Assembly
from overlay.core import limits
from overlay.core.certificates import VerifiedCertificate
from overlay.core.guest_session import GuestSession
from overlay.core.guests import joiner, renewer
from overlay.core.handshake import Entrance, Side
from overlay.core.identity import LocalIdentity
from overlay.core.join_frames import Renewal
from overlay.core.join_result import JoinResult
from overlay.core.keys import NodeId
from overlay.core.renewal import Attempt
from overlay.core.trust import TrustSet, VerifiedPeer
from overlay.errors import OverlayError, PeerUnreachable, Refused
from overlay.events import LinkRefused
from overlay.net.guest import GuestLink, dial_guest
from overlay.net.ports import TrustKeeper
from overlay.net.system import SystemChance, wall_clock
from overlay.registry import FrameType, Mode, Reason, Role
from tests.shell.authority_kit import PATIENCE, Running, Visitor, admitted, founded, linked, opened, token_of


def entrance(gate: bytes) -> Entrance:
    return Entrance(chance=SystemChance(), gate_keys=(gate,), tag=bytes(8))


async def ended(link: GuestLink) -> OverlayError:
    """Why it ended."""
    with trio.fail_after(PATIENCE):
        try:
            while True:
                await link.receive()
        except OverlayError as error:
            return error


async def test_a_frame_that_no_joiner_sends_ends_its_link_and_nothing_else(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "carol")) as (alice, _carol):
        visitor = Visitor(await token_of(alice))
        async with visitor.at(alice) as visit:
            assert (await visit.says(FrameType.TRUST_UPDATE, b"\xa0")).reason is Reason.UNEXPECTED_FRAME
        assert [peer.name for peer in alice.node.peers] == ["carol"]
        async with visitor.at(alice) as visit:
            assert (await visit.asks()).approved


async def test_a_body_that_is_no_join_is_refused_and_the_host_lives(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        visitor = Visitor(await token_of(alice))
        async with visitor.at(alice) as visit:
            assert (await visit.says(FrameType.JOIN, b"\xff")).reason is Reason.MALFORMED
        async with visitor.at(alice) as visit:
            assert (await visit.asks()).approved


async def test_a_guest_that_says_too_much_is_cut_off(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        visitor = Visitor(await token_of(alice))
        async with visitor.at(alice) as visit:
            for _ in range(3):
                await visit.link.send(FrameType.JOIN, bytes(limits.GUEST_BYTES_MAX // 2))
            assert isinstance(await ended(visit.link), OverlayError)
        assert alice.node.engine.guests.refused == 1


async def test_a_guest_with_another_gate_key_is_not_answered(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        token = await token_of(alice)
        side = joiner(token.mesh_id, token.root_hash, SystemChance().x25519(), wall_clock)
        with pytest.raises(OverlayError):
            async with dial_guest(token.addresses[0], entrance(bytes(32)), lambda _mode: side, Mode.JOIN):
                pass


async def test_nobody_at_the_address_is_said_so(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        token = await token_of(alice)
    side = joiner(token.mesh_id, token.root_hash, SystemChance().x25519(), wall_clock)
    with pytest.raises(PeerUnreachable, match="nobody answers"):
        async with dial_guest(token.addresses[0], entrance(token.gate_key), lambda _mode: side, Mode.JOIN):
            pass


async def test_a_guest_may_leave_at_any_time(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        visitor = Visitor(await token_of(alice))
        async with visitor.at(alice):
            pass
        async with visitor.at(alice) as visit:
            await visit.link._stream.aclose()
        async with visitor.at(alice) as visit:
            assert (await visit.asks()).approved


async def test_a_host_has_only_so_many_places_and_gives_them_again(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        visitor = Visitor(await token_of(alice))
        with pytest.raises(OverlayError):
            async with AsyncExitStack() as stack:
                for _ in range(limits.GUESTS_MAX + 1):
                    await stack.enter_async_context(visitor.at(alice))
        assert await approved_at_last(visitor, alice)


async def approved_at_last(visitor: Visitor, host: Running) -> bool:
    """As soon as a place is free again."""
    with trio.fail_after(PATIENCE):
        while True:
            with suppress(PeerUnreachable):
                async with visitor.at(host) as visit:
                    return (await visit.asks()).approved


async def test_a_member_of_another_mesh_gets_no_link_of_mode_3(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with opened(founded(tmp_path)) as alice, opened(founded(tmp_path / "other")) as other:
        engine = other.node.engine
        gate = (await token_of(alice)).gate_key
        side = replace(
            renewer(engine.identity, engine.parts.trust, wall_clock), mesh_id=alice.node.mesh_id, verify=lambda _shown: None
        )
        with pytest.raises(OverlayError):
            async with dial_guest(("127.0.0.1", alice.node.port), entrance(gate), lambda _mode: side, Mode.RENEW) as link:
                raise await ended(link)
        assert alice.node.engine.guests.refused >= 1
        assert Reason.OTHER_MESH in [event.reason for event in alice.all(LinkRefused)]


@dataclass
class Deaf:
    """Lets guests in, and has nobody who talks to them."""

    keeper: TrustKeeper

    def side(self, mode: Mode) -> Side | None:
        """As the keeper."""
        return self.keeper.side(mode)

    def host(self, _mode: Mode) -> None:
        """Nobody."""

    def peer_opened(self, peer: NodeId) -> None:
        """As the keeper."""
        self.keeper.peer_opened(peer)

    def received(self, peer: VerifiedPeer, kind: FrameType, body: bytes) -> None:
        """As the keeper."""
        self.keeper.received(peer, kind, body)


async def test_a_mode_that_nobody_hosts_is_refused(tmp_path: Path) -> None:
    def deaf(assembly: Assembly) -> Assembly:
        assert assembly.parts.trust_keeper is not None
        return replace(assembly, parts=replace(assembly.parts, trust_keeper=Deaf(assembly.parts.trust_keeper)))

    async with opened(founded(tmp_path), alter=deaf) as alice:
        token = await token_of(alice)
        side = joiner(token.mesh_id, token.root_hash, SystemChance().x25519(), wall_clock)
        async with dial_guest(token.addresses[0], entrance(token.gate_key), lambda _mode: side, Mode.JOIN) as link:
            found = await ended(link)
            assert isinstance(found, Refused) and found.reason is Reason.UNSUPPORTED


def shows(one: Running) -> tuple[LocalIdentity, TrustSet]:
    return one.node.engine.identity, one.node.seat.ledger.trust


async def test_a_member_gets_a_link_of_mode_3_and_nothing_of_the_application_passes_there(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, bob):
        identity, trust = shows(bob)
        side = renewer(identity, lambda: trust, wall_clock)
        gate = (await token_of(alice)).gate_key
        async with dial_guest(("127.0.0.1", alice.node.port), entrance(gate), lambda _mode: side, Mode.RENEW) as link:
            ready = await link.ready()
            assert ready.peer is not None and ready.peer.node_id == alice.node.node_id
            await link.send(FrameType.ORDER, b"\xff")
            assert isinstance(await ended(link), Refused)
        assert [peer.name for peer in alice.node.peers] == ["bob"]


async def test_a_guest_that_does_not_read_holds_its_place_no_longer_than_one_that_does_not_speak(
    autojump_clock: trio.testing.MockClock,
) -> None:
    session = GuestSession(Role.OTHER, entrance(bytes(32)), lambda _mode: None, trio.current_time(), Mode.JOIN)
    deadline = session.deadline

    async def never() -> None:
        await trio.sleep_forever()

    ours, _theirs = trio.testing.memory_stream_pair()
    ours.send_stream.send_all_hook = never
    link = GuestLink(ours, session, "somewhere")
    session.data_to_send = lambda: b"what nobody reads"  # type: ignore[method-assign]
    with trio.fail_after(1000), pytest.raises(OverlayError):
        await link.receive()
    assert trio.current_time() == pytest.approx(deadline, abs=1.0)


async def test_a_member_that_asks_for_renewals_without_end_is_answered_one_by_one(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, bob):
        own = bob.node.engine.identity
        answered = 0

        async def renew(_renewal: Renewal, _old: VerifiedCertificate) -> JoinResult:
            nonlocal answered
            answered += 1
            await trio.sleep_forever()
            raise AssertionError

        restricted = alice.node.seat._restricted
        assert restricted is not None
        restricted.renew = renew
        side = renewer(own, bob.node.engine.parts.trust, wall_clock)
        address, gate = ("127.0.0.1", alice.node.port), entrance((await token_of(alice)).gate_key)
        async with dial_guest(address, gate, lambda _mode: side, Mode.RENEW) as link:
            attempt = Attempt(csr=b"csr", serial=1, not_before=wall_clock())
            for _ in range(50):
                await link.send(FrameType.RENEWAL, attempt.renewal.pack())
            await link.send(FrameType.ORDER, b"\xff")  # ends the link, after all that came before it
            assert isinstance(await ended(link), Refused)
        assert answered == 1
