"""Calls over one link: each runs once, and each reply finds its call."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from overlay.core import limits
from overlay.core.identity import LocalIdentity
from overlay.core.messages import METHOD_MAX, sign_call, sign_reply
from overlay.core.rpc import CallReceived, Calls, ReplyReceived, SeenCalls
from overlay.core.wire import sha256
from overlay.errors import Refused, UsageError
from overlay.registry import FrameType, Reason, ReplyStatus
from tests.unit.core.authority_kit import Member, make_member
from tests.unit.core.session_kit import ALICE, BOB, LAB, SeededChance, local

H1 = b"h" * 32
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
        act: Callable[..., list[Any]] = self.calls.on_call if kind is FrameType.CALL else self.calls.on_reply
        return act(raw, stream, sender.peer)

    def last(self) -> Sent:
        return self.sent.pop()


def sides(**changes: Any) -> tuple[Side, Side]:
    return Side(ALICE), Side(BOB, **changes)


def asked(alice: Side, bob: Side, method: str = "shout") -> tuple[bytes, list[Any], Sent]:
    """Alice calls Bob: her token, his events, and the frame that she sent."""
    token = alice.calls.call(BOB.node_id, 1, method, b"hi", 7)
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


def test_a_reply_that_nobody_waits_for_any_more_is_dropped() -> None:
    alice, bob = sides()
    token, [received], _ = asked(alice, bob)
    alice.calls.forget(token)
    alice.calls.forget(token)
    bob.calls.reply(received, ReplyStatus.OK, b"HI")
    assert alice.take(bob.last(), BOB) == []


def test_a_handler_that_ends_after_its_link_leaves_no_trace() -> None:
    alice, bob = sides()
    asked(alice, bob)
    bob.calls.abandon()
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
            local(ALICE), LAB.mesh_id, to=BOB.node_id, call_id=bytes(16), first_h=H1, method="pay", deadline=7, body=body
        )
        assert len(bob.take((FrameType.CALL, 1, raw), ALICE)) == runs
    del alice


def test_what_ran_is_remembered_over_all_links_of_a_node() -> None:
    seen = SeenCalls()
    _, bob = sides(seen=seen)
    other = Side(BOB, first_h=b"H" * 32, seen=seen)
    for side, runs in ((bob, 1), (other, 0)):
        raw = sign_call(
            local(ALICE), LAB.mesh_id, to=BOB.node_id, call_id=bytes(16), first_h=side.first_h, method="m", deadline=7, body=b""
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
    alice.calls.call(BOB.node_id, 1, "shout", b"hi", 7)
    assert reason_of(bob.take, alice.last(), ALICE) is Reason.WRONG_LINK


def test_a_call_or_a_reply_meant_for_somebody_else_is_refused() -> None:
    alice, bob = sides()
    carol = make_member(LAB, "carol")
    alice.calls.call(carol.node_id, 1, "shout", b"hi", 7)
    assert reason_of(bob.take, alice.last(), ALICE) is Reason.WRONG_RECIPIENT


def test_a_call_passed_on_by_another_node_is_refused() -> None:
    alice, bob = sides()
    alice.calls.call(BOB.node_id, 1, "shout", b"hi", 7)
    assert reason_of(bob.take, alice.last(), make_member(LAB, "carol")) is Reason.WRONG_AUTHOR


def test_a_forged_call_is_refused() -> None:
    alice, bob = sides()
    alice.calls.call(BOB.node_id, 1, "shout", b"hi", 7)
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


@pytest.mark.parametrize("changes", [{"final": False}, {"index": 1}])
def test_a_reply_in_several_messages_is_not_supported_yet(changes: dict[str, Any]) -> None:
    alice, bob = sides()
    _, _, sent = asked(alice, bob)
    assert reason_of(alice.take, answer(sent, **changes), BOB) is Reason.UNSUPPORTED


def test_a_second_reply_is_dropped() -> None:
    alice, bob = sides()
    _, _, sent = asked(alice, bob)
    assert len(alice.take(answer(sent), BOB)) == 1
    assert alice.take(answer(sent, body=b"HO"), BOB) == []


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
        alice.calls.call(BOB.node_id, 1, "m", b"", 7)
    with pytest.raises(UsageError, match="256 calls to this peer"):
        alice.calls.call(BOB.node_id, 1, "m", b"", 7)


@pytest.mark.parametrize("method", ["", "x" * (METHOD_MAX + 1), "ä" * (METHOD_MAX // 2 + 1)])
def test_a_method_has_a_name_of_1_to_128_bytes(method: str) -> None:
    with pytest.raises(UsageError, match="1 to 128 bytes"):
        Side(ALICE).calls.call(BOB.node_id, 1, method, b"", 7)


def test_a_body_has_at_most_one_mebibyte() -> None:
    alice = Side(ALICE)
    with pytest.raises(UsageError, match="1048576 bytes"):
        alice.calls.call(BOB.node_id, 1, "m", bytes(limits.BODY_MAX + 1), 7)
    assert alice.sent == []
    assert alice.calls.under_way == 0
