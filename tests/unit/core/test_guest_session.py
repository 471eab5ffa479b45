"""Links of joiners and of those who renew: who may say what to whom, how much, and for how long."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from overlay.core import limits
from overlay.core.frames import Frame, pack
from overlay.core.gate import SeenEphemerals
from overlay.core.guest_session import FRAMES, GuestEvent, GuestFrame, GuestReady, GuestSession
from overlay.core.guests import host, joiner
from overlay.core.handshake import Entrance, Side
from overlay.core.session_events import Closed, Failed
from overlay.errors import LocalProtocolError
from overlay.registry import FrameFlag, FrameType, Mode, Reason, Role
from tests.unit.core.authority_kit import DAY, make_member
from tests.unit.core.session_kit import ALICE, BOB, GATE, LAB, OTHER_LAB, TAG, SeededChance, flip, local

JOIN, RESULT = FrameType.JOIN, FrameType.JOIN_RESULT
Sides = Callable[[Mode], Side | None]


def entrance(role: Role, gate: bytes = GATE) -> Entrance:
    return Entrance(chance=SeededChance(role), gate_keys=(gate,), tag=TAG, seen=SeenEphemerals())


def stranger(root_hash: bytes = b"", mesh: bytes = b"") -> Sides:
    """Somebody with a token."""
    static = SeededChance(9).x25519()
    found = joiner(mesh or LAB.mesh_id, root_hash or LAB.root.key_hash, static, lambda: LAB.at)  # type: ignore[arg-type]
    return lambda _mode: found


def member(who: object = BOB) -> Sides:
    return lambda mode: host(mode, local(who), lambda: LAB.trust, lambda: LAB.at)  # type: ignore[arg-type]


class Guests:
    """A guest dials a member."""

    def __init__(
        self, guest: Sides | None = None, other: Sides | None = None, mode: Mode = Mode.JOIN, gate: bytes = GATE
    ) -> None:
        self.now = 1000.0
        self.guest = GuestSession(Role.OPENER, entrance(Role.OPENER, gate), guest or stranger(), self.now, mode)
        self.member = GuestSession(Role.OTHER, entrance(Role.OTHER), other or member(), self.now, mode)
        self.heard: dict[GuestSession, list[GuestEvent]] = {self.guest: [], self.member: []}

    def other(self, one: GuestSession) -> GuestSession:
        return self.member if one is self.guest else self.guest

    def exchange(self, cut: int = 0) -> "Guests":
        """Until nobody has anything to say; `cut`: that many bytes at once."""
        moved = True
        while moved:
            moved = False
            for one in (self.guest, self.member):
                while data := one.data_to_send():
                    moved = True
                    self.deliver(self.other(one), data, cut or len(data))
        return self

    def deliver(self, to: GuestSession, data: bytes, cut: int) -> None:
        for start in range(0, len(data), cut):
            self.heard[to] += to.receive(bytearray(data[start : start + cut]), self.now)

    def forge(self, sender: GuestSession, *frames: Frame) -> list[GuestEvent]:
        """What the other hears of frames that an honest sender would not send."""
        sender.data_to_send()
        sealed = sender._outbox.sealer.seal(b"".join(map(pack, frames)))
        return self.other(sender).receive(bytearray(sealed), self.now)


def ready(**options: Sides) -> Guests:
    pair = Guests(**options).exchange()  # type: ignore[arg-type]
    assert isinstance(pair.heard[pair.guest][0], GuestReady), pair.heard
    return pair


def reason(events: list[GuestEvent]) -> Reason:
    [event] = events
    assert isinstance(event, Failed), event
    return event.reason


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_joiner_without_certificate_reaches_a_member_whose_root_it_holds_the_hash_of(cut: int) -> None:
    pair = Guests().exchange(cut)
    [there], [here] = pair.heard[pair.guest], pair.heard[pair.member]
    assert isinstance(there, GuestReady) and isinstance(here, GuestReady)
    assert there.peer is not None and there.peer.node_id == BOB.node_id
    assert here.peer is None
    assert there.first_h == here.first_h and there.mode is here.mode is Mode.JOIN
    assert pair.guest.peer == there.peer


def test_frames_of_its_mode_pass_both_ways_in_parts_if_they_are_long() -> None:
    pair = ready()
    pair.guest.send(JOIN, b"j" * 100_000)
    pair.member.send(RESULT, b"")
    pair.exchange()
    assert pair.heard[pair.member][1:] == [GuestFrame(JOIN, b"j" * 100_000)]
    assert pair.heard[pair.guest][1:] == [GuestFrame(RESULT, b"")]


def test_a_member_of_another_root_than_the_tokens_is_refused() -> None:
    pair = Guests(guest=stranger(root_hash=OTHER_LAB.root.key_hash)).exchange()
    assert reason(pair.heard[pair.guest]) is Reason.OTHER_MESH


def test_a_root_of_another_mesh_than_the_tokens_is_refused() -> None:
    other = replace(stranger()(Mode.JOIN), mesh_id=LAB.mesh_id)  # type: ignore[type-var]
    wrong = joiner(OTHER_LAB.mesh_id, LAB.root.key_hash, SeededChance(9).x25519(), lambda: LAB.at)
    pair = Guests(guest=lambda _mode: replace(other, verify=wrong.verify)).exchange()  # type: ignore[type-var]
    assert reason(pair.heard[pair.guest]) is Reason.OTHER_MESH


def test_a_member_whose_certificate_has_ended_is_refused_by_a_joiner() -> None:
    late = joiner(LAB.mesh_id, LAB.root.key_hash, SeededChance(9).x25519(), lambda: LAB.at + 2 * DAY)
    pair = Guests(guest=lambda _mode: late).exchange()
    assert reason(pair.heard[pair.guest]) is Reason.CERTIFICATE_EXPIRED


def test_a_joiner_that_shows_a_certificate_is_refused() -> None:
    def shows(_mode: Mode) -> Side:
        found = stranger()(Mode.JOIN)
        assert found is not None
        return replace(found, shows=ALICE.credentials)

    pair = Guests(guest=shows).exchange()
    assert reason(pair.heard[pair.member]) is Reason.MALFORMED


def test_somebody_who_shows_nothing_is_no_member_in_another_mode() -> None:
    def credulous(_mode: Mode) -> Side:
        found = stranger()(Mode.JOIN)
        assert found is not None
        return replace(found, verify=lambda _shown: None)

    pair = Guests(guest=credulous, mode=Mode.RENEW).exchange()
    assert reason(pair.heard[pair.member]) is Reason.MALFORMED


def test_a_stranger_without_the_gate_key_hears_nothing() -> None:
    pair = Guests(gate=bytes(32))
    hello = pair.guest.data_to_send()
    assert reason(pair.member.receive(bytearray(hello), pair.now)) is Reason.BAD_GATE
    assert pair.member.data_to_send() == b""


def test_a_member_that_takes_no_guests_refuses_them() -> None:
    pair = Guests(other=lambda _mode: None).exchange()
    assert reason(pair.heard[pair.member]) is Reason.UNSUPPORTED


def test_members_do_not_talk_to_members_here() -> None:
    pair = Guests(guest=lambda _mode: member(make_member(LAB, "carol"))(Mode.RENEW), mode=Mode.MEMBER).exchange()
    assert reason(pair.heard[pair.member]) is Reason.UNSUPPORTED


@pytest.mark.parametrize("kind", sorted(set(FrameType) - FRAMES[Mode.JOIN] - {FrameType.GOODBYE}))
def test_nothing_but_the_frames_of_its_mode_is_taken_from_a_joiner(kind: FrameType) -> None:
    pair = ready()
    assert reason(pair.forge(pair.guest, Frame(kind, body=b""))) is Reason.UNEXPECTED_FRAME


def test_a_frame_on_a_stream_is_refused() -> None:
    pair = ready()
    assert reason(pair.forge(pair.guest, Frame(JOIN, stream=1, body=b""))) is Reason.UNEXPECTED_FRAME


def test_a_guest_may_say_256_kib_in_all_and_no_more() -> None:
    pair = ready()
    for _ in range(4):
        assert pair.forge(pair.guest, Frame(JOIN, body=bytes(60_000)))[0] == GuestFrame(JOIN, bytes(60_000))
    assert reason(pair.forge(pair.guest, Frame(JOIN, body=bytes(60_000)))) is Reason.TOO_LARGE


def test_who_answers_a_guest_may_say_512_kib_for_the_policy_and_the_chain() -> None:
    pair = ready()
    for _ in range(8):
        assert pair.forge(pair.member, Frame(RESULT, body=bytes(60_000)))[0] == GuestFrame(RESULT, bytes(60_000))
    assert reason(pair.forge(pair.member, Frame(RESULT, body=bytes(60_000)))) is Reason.TOO_LARGE


def test_what_moves_trust_has_its_own_mib() -> None:
    pair = ready()
    part = Frame(FrameType.TRUST_UPDATE, FrameFlag.MORE, 0, bytes(65_000))
    for _ in range(16):
        assert pair.forge(pair.member, part) == []
    assert reason(pair.forge(pair.member, part)) is Reason.TOO_LARGE


def test_the_logs_of_a_joiner_have_their_own_18_mib() -> None:
    pair = ready()
    part = Frame(FrameType.EVIDENCE_PART, body=bytes(65_000))
    for _ in range(limits.JOIN_LOGS_MAX // (65_000 + limits.FRAME_HEADER)):
        assert len(pair.forge(pair.guest, part)) == 1
    assert reason(pair.forge(pair.guest, part)) is Reason.TOO_LARGE


def test_who_asks_for_logs_may_not_send_as_many_bytes_as_who_has_them() -> None:
    pair = ready()
    part = Frame(FrameType.EVIDENCE_PART, body=bytes(60_000))
    for _ in range(8):
        assert len(pair.forge(pair.member, part)) == 1
    assert reason(pair.forge(pair.member, part)) is Reason.TOO_LARGE


def test_who_renews_sends_no_logs() -> None:
    assert FrameType.EVIDENCE_PART not in FRAMES[Mode.RENEW]


def test_a_guest_has_a_minute_and_its_handshake_five_seconds() -> None:
    pair = Guests()
    assert pair.guest.deadline == pair.now + limits.HANDSHAKE_TIMEOUT
    pair.exchange()
    assert pair.member.deadline == pair.now + limits.GUEST_LIFE
    assert pair.member.tick(pair.now + limits.GUEST_LIFE - 0.1) == []
    assert reason(pair.member.tick(pair.now + limits.GUEST_LIFE)) is Reason.TIMEOUT
    assert pair.member.deadline == math.inf
    slow = Guests()
    assert reason(slow.member.tick(slow.now + limits.HANDSHAKE_TIMEOUT)) is Reason.TIMEOUT


def test_a_changed_record_ends_the_link() -> None:
    pair = ready()
    pair.guest.send(JOIN, b"x")
    data = flip(5)(pair.guest.data_to_send())
    assert reason(pair.member.receive(bytearray(data), pair.now)) is Reason.BAD_RECORD
    assert pair.member.receive(b"anything", pair.now) == []


def test_goodbye_ends_it_in_order_and_its_absence_shows() -> None:
    pair = ready()
    assert pair.guest.close(Reason.SHUTDOWN) == [Closed(Reason.SHUTDOWN, by_peer=False)]
    pair.exchange()
    assert pair.heard[pair.member][-1] == Closed(Reason.SHUTDOWN, by_peer=True)
    other = ready()
    assert reason(other.member.eof(other.now)) is Reason.LOST


def test_why_a_guest_is_refused_is_told_to_it() -> None:
    pair = ready()
    assert reason(pair.member.fail(Reason.BAD_INVITE, "expired")) is Reason.BAD_INVITE
    pair.exchange()
    assert pair.heard[pair.guest][-1] == Closed(Reason.BAD_INVITE, by_peer=True)


def test_frames_of_other_modes_are_not_sent() -> None:
    pair = ready()
    with pytest.raises(LocalProtocolError):
        pair.guest.send(FrameType.RENEWAL, b"")
    with pytest.raises(LocalProtocolError):
        Guests().guest.send(JOIN, b"")
    with pytest.raises(LocalProtocolError):
        Guests(guest=lambda _mode: None)
