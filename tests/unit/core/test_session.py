"""An open link: what it takes and refuses, how it ends, how credentials change under it, when it pings."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay.core import limits
from overlay.core.admission import pack_goodbye
from overlay.core.endorsement import make_endorsement
from overlay.core.evidence import Appraisal
from overlay.core.frames import Frame
from overlay.core.limits import AttestTimes
from overlay.core.liveness import Pong
from overlay.core.session import APPLICATION, STREAM
from overlay.core.session_events import Closed, CredentialsChanged, Failed, LeaseRenewed, MessageReceived, Ponged
from overlay.core.session_states import State
from overlay.core.trust import Credentials
from overlay.core.wire import UInt, make_map, open_map
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import RESERVED_FRAMES, EvidenceKind, FrameType, Reason
from tests.unit.core.authority_kit import DAY, HOUR, Member, make_member
from tests.unit.core.session_kit import (
    ALICE,
    BOB,
    LAB,
    MORE,
    OTHER_LAB,
    End,
    Pair,
    context,
    evidence_for,
    flip,
    local,
    raw_frame,
    records,
    refusal,
)

CALL = FrameType.CALL


def told(pair: Pair, refuser: End) -> Reason:
    """The reason in the GOODBYE of an end that has refused the other on an open link."""
    [event] = pair.move(refuser)
    assert isinstance(event, Closed) and event.by_peer
    return event.reason


# --- messages -------------------------------------------------------------------------------------------------------


def test_an_open_link_delivers_messages_with_the_credentials_they_came_under() -> None:
    pair = Pair.established()
    assert pair.say(pair.alice, b"hello") == [MessageReceived(CALL, 1, b"hello", ALICE.peer)]
    assert pair.say(pair.bob, b"hello back", FrameType.REPLY) == [MessageReceived(FrameType.REPLY, 2, b"hello back", BOB.peer)]


def test_the_opener_uses_odd_streams_and_the_other_even_ones_and_none_twice() -> None:
    pair = Pair.established()
    assert [pair.alice.session.next_stream() for _ in range(3)] == [1, 3, 5]
    assert [pair.bob.session.next_stream() for _ in range(3)] == [2, 4, 6]


@pytest.mark.parametrize("size", [0, 1, 65_511, 65_512, 200_000, limits.MESSAGE_MAX])
def test_a_message_of_any_size_arrives_whole(size: int) -> None:
    pair = Pair.established()
    [event] = pair.say(pair.alice, b"x" * size)
    assert isinstance(event, MessageReceived)
    assert event.body == b"x" * size


@pytest.mark.parametrize("kind", sorted(APPLICATION))
def test_a_message_above_the_limit_of_its_type_is_refused(kind: FrameType) -> None:
    most = {FrameType.ITEMS: limits.ITEMS_MAX + limits.ENTRY_MAX}.get(kind, limits.MESSAGE_MAX)
    pair = Pair.established()
    assert len(pair.say(pair.alice, bytes(most), kind)) == 1
    assert refusal(pair.say(pair.alice, bytes(most + 1), kind)) is Reason.TOO_LARGE
    assert told(pair, pair.bob) is Reason.TOO_LARGE


def test_parts_of_several_messages_may_alternate() -> None:
    pair = Pair.established()
    events = pair.forge(
        pair.alice, Frame(CALL, MORE, 1, b"on"), Frame(CALL, MORE, 3, b"tw"), Frame(CALL, stream=3, body=b"o"),
        Frame(CALL, stream=1, body=b"e"),
    )  # fmt: skip
    assert [event.body for event in events if isinstance(event, MessageReceived)] == [b"two", b"one"]


def test_more_than_64_messages_in_parts_are_refused() -> None:
    pair = Pair.established()
    parts = [Frame(CALL, MORE, 2 * number + 1, b"x") for number in range(65)]
    assert pair.forge(pair.alice, *parts[:64]) == []
    assert refusal(pair.forge(pair.alice, parts[64])) is Reason.TOO_LARGE


def test_nothing_is_sent_on_a_link_that_is_not_open_and_nothing_but_application_messages() -> None:
    with pytest.raises(LocalProtocolError, match="CALL in state AWAIT_MESSAGE_2"):
        Pair().alice.session.send(CALL, 1, b"", 0.0)
    with pytest.raises(LocalProtocolError, match="GOODBYE in state OPEN"):
        Pair.established().alice.session.send(FrameType.GOODBYE, 0, b"", 0.0)


def test_what_waits_is_counted_until_it_is_taken() -> None:
    pair = Pair.established()
    assert pair.alice.session.queued == 0
    pair.alice.session.send(CALL, 1, bytes(1000), pair.now)
    assert pair.alice.session.queued == 1008
    pair.alice.session.data_to_send()
    assert pair.alice.session.queued == 0


# --- frames ---------------------------------------------------------------------------------------------------------

CONTROL_ON_OPEN_LINK = {
    FrameType.GOODBYE, FrameType.OFFER, FrameType.INIT, FrameType.RESP, FrameType.DONE, FrameType.CONFIRM,
    FrameType.ATTEST_OPEN, FrameType.ROUND_NONCE, FrameType.EVIDENCE, FrameType.CREDENTIALS, FrameType.PING, FrameType.PONG,
    FrameType.UNSUPPORTED, FrameType.EVIDENCE_PART,
}  # fmt: skip
NEVER_ON_OPEN_LINK = {
    FrameType.CHALLENGE, FrameType.PROOF, FrameType.VERDICT, FrameType.JOIN, FrameType.JOIN_CHALLENGE, FrameType.JOIN_ANSWER,
    FrameType.JOIN_RESULT, FrameType.RENEWAL,
}  # fmt: skip


def test_every_frame_type_has_its_place() -> None:
    kinds = [APPLICATION, STREAM, CONTROL_ON_OPEN_LINK, NEVER_ON_OPEN_LINK, RESERVED_FRAMES]
    assert sorted(kind for some in kinds for kind in some) == sorted(FrameType)


def admission_states() -> dict[State, Callable[[], Pair]]:
    """Ways to get Bob into each state of admission and beyond."""

    def half(prover: str) -> Pair:
        pair = Pair.admitting()
        end = getattr(pair, prover)
        end.take(end.session.supply_evidence(evidence_for(end.wanted), pair.now))
        pair.exchange()
        return pair

    return {
        State.AWAIT_CHALLENGE: lambda: Pair.agreed()[0],
        State.ADMITTING: Pair.admitting,
        State.ADMITTED_PEER: lambda: half("alice"),
        State.ADMITTED_US: lambda: half("bob"),
        State.OPEN: Pair.established,
    }  # fmt: skip


ALLOWED = {
    State.AWAIT_CHALLENGE: {FrameType.CHALLENGE},
    State.ADMITTING: {FrameType.PROOF, FrameType.VERDICT, FrameType.GOODBYE, FrameType.EVIDENCE_PART},
    State.ADMITTED_PEER: {FrameType.PROOF, FrameType.VERDICT, FrameType.GOODBYE, FrameType.EVIDENCE_PART},
    State.ADMITTED_US: {FrameType.PROOF, FrameType.VERDICT, FrameType.GOODBYE, FrameType.EVIDENCE_PART},
    State.OPEN: CONTROL_ON_OPEN_LINK | APPLICATION | STREAM | RESERVED_FRAMES,
}


@pytest.mark.parametrize(
    ("state", "kind"), [(state, kind) for state, kind in product(ALLOWED, FrameType) if kind not in ALLOWED[state]],
    ids=lambda one: one.name,
)  # fmt: skip
def test_a_frame_out_of_its_place_is_refused(state: State, kind: FrameType) -> None:
    pair = admission_states()[state]()
    assert pair.bob.session.state is state
    assert refusal(pair.forge(pair.alice, Frame(kind, body=make_map(1)))) is Reason.UNEXPECTED_FRAME


@pytest.mark.parametrize("kind", sorted(RESERVED_FRAMES), ids=lambda kind: kind.name)
def test_a_reserved_frame_is_answered_with_unsupported(kind: FrameType) -> None:
    pair = Pair.established()
    assert pair.forge(pair.alice, Frame(kind, MORE, 7, b"part one"), Frame(kind, stream=7, body=b"part two")) == []
    [answer] = pair.bob.swallow()
    assert answer == raw_frame(FrameType.UNSUPPORTED, make_map(int(kind), 7))
    assert pair.deliver(pair.bob.sealer.seal(answer), to=pair.alice) == []
    assert pair.states == (State.OPEN, State.OPEN)


@pytest.mark.parametrize("kind", [0x00, 0x1A, 0x24, 0x7F])
def test_an_unknown_low_frame_type_closes(kind: int) -> None:
    pair = Pair.established()
    assert refusal(pair.forge(pair.alice, raw_frame(kind))) is Reason.UNSUPPORTED


@pytest.mark.parametrize("kind", [0x80, 0xFF])
def test_an_unknown_high_frame_type_is_skipped(kind: int) -> None:
    pair = Pair.established()
    assert pair.forge(pair.alice, raw_frame(kind, b"news"), Frame(CALL, stream=1, body=b"old")) != []
    assert pair.bob.heard == [b"old"]


def test_an_unknown_flag_closes() -> None:
    pair = Pair.established()
    assert refusal(pair.forge(pair.alice, raw_frame(CALL, flags=2, stream=1))) is Reason.MALFORMED


@pytest.mark.parametrize("changes", [{"flags": 1}, {"stream": 3}])
@pytest.mark.parametrize("kind", sorted(CONTROL_ON_OPEN_LINK), ids=lambda kind: kind.name)
def test_a_control_frame_in_parts_or_on_a_stream_is_refused(kind: FrameType, changes: dict[str, int]) -> None:
    pair = Pair.established()
    assert refusal(pair.forge(pair.alice, raw_frame(kind, make_map(1, 1), **changes))) is Reason.MALFORMED


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FrameType.GOODBYE, make_map(0)), (FrameType.PING, make_map(1)), (FrameType.PONG, make_map(1, 1, 1)),
        (FrameType.UNSUPPORTED, b""), (FrameType.ATTEST_OPEN, make_map(0)), (FrameType.ROUND_NONCE, make_map(1, bytes(31))),
        (FrameType.EVIDENCE, make_map(1)), (FrameType.CREDENTIALS, make_map(b"e", b"l")),
    ],
    ids=lambda one: getattr(one, "name", ""),
)  # fmt: skip
def test_a_control_frame_of_another_form_is_refused(kind: FrameType, body: bytes) -> None:
    pair = Pair.established()
    assert refusal(pair.forge(pair.alice, Frame(kind, body=body))) is Reason.MALFORMED


# --- records --------------------------------------------------------------------------------------------------------


def three_calls(pair: Pair) -> list[bytes]:
    """Three records, one call in each."""
    found = []
    for number in range(3):
        pair.alice.session.send(CALL, pair.alice.session.next_stream(), b"call %d" % number, pair.now)
        found += records(pair.alice.session.data_to_send())
    return found


@pytest.mark.parametrize(
    ("order", "heard"),
    [((1, 2), 0), ((0, 2), 1), ((0, 0), 1), ((0, 1, 1), 2), ((1, 0), 0), ((0, 2, 1), 1)],
    ids=["first dropped", "second dropped", "doubled", "doubled later", "swapped", "swapped later"],
)
def test_a_record_dropped_doubled_or_out_of_order_ends_the_link(order: tuple[int, ...], heard: int) -> None:
    pair = Pair.established()
    calls = three_calls(pair)
    *before, last = pair.deliver(b"".join(calls[index] for index in order), to=pair.bob)
    assert isinstance(last, Failed) and last.reason is Reason.BAD_RECORD
    assert len(before) == heard
    assert told(pair, pair.bob) is Reason.BAD_RECORD


@pytest.mark.parametrize("index", [2, 9, -17, -16, -1])
def test_a_bit_changed_in_a_record_ends_the_link(index: int) -> None:
    pair = Pair.established()
    pair.alice.session.send(CALL, 1, b"hello", pair.now)
    assert refusal(pair.move(pair.alice, flip(index))) is Reason.BAD_RECORD
    assert pair.bob.heard == []
    assert pair.bob.session.lease is None


def test_a_record_of_another_link_or_of_the_other_direction_is_refused() -> None:
    one, other = Pair.established(), Pair.established()
    one.alice.session.send(CALL, 1, b"hello", one.now)
    data = one.alice.session.data_to_send()
    assert refusal(other.deliver(data, to=other.bob)) is Reason.BAD_RECORD
    assert refusal(one.deliver(data, to=one.alice)) is Reason.BAD_RECORD


def test_an_empty_record_is_refused() -> None:
    pair = Pair.established()
    assert refusal(pair.deliver(b"\0\0", to=pair.bob)) is Reason.MALFORMED


def test_a_record_that_holds_no_frame_is_refused_even_from_the_peer() -> None:
    pair = Pair.established()
    sealed = AESGCM(pair.alice.keys.i2r).encrypt(pair.alice.sealer.records.to_bytes(12, "big"), b"", None)
    assert refusal(pair.deliver(b"\0\x10" + sealed, to=pair.bob)) is Reason.MALFORMED


def test_after_a_failure_nothing_more_is_taken() -> None:
    pair = Pair.established()
    good = three_calls(pair)
    assert refusal(pair.deliver(flip(-1)(good[0]), to=pair.bob)) is Reason.BAD_RECORD
    session = pair.bob.session
    assert session.receive(b"".join(good), pair.now) == session.tick(pair.now) == session.eof(pair.now) == []
    assert session.close(Reason.SHUTDOWN) == session.fail(Reason.QUOTA, "") == []
    assert session.deadline == math.inf
    assert session.lease is None


def test_what_came_before_the_fault_in_the_same_bytes_is_delivered() -> None:
    pair = Pair.established()
    calls = three_calls(pair)
    events = pair.deliver(calls[0] + calls[1] + flip(-1)(calls[2]), to=pair.bob)
    assert [type(event) for event in events] == [MessageReceived, MessageReceived, Failed]


def test_a_peer_that_asks_faster_than_it_takes_the_answers_is_cut_off() -> None:
    pair = Pair.established()
    ping = Frame(FrameType.PING, body=make_map(1, 1))
    for _ in range(10):
        pair.bob.session.send(CALL, pair.bob.session.next_stream(), bytes(limits.MESSAGE_MAX), pair.now)
    assert pair.forge(pair.alice, ping) == []
    pair.bob.session.send(CALL, pair.bob.session.next_stream(), bytes(limits.MESSAGE_MAX), pair.now)
    assert refusal(pair.forge(pair.alice, ping)) is Reason.SLOW_CONSUMER


# --- how it ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [Reason.SHUTDOWN, Reason.DUPLICATE, Reason.SUPERSEDED])
def test_a_goodbye_says_why(reason: Reason) -> None:
    pair = Pair.established()
    pair.alice.session.send(CALL, 1, b"last words", pair.now)
    assert pair.alice.session.close(reason) == [Closed(reason, by_peer=False)]
    assert pair.alice.session.lease is None
    *before, last = pair.move(pair.alice)
    assert last == Closed(reason, by_peer=True)
    assert [event.body for event in before if isinstance(event, MessageReceived)] == [b"last words"]
    assert pair.bob.is_silent
    assert pair.bob.session.eof(pair.now) == []


def test_what_follows_a_goodbye_in_its_record_is_not_read() -> None:
    pair = Pair.established()
    farewell = Frame(FrameType.GOODBYE, body=pack_goodbye(Reason.SHUTDOWN))
    assert pair.forge(pair.alice, farewell, Frame(CALL, stream=1)) == [Closed(Reason.SHUTDOWN, by_peer=True)]


def test_a_connection_that_ends_without_goodbye_is_lost() -> None:
    pair = Pair.established()
    assert refusal(pair.bob.session.eof(pair.now)) is Reason.LOST
    assert pair.bob.is_silent


def test_an_open_link_is_ended_for_what_the_peer_did_above_it() -> None:
    pair = Pair.established()
    assert pair.alice.session.fail(Reason.BAD_SIGNATURE, "a call") == [Failed(Reason.BAD_SIGNATURE, "a call")]
    assert told(pair, pair.alice) is Reason.BAD_SIGNATURE


# --- signs of life --------------------------------------------------------------------------------------------------

LONG = {"attest": AttestTimes(lease=1e6, overdue=1e6)}


def test_fifteen_idle_seconds_bring_a_ping_and_its_answer_counts_as_life() -> None:
    pair = Pair.established()
    start = pair.now
    assert pair.alice.session.deadline == start + 15.0
    pair.now += 15.0
    assert pair.tick(pair.alice) == []
    assert pair.move(pair.alice) == []
    [pong] = pair.bob.swallow()
    number, wall = open_map(pong[8:], UInt(), UInt(), limit=64)
    assert pong[0] == FrameType.PONG
    assert (number, wall) == (1, int(pair.calendar().timestamp() * 1000))
    assert pair.deliver(pair.bob.sealer.seal(pong), to=pair.alice) == [Ponged(Pong(pair.now, pair.now, wall, wall))]
    assert pair.alice.session.deadline == start + 30.0


def silence(pair: Pair, seconds: float) -> list[Any]:
    """Alice hears nothing for so long; what she says is lost."""
    until = pair.now + seconds
    events: list[Any] = []
    for _ in range(100):
        if pair.alice.session.deadline > until:
            break
        pair.now = pair.alice.session.deadline
        events += pair.tick(pair.alice)
        pair.alice.session.data_to_send()
    pair.now = until
    return events


def test_three_pings_without_an_answer_and_the_peer_is_dead() -> None:
    pair = Pair.established(**LONG)
    assert silence(pair, 59.0) == []
    pair.alice.session.data_to_send()
    assert refusal(silence(pair, 1.0)) is Reason.DEAD


def test_a_node_that_was_stopped_itself_gives_its_peer_time_to_answer() -> None:
    pair = Pair.established(**LONG)
    pair.now += 59.0
    assert pair.tick(pair.alice) == []
    assert pair.alice.session.deadline > pair.now
    pair.exchange()
    assert pair.states == (State.OPEN, State.OPEN)


def test_a_probe_is_answered_or_the_peer_is_dead() -> None:
    pair = Pair.established()
    pair.alice.session.probe(pair.now, within=2.0)
    assert pair.alice.session.deadline == pair.now + 2.0
    pair.exchange()
    assert pair.alice.session.deadline == pair.now + 15.0
    pair.alice.session.probe(pair.now, within=2.0)
    assert refusal(silence(pair, 2.0)) is Reason.DEAD


def test_a_link_that_is_not_open_is_not_probed() -> None:
    pair = Pair()
    pair.alice.session.data_to_send()
    pair.alice.session.probe(pair.now, within=2.0)
    pair.alice.session.woke(pair.now, within=2.0)
    pair.alice.session.open_round(1)
    pair.alice.session.send_evidence(1, evidence_for(Pair.admitting().alice.wanted))
    assert pair.alice.is_silent
    assert pair.alice.session.deadline == pair.now + limits.HANDSHAKE_TIMEOUT


def test_wall_time_that_stands_still_or_jumps_does_not_matter_to_pings() -> None:
    pair = Pair.established()
    pair.at += timedelta(hours=3)
    pair.sleep(40.0)
    assert pair.states == (State.OPEN, State.OPEN)


# --- leases ---------------------------------------------------------------------------------------------------------


def ending(member: str, end: str, seconds: float) -> Pair:
    """An open link with a member whose certificate or endorsement ends so many seconds from now, tolerance included."""
    begin = LAB.at + timedelta(seconds=seconds) - timedelta(minutes=5) - HOUR
    life = HOUR if end == "certificate" else DAY
    return Pair.established(**{member: make_member(LAB, member, not_before=begin, life=life, endorsement_life=HOUR)})


@pytest.mark.parametrize("whose", ["alice", "bob"])
@pytest.mark.parametrize("what", ["endorsement", "certificate"])
def test_a_lease_ends_with_the_peer_s_endorsement_which_ends_with_the_certificate(whose: str, what: str) -> None:
    pair = ending(whose, what, 100.0)
    judge = pair.other(getattr(pair, whose))
    assert judge.session.lease is not None
    assert judge.session.lease.ends == pytest.approx(pair.now + 100.0)
    pair.sleep(99.0)
    assert pair.states == (State.OPEN, State.OPEN)
    pair.now += 1.0
    assert judge.session.deadline <= pair.now
    assert refusal(pair.tick(judge)) is Reason.ENDORSEMENT_EXPIRED
    assert told(pair, judge) is Reason.ENDORSEMENT_EXPIRED


def test_no_lease_no_application_frame_even_before_the_tick() -> None:
    pair = ending("alice", "endorsement", 20.0)
    pair.now += 20.0
    pair.bob.session.send(CALL, 2, b"to nobody", pair.now)
    assert pair.bob.is_silent
    assert refusal(pair.say(pair.alice, b"from nobody")) is Reason.ENDORSEMENT_EXPIRED
    assert pair.bob.heard == []


def test_a_calendar_that_jumps_beyond_the_end_is_noticed_by_the_next_evidence() -> None:
    pair = Pair.established()
    pair.at += timedelta(days=2)
    pair.alice.session.open_round(1)
    pair.exchange()
    assert refusal(pair.tick(pair.bob)) is Reason.ENDORSEMENT_EXPIRED


# --- credentials ----------------------------------------------------------------------------------------------------


def renewed(name: str = "alice", **changes: Any) -> Member:
    """The same start of the node under a later endorsement."""
    return make_member(LAB, name, **({"not_before": LAB.at} | changes))


def test_a_peer_goes_on_with_another_endorsement() -> None:
    pair = Pair.established()
    later = renewed()
    lease = pair.bob.session.lease
    pair.alice.session.change_credentials(local(later))
    assert pair.move(pair.alice) == [CredentialsChanged(later.peer)]
    assert pair.bob.session.peer == later.peer
    assert pair.bob.session.lease == lease
    assert pair.say(pair.alice, b"hi") == [MessageReceived(CALL, 1, b"hi", later.peer)]
    pair.alice.session.open_round(1)
    pair.exchange()
    assert isinstance(pair.bob.events[-1], LeaseRenewed)


def test_what_came_before_the_credentials_keeps_the_old_ones() -> None:
    pair = Pair.established()
    pair.alice.session.send(CALL, 1, b"old", pair.now)
    pair.alice.session.change_credentials(local(renewed()))
    pair.alice.session.send(CALL, 3, b"new", pair.now)
    messages = [event for event in pair.move(pair.alice) if isinstance(event, MessageReceived)]
    assert [message.peer.kid for message in messages] == [ALICE.kid, renewed().kid]


def test_a_new_noise_key_is_for_new_links_and_this_one_keeps_its_own() -> None:
    other_key = make_member(LAB, "alice", start=2)
    member = replace(renewed(), noise=other_key.noise)
    pair = Pair.established()
    pair.alice.session.change_credentials(local(with_endorsement(member)))
    pair.sleep(130.0)
    assert pair.states == (State.OPEN, State.OPEN)
    assert pair.alice.session.epoch == 3
    assert pair.bob.session.peer is not None
    assert pair.bob.session.peer.noise_public == other_key.noise.public


def with_endorsement(member: Member) -> Member:
    """The member with an endorsement of the Noise key that it holds."""
    old = member.peer.endorsement
    raw = make_endorsement(
        member.signer, mesh_id=LAB.mesh_id, leaf=member.credentials.leaf, noise_public=member.noise.public,
        message=member.message, start_id=member.start_id, not_before=old.not_before, not_after=old.not_after,
    )  # fmt: skip
    credentials = Credentials(raw, member.credentials.leaf)
    return replace(member, credentials=credentials, peer=LAB.trust.verify(credentials, LAB.at))


def test_credentials_move_the_end_of_the_lease_and_not_its_beginning() -> None:
    pair = ending("alice", "endorsement", 100.0)
    before = pair.bob.session.lease
    pair.now += 5.0
    pair.alice.session.change_credentials(local(renewed()))
    pair.move(pair.alice)
    after = pair.bob.session.lease
    assert before is not None and after is not None
    assert (after.since, after.ends) == (before.since, before.since + 150.0)


def show(pair: Pair, member: Member, **changes: object) -> list[Any]:
    """Alice's CREDENTIALS with this member's papers."""
    fields = {"endorsement": member.credentials.endorsement, "leaf": member.credentials.leaf, "chain": []} | changes
    return pair.forge(pair.alice, Frame(FrameType.CREDENTIALS, body=make_map(*fields.values())))


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (make_member(LAB, "carol"), Reason.BAD_ENDORSEMENT),
        (make_member(LAB, "alice", start=2), Reason.BAD_ENDORSEMENT),
        (make_member(OTHER_LAB, "alice"), Reason.OTHER_MESH),
        (make_member(LAB, "alice", not_before=LAB.at - 2 * HOUR, endorsement_life=HOUR), Reason.ENDORSEMENT_EXPIRED),
        (make_member(LAB, "alice", not_before=LAB.at - 2 * DAY), Reason.CERTIFICATE_EXPIRED),
    ],
    ids=["another node", "another start", "another mesh", "expired endorsement", "expired certificate"],
)
def test_credentials_that_a_handshake_would_refuse_end_the_link(member: Member, reason: Reason) -> None:
    pair = Pair.established()
    assert refusal(show(pair, member)) is reason
    assert pair.bob.session.lease is None
    assert told(pair, pair.bob) is reason


def test_credentials_with_a_forged_endorsement_end_the_link() -> None:
    pair = Pair.established()
    forged = flip(-1)(renewed().credentials.endorsement)
    assert refusal(show(pair, renewed(), endorsement=forged)) is Reason.BAD_ENDORSEMENT


def test_a_guard_that_raises_on_new_credentials_refuses() -> None:
    class Failing:
        mesh_id, policy, number, hash = LAB.mesh_id, LAB.trust.policy, 0, LAB.trust.hash
        broken = False

        def verify(self, *arguments: Any) -> Any:
            if self.broken:
                raise RuntimeError("disk on fire")
            return LAB.trust.verify(*arguments)

    trust = Failing()
    pair = Pair.established(bob_config=context(trust=lambda: trust))
    trust.broken = True
    assert refusal(show(pair, renewed())) is Reason.INTERNAL


def test_credentials_that_change_during_admission_are_shown_when_the_link_opens() -> None:
    pair = Pair.admitting()
    later = renewed()
    pair.alice.session.change_credentials(local(later))
    assert pair.alice.is_silent
    pair.answer_evidence = True
    for end in pair.ends:
        pair.prove(end, end.events)
    pair.exchange()
    assert pair.states == (State.OPEN, State.OPEN)
    assert pair.bob.events[-1] == CredentialsChanged(later.peer)
    assert pair.say(pair.alice, b"hi") == [MessageReceived(CALL, 1, b"hi", later.peer)]


def test_credentials_of_another_node_are_our_own_bug() -> None:
    with pytest.raises(LocalProtocolError, match="another node"):
        Pair.established().alice.session.change_credentials(local(BOB))


# --- a guard that raises --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(Refused(Reason.PCR_MISMATCH), Reason.PCR_MISMATCH), (RuntimeError("disk on fire"), Reason.INTERNAL)],
)
def test_evidence_on_an_open_link_that_the_appraiser_does_not_take_drops_the_lease_at_once(
    fault: Exception, reason: Reason
) -> None:
    pair = Pair.established()
    pair.bob.appraiser.fault = fault
    pair.alice.session.open_round(1)
    pair.exchange()
    assert isinstance(pair.bob.events[-1], Failed)
    assert pair.bob.events[-1].reason is reason
    assert pair.bob.session.lease is None
    assert pair.alice.events[-1] == Closed(reason, by_peer=True)


def test_the_appraiser_hears_what_it_concluded_before() -> None:
    pair = Pair.established()
    pair.alice.session.open_round(1)
    pair.exchange()
    [first, second] = pair.bob.appraiser.seen
    assert first is None
    assert second == Appraisal(level=1, kind=EvidenceKind.SOFTWARE, software_version="test")

