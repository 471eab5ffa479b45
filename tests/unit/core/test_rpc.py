"""Calls over one link: each runs once, each answer finds its call, and parts keep to their order and their credit."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core import limits
from overlay.core.identity import LocalIdentity
from overlay.core.limits import METHOD_MAX, PART_COST, REPLY_WINDOW
from overlay.core.messages import NO_DEADLINE, pack_cancel, pack_credit, pack_failure, sign_call, sign_reply
from overlay.core.rpc import CallReceived, Calls, ReplyReceived, SeenCalls
from overlay.core.wire import sha256
from overlay.errors import LocalProtocolError, Refused, UsageError
from overlay.registry import FrameType, Reason, ReplyStatus
from tests.unit.core.authority_kit import Member, make_member
from tests.unit.core.session_kit import ALICE, BOB, LAB, SeededChance, local

H1 = b"h" * 32
AT = 1_750_000_000.0  # Unix seconds by Bob's clock
DEADLINE = int(AT + 30) * 1000
Sent = tuple[FrameType, int, bytes]


@dataclass
class Side:
    """One end's calls, and what it has sent."""

    member: Member
    first_h: bytes = H1
    seen: SeenCalls = field(default_factory=SeenCalls)
    chance: int = 1
    sent: list[Sent] = field(default_factory=list)
    identity: LocalIdentity = field(init=False)
    calls: Calls = field(init=False)

    def __post_init__(self) -> None:
        self.identity = local(self.member)
        self.calls = Calls(
            identity=lambda: self.identity, mesh_id=LAB.mesh_id, first_h=self.first_h, chance=SeededChance(self.chance),
            seen=self.seen, send=lambda *frame: self.sent.append(frame),
        )  # fmt: skip

    def take(self, sent: Sent, sender: Member) -> list[Any]:
        """What arrives from the other side."""
        kind, stream, raw = sent
        match kind:
            case FrameType.CALL:
                return self.calls.on_call(raw, stream, sender.peer, AT)
            case FrameType.REPLY:
                return self.calls.on_reply(raw, stream, sender.peer)
            case FrameType.CANCEL:
                return self.calls.on_cancel(raw, stream)
        assert kind is FrameType.REPLY_CREDIT
        return self.calls.on_credit(raw, stream)

    def last(self) -> Sent:
        return self.sent.pop()

    def take_all(self, sender: "Side") -> list[Any]:
        """Everything that the other side has sent, in order."""
        sent, sender.sent[:] = list(sender.sent), []
        return [event for one in sent for event in self.take(one, sender.member)]


def sides(**changes: Any) -> tuple[Side, Side]:
    return Side(ALICE), Side(BOB, **changes)


def asked(alice: Side, bob: Side, method: str = "shout") -> tuple[bytes, list[Any], Sent]:
    """Alice calls Bob: her token, his events, and the frame that she sent."""
    token = alice.calls.call(BOB.node_id, 1, method, b"hi", DEADLINE)
    sent = alice.last()
    return token, bob.take(sent, ALICE), sent


def status_of(alice: Side, sent: Sent) -> ReplyStatus:
    [answer] = alice.take(sent, BOB)
    assert isinstance(answer, ReplyReceived)
    return answer.status


def reason_of(act: Callable[..., Any], *arguments: Any) -> Reason:
    with pytest.raises(Refused) as caught:
        act(*arguments)
    return caught.value.reason


# --- what goes well -------------------------------------------------------------------------------------------------


def test_a_call_is_answered() -> None:
    alice, bob = sides()
    token, [received], _ = asked(alice, bob)
    assert isinstance(received, CallReceived)
    assert (received.call.caller, received.call.method, received.call.body) == (ALICE.node_id, "shout", b"hi")
    assert received.stream == 1
    assert alice.calls.under_way == bob.calls.under_way == 1
    bob.calls.reply(received, ReplyStatus.OK, b"HI")
    kind, stream, _ = bob.sent[-1]
    assert (kind, stream) == (FrameType.REPLY, 1)
    assert alice.take(bob.last(), BOB) == [ReplyReceived(token, ReplyStatus.OK, b"HI")]
    assert alice.calls.under_way == bob.calls.under_way == 0


def test_replies_may_come_in_another_order_than_calls() -> None:
    alice, bob = sides()
    first, [one], _ = asked(alice, bob)
    second, [two], _ = asked(alice, bob)
    assert first != second
    bob.calls.reply(two, ReplyStatus.OK, b"2")
    bob.calls.reply(one, ReplyStatus.OK, b"1")
    assert [alice.take(sent, BOB) for sent in bob.sent] == [
        [ReplyReceived(second, ReplyStatus.OK, b"2")], [ReplyReceived(first, ReplyStatus.OK, b"1")],
    ]  # fmt: skip


def test_a_handler_that_ends_after_its_link_leaves_no_trace() -> None:
    alice, bob = sides()
    _, [received], _ = asked(alice, bob)
    bob.calls.abandon(received)
    assert bob.calls.under_way == 0
    assert bob.sent == []


def test_a_reply_is_signed_under_the_credentials_of_the_moment() -> None:
    alice, bob = sides()
    token, [received], _ = asked(alice, bob)
    later = make_member(LAB, "bob", start=2)
    bob.identity = local(later)
    bob.calls.reply(received, ReplyStatus.OK, b"HI")
    assert reason_of(alice.take, bob.sent[-1], BOB) is Reason.WRONG_AUTHOR
    assert alice.take(bob.last(), later) == [ReplyReceived(token, ReplyStatus.OK, b"HI")]


# --- once -----------------------------------------------------------------------------------------------------------


def test_a_repeated_call_is_answered_so_and_does_not_run() -> None:
    alice, bob = sides()
    _, first, sent = asked(alice, bob)
    assert len(first) == 1
    assert bob.take(sent, ALICE) == []
    assert bob.calls.under_way == 1
    assert status_of(alice, bob.last()) is ReplyStatus.REPEATED


def test_a_call_id_used_for_another_call_is_a_repetition_too() -> None:
    alice, bob = sides()
    for body, runs in ((b"pay 1", 1), (b"pay 2", 0)):
        raw = sign_call(
            local(ALICE), LAB.mesh_id, to=BOB.node_id, call_id=bytes(16), first_h=H1, method="pay", deadline=DEADLINE, body=body
        )
        assert len(bob.take((FrameType.CALL, 1, raw), ALICE)) == runs
    del alice


def test_a_call_that_still_runs_is_a_repetition_however_many_others_came_in_between() -> None:
    alice, bob = sides(seen=SeenCalls(size=1))
    _, [received], sent = asked(alice, bob)
    asked(alice, bob)
    assert bob.take(sent, ALICE) == []
    assert status_of(alice, bob.last()) is ReplyStatus.REPEATED
    bob.calls.reply(received, ReplyStatus.OK, b"")


def test_what_ran_is_remembered_over_all_links_of_a_node() -> None:
    seen = SeenCalls()
    _, bob = sides(seen=seen)
    other = Side(BOB, first_h=b"H" * 32, seen=seen)
    for side, runs in ((bob, 1), (other, 0)):
        raw = sign_call(
            local(ALICE), LAB.mesh_id, to=BOB.node_id, call_id=bytes(16), first_h=side.first_h, method="m", deadline=DEADLINE,
            body=b"",
        )
        assert len(side.take((FrameType.CALL, 1, raw), ALICE)) == runs


def test_the_same_call_id_of_another_caller_or_another_start_is_another_call() -> None:
    seen = SeenCalls()
    assert seen.first_time(ALICE.node_id, b"start 1", b"id")
    assert seen.first_time(ALICE.node_id, b"start 2", b"id")
    assert seen.first_time(BOB.node_id, b"start 1", b"id")
    assert not seen.first_time(ALICE.node_id, b"start 1", b"id")


def test_the_oldest_calls_are_forgotten_first() -> None:
    seen = SeenCalls(size=2)
    assert all(seen.first_time(ALICE.node_id, b"", call_id) for call_id in (b"1", b"2", b"3"))
    assert not seen.first_time(ALICE.node_id, b"", b"2")
    assert seen.first_time(ALICE.node_id, b"", b"1")


# --- what ends the link ---------------------------------------------------------------------------------------------


def test_a_call_recorded_on_another_link_is_refused() -> None:
    alice, bob = Side(ALICE, first_h=b"H" * 32), Side(BOB)
    alice.calls.call(BOB.node_id, 1, "shout", b"hi", DEADLINE)
    assert reason_of(bob.take, alice.last(), ALICE) is Reason.WRONG_LINK


def test_a_call_or_a_reply_meant_for_somebody_else_is_refused() -> None:
    alice, bob = sides()
    carol = make_member(LAB, "carol")
    alice.calls.call(carol.node_id, 1, "shout", b"hi", DEADLINE)
    assert reason_of(bob.take, alice.last(), ALICE) is Reason.WRONG_RECIPIENT


def test_a_call_passed_on_by_another_node_is_refused() -> None:
    alice, bob = sides()
    alice.calls.call(BOB.node_id, 1, "shout", b"hi", DEADLINE)
    assert reason_of(bob.take, alice.last(), make_member(LAB, "carol")) is Reason.WRONG_AUTHOR


def test_a_forged_call_is_refused() -> None:
    alice, bob = sides()
    alice.calls.call(BOB.node_id, 1, "shout", b"hi", DEADLINE)
    kind, stream, raw = alice.last()
    forged = raw[:-1] + bytes([raw[-1] ^ 1])
    assert reason_of(bob.take, (kind, stream, forged), ALICE) is Reason.BAD_SIGNATURE


def answer(sent: Sent, **changes: Any) -> Sent:
    """Bob's reply to this call, as he should not write it."""
    fields: dict[str, Any] = {
        "to": ALICE.node_id, "call_hash": sha256(sent[2]), "index": 0, "final": True, "status": ReplyStatus.OK, "body": b"HI"
    }  # fmt: skip
    return FrameType.REPLY, sent[1], sign_reply(local(BOB), LAB.mesh_id, **(fields | changes))


def test_a_reply_on_another_stream_than_its_call_is_refused() -> None:
    alice, bob = sides()
    _, _, sent = asked(alice, bob)
    kind, _, raw = answer(sent)
    assert reason_of(alice.take, (kind, 3, raw), BOB) is Reason.MALFORMED


def test_a_second_reply_is_dropped() -> None:
    alice, bob = sides()
    _, _, sent = asked(alice, bob)
    assert len(alice.take(answer(sent), BOB)) == 1
    assert alice.take(answer(sent, body=b"HO"), BOB) == []


# --- answers in parts -----------------------------------------------------------------------------------------------


def test_an_answer_in_parts_comes_in_order_and_has_an_end() -> None:
    alice, bob = sides()
    token, [received], _ = asked(alice, bob)
    for part in (b"one", b"", b"three"):
        assert bob.calls.has_credit(received)
        bob.calls.part(received, part)
    bob.calls.reply(received, ReplyStatus.OK)
    assert bob.calls.under_way == 0
    assert alice.take_all(bob) == [
        ReplyReceived(token, ReplyStatus.OK, b"one", final=False), ReplyReceived(token, ReplyStatus.OK, b"", final=False),
        ReplyReceived(token, ReplyStatus.OK, b"three", final=False), ReplyReceived(token, ReplyStatus.OK, b"", final=True),
    ]  # fmt: skip
    assert alice.calls.under_way == 0


def test_an_answer_in_parts_may_end_in_a_failure() -> None:
    alice, bob = sides()
    token, [received], _ = asked(alice, bob)
    bob.calls.part(received, b"one")
    bob.calls.reply(received, ReplyStatus.FAILED, pack_failure("ValueError", "no"))
    _, end = alice.take_all(bob)
    assert end == ReplyReceived(token, ReplyStatus.FAILED, pack_failure("ValueError", "no"))


@pytest.mark.parametrize(("good", "broken"), [(0, 1), (1, 0), (1, 2), (2, 1), (2, 2**64 - 1)])
@pytest.mark.parametrize("final", [False, True])
def test_a_part_that_is_missing_or_comes_twice_is_refused(good: int, broken: int, final: bool) -> None:
    alice, bob = sides()
    _, _, sent = asked(alice, bob)
    for index in range(good):
        alice.take(answer(sent, index=index, final=False), BOB)
    assert reason_of(alice.take, answer(sent, index=broken, final=final), BOB) is Reason.CHAIN_BROKEN


@pytest.mark.parametrize("status", [status for status in ReplyStatus if status is not ReplyStatus.OK])
def test_an_error_is_always_the_last_message_of_an_answer(status: ReplyStatus) -> None:
    alice, bob = sides()
    _, _, sent = asked(alice, bob)
    broken = answer(sent, final=False, status=status, body=pack_failure("a", "b"))
    assert reason_of(alice.take, broken, BOB) is Reason.MALFORMED


# --- credit of parts --------------------------------------------------------------------------------------------------

HALF = bytes(REPLY_WINDOW // 2)


def test_who_answers_waits_for_credit_which_comes_as_the_reader_reads() -> None:
    alice, bob = sides()
    token, [received], _ = asked(alice, bob)
    bob.calls.part(received, HALF)
    assert bob.calls.has_credit(received)
    bob.calls.part(received, HALF)  # from here on it has sent more than it may
    assert not bob.calls.has_credit(received)
    with pytest.raises(LocalProtocolError):
        bob.calls.part(received, b"")
    first, second = alice.take_all(bob)
    assert alice.sent == []  # nothing was read yet
    alice.calls.taken(token, first.body)
    assert bob.take_all(alice) == [received.call.hash]
    assert bob.calls.has_credit(received)
    alice.calls.taken(token, second.body)
    bob.calls.part(received, bytes(limits.BODY_MAX))  # one part may go beyond the credit, and only one
    assert not bob.calls.has_credit(received)


def test_small_parts_read_one_by_one_need_little_credit_of_their_own() -> None:
    alice, bob = sides()
    token, [received], _ = asked(alice, bob)
    for _ in range(REPLY_WINDOW // 2 // (PART_COST + 1)):
        bob.calls.part(received, b"x")
        [part] = alice.take_all(bob)
        alice.calls.taken(token, part.body)
    assert alice.sent == []
    alice.calls.taken(token, b"x")
    assert [kind for kind, _, _ in alice.sent] == [FrameType.REPLY_CREDIT]


def test_an_answer_in_one_message_needs_no_credit_however_long() -> None:
    alice, bob = sides()
    token, [received], _ = asked(alice, bob)
    bob.calls.reply(received, ReplyStatus.OK, bytes(limits.BODY_MAX))
    [reply] = alice.take_all(bob)
    alice.calls.taken(token, reply.body)
    assert alice.sent == []


@pytest.mark.parametrize("part", [bytes(limits.BODY_MAX), HALF, b""])
def test_parts_beyond_their_credit_are_refused_be_they_large_or_empty(part: bytes) -> None:
    alice, bob = sides()
    _, _, sent = asked(alice, bob)
    allowed = -(-REPLY_WINDOW // (len(part) + PART_COST))
    for index in range(allowed):
        alice.take(answer(sent, index=index, final=False, body=part), BOB)
    assert reason_of(alice.take, answer(sent, index=allowed, final=False, body=part), BOB) is Reason.FLOW_CONTROL


def test_credit_is_never_taken_back() -> None:
    alice, bob = sides()
    token, [received], sent = asked(alice, bob)
    assert bob.take((FrameType.REPLY_CREDIT, sent[1], pack_credit(token, 0)), ALICE) == [token]
    assert bob.calls.has_credit(received)


def test_credit_for_an_answer_that_is_over_is_dropped() -> None:
    alice, bob = sides()
    token, [received], sent = asked(alice, bob)
    bob.calls.reply(received, ReplyStatus.OK, b"HI")
    assert bob.take((FrameType.REPLY_CREDIT, sent[1], pack_credit(token, 1)), ALICE) == []


@given(st.lists(st.integers(0, limits.BODY_MAX), min_size=1, max_size=12), st.data())
def test_parts_of_any_size_all_arrive_and_unread_ones_stay_bounded(sizes: list[int], data: st.DataObject) -> None:
    alice, bob = sides()
    token, [received], _ = asked(alice, bob)
    waiting, read = [bytes(size) for size in sizes], 0
    unread: list[ReplyReceived] = []
    while waiting or unread:
        if waiting and bob.calls.has_credit(received) and (not unread or data.draw(st.booleans())):
            bob.calls.part(received, waiting.pop(0))
            unread += alice.take_all(bob)
        else:
            assert unread, "nobody can go on"
            alice.calls.taken(token, unread.pop(0).body)
            bob.take_all(alice)
            read += 1
        assert sum(len(part.body) for part in unread[:-1]) < REPLY_WINDOW
    assert read == len(sizes)


# --- cancelled --------------------------------------------------------------------------------------------------------


def test_a_cancelled_call_counts_at_both_ends_until_it_is_answered() -> None:
    alice, bob = sides()
    token, [received], _ = asked(alice, bob)
    alice.calls.cancel(token)
    alice.calls.cancel(token)
    assert [(kind, stream) for kind, stream, _ in alice.sent] == [(FrameType.CANCEL, 1)]
    assert bob.take_all(alice) == [received.call.hash]
    assert alice.calls.under_way == bob.calls.under_way == 1
    assert (alice.calls.running, bob.calls.running) == ((), (token,))
    bob.calls.reply(received, ReplyStatus.CANCELLED)
    assert alice.take_all(bob) == []
    assert alice.calls.under_way == bob.calls.under_way == 0


def test_parts_of_a_cancelled_call_are_dropped_and_get_no_credit() -> None:
    alice, bob = sides()
    token, [received], _ = asked(alice, bob)
    bob.calls.part(received, HALF)
    [part] = alice.take_all(bob)
    alice.calls.cancel(token)
    bob.calls.part(received, HALF)
    assert alice.take_all(bob) == []
    alice.calls.taken(token, part.body)
    bob.calls.reply(received, ReplyStatus.OK)
    assert alice.take_all(bob) == []
    assert [kind for kind, _, _ in alice.sent] == [FrameType.CANCEL]


def test_parts_of_a_cancelled_call_must_still_be_in_order() -> None:
    alice, bob = sides()
    token, _, sent = asked(alice, bob)
    alice.calls.cancel(token)
    assert reason_of(alice.take, answer(sent, index=1), BOB) is Reason.CHAIN_BROKEN


def test_nothing_is_said_of_a_call_that_was_answered_before_it_was_cancelled() -> None:
    alice, bob = sides()
    token, [received], _ = asked(alice, bob)
    bob.calls.reply(received, ReplyStatus.OK, b"HI")
    alice.take_all(bob)
    alice.calls.cancel(token)
    assert alice.sent == []


def test_a_cancellation_of_an_unknown_call_is_ignored() -> None:
    alice, bob = sides()
    asked(alice, bob)
    assert bob.take((FrameType.CANCEL, 1, pack_cancel(b"?" * 32)), ALICE) == []
    assert bob.calls.under_way == 1


@pytest.mark.parametrize(
    ("kind", "pack"), [(FrameType.CANCEL, pack_cancel), (FrameType.REPLY_CREDIT, lambda token: pack_credit(token, 1))]
)
def test_a_cancellation_or_credit_on_another_stream_than_its_call_is_refused(kind: FrameType, pack: Any) -> None:
    alice, bob = sides()
    token, _, _ = asked(alice, bob)
    assert reason_of(bob.take, (kind, 3, pack(token)), ALICE) is Reason.MALFORMED


# --- deadlines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deadline", "left"), [(DEADLINE, 30.0), (int(AT - 299) * 1000, -299.0), (NO_DEADLINE, math.inf)])
def test_a_call_comes_with_the_seconds_that_are_left(deadline: int, left: float) -> None:
    alice, bob = sides()
    alice.calls.call(BOB.node_id, 1, "shout", b"hi", deadline)
    [received] = bob.take_all(alice)
    assert received.left == left


def test_a_call_that_is_too_late_even_if_the_clocks_differ_never_runs() -> None:
    alice, bob = sides()
    alice.calls.call(BOB.node_id, 1, "shout", b"hi", int(AT - limits.CLOCK_TOLERANCE - 1) * 1000)
    sent = alice.last()
    for _ in range(2):  # and it is no repetition when it comes again
        assert bob.take(sent, ALICE) == []
        assert bob.calls.under_way == 0
    assert status_of(alice, bob.last()) is ReplyStatus.EXPIRED


# --- limits ---------------------------------------------------------------------------------------------------------


def test_256_calls_of_a_peer_run_at_once_and_the_next_one_hears_busy_and_may_come_again() -> None:
    alice, bob = sides()
    received = [event for _ in range(limits.CALLS_UNDER_WAY) for event in asked(alice, bob)[1]]
    alice = Side(ALICE, chance=2)
    _, nothing, sent = asked(alice, bob)
    assert nothing == []
    assert status_of(alice, bob.last()) is ReplyStatus.BUSY
    bob.calls.reply(received[0], ReplyStatus.OK, b"")
    assert len(bob.take(sent, ALICE)) == 1


def test_256_calls_to_a_peer_may_wait() -> None:
    alice, _ = sides()
    for _ in range(limits.CALLS_UNDER_WAY):
        alice.calls.call(BOB.node_id, 1, "m", b"", DEADLINE)
    with pytest.raises(UsageError, match="256 calls to this peer"):
        alice.calls.call(BOB.node_id, 1, "m", b"", DEADLINE)


@pytest.mark.parametrize("method", ["", "x" * (METHOD_MAX + 1), "ä" * (METHOD_MAX // 2 + 1)])
def test_a_method_has_a_name_of_1_to_128_bytes(method: str) -> None:
    with pytest.raises(UsageError, match="1 to 128 bytes"):
        Side(ALICE).calls.call(BOB.node_id, 1, method, b"", DEADLINE)


def test_a_body_has_at_most_one_mebibyte() -> None:
    alice = Side(ALICE)
    with pytest.raises(UsageError, match="1048576 bytes"):
        alice.calls.call(BOB.node_id, 1, "m", bytes(limits.BODY_MAX + 1), DEADLINE)
    assert alice.sent == []
    assert alice.calls.under_way == 0
