"""Reconciliation, peer by peer: what is asked for and told, and what liars, the silent and the forgetful can do."""

import math

import pytest

from overlay.core.keys import NodeId
from overlay.core.limits import (
    ENTRY_MAX,
    HEADS_EVERY,
    LOGS_MAX,
    LOGS_PER_PEER,
    RANGE_BYTES,
    REPLICATION_ANSWER_WITHIN,
    REPLICATION_HELD_FIRST,
    WANT_ITEMS,
    WANTS_AT_ONCE,
    WANTS_PER_PEER,
)
from overlay.core.mesh.reconcile import (
    HeadsDiffer,
    ItemsVerified,
    Misbehaved,
    PeerAgrees,
    RangeWanted,
    Reconcile,
)
from overlay.core.mesh.replication_frames import (
    Head,
    Want,
    make_heads,
    make_want,
    open_heads,
    open_items,
    open_want,
)
from overlay.core.wire import make_map
from overlay.registry import ChainKind, FrameType, Reason
from tests.unit.core.mesh.mesh_kit import LOG, Ours, ToyChains, head, item, node

ALICE, BOB, CAROL = node("alice"), node("bob"), node("carol")
AUDIT = ChainKind.AUDIT


def items(start: int, count: int) -> list[bytes]:
    return [item(number) for number in range(start, start + count)]


def wants(ours: Ours) -> list[tuple[NodeId, Want]]:
    return [(peer, open_want(ours.kind, body)) for peer, body in ours.sent(FrameType.WANT)]


@pytest.fixture
def ours() -> Ours:
    """A node with links to alice and bob, who have said nothing yet."""
    ours = Ours()
    ours.open(ALICE, BOB)
    ours.machine.messages_to_send()
    return ours


def with_log(ours: Ours, size: int) -> Ours:
    """The same, holding the first items of alice's log."""
    assert ours.store(ours.items(ALICE, 0, *items(0, size))) == []
    ours.machine.messages_to_send()
    return ours


# --- telling ----------------------------------------------------------------------------------------------------------


def test_a_new_peer_hears_all_our_heads(ours: Ours) -> None:
    with_log(ours, 3)
    ours.open(CAROL)
    ((peer, body),) = ours.sent(FrameType.HEADS)
    assert (peer, open_heads(AUDIT, body)) == (CAROL, {LOG: head(3, ALICE)})


def test_what_we_write_is_pushed_and_told_to_every_peer(ours: Ours) -> None:
    ours.write(ours.name, 2)
    sent = ours.machine.messages_to_send()
    assert [(peer, frame) for peer, frame, _ in sent] == [
        (ALICE, FrameType.ITEMS), (BOB, FrameType.ITEMS), (ALICE, FrameType.HEADS), (BOB, FrameType.HEADS),
    ]  # fmt: skip
    assert open_items(AUDIT, sent[0][2]).items == tuple(items(0, 2))


def test_many_items_are_pushed_in_messages_that_fit(ours: Ours) -> None:
    large = [b"x" * ENTRY_MAX] * 20 + [b"y"] * 600
    ours.machine.appended(LOG, head(620, ours.name), large)
    bodies = [body for peer, body in ours.sent(FrameType.ITEMS) if peer == ALICE]
    runs = [open_items(AUDIT, body) for body in bodies]
    assert [one for run in runs for one in run.items] == large
    assert all(sum(map(len, run.items)) <= RANGE_BYTES and len(run.items) <= WANT_ITEMS for run in runs)
    assert [run.start for run in runs] == [sum(len(run.items) for run in runs[:index]) for index in range(len(runs))]


def test_what_became_durable_is_told_to_every_peer(ours: Ours) -> None:
    ours.store(ours.items(ALICE, 0, *items(0, 2)))
    assert [peer for peer, _ in ours.sent(FrameType.HEADS)] == [ALICE, BOB]


def test_news_of_one_moment_is_one_message(ours: Ours) -> None:
    ours.write(ours.name, 1)
    ours.write(ours.name, 1)
    ((_, body),) = [one for one in ours.sent(FrameType.HEADS) if one[0] == ALICE]
    assert open_heads(AUDIT, body)[LOG].size == 2


def test_heads_are_told_again_in_case_something_was_lost(ours: Ours) -> None:
    with_log(ours, 1)
    assert ours.machine.deadline == HEADS_EVERY
    ours.wait(HEADS_EVERY)
    assert [peer for peer, _ in ours.sent(FrameType.HEADS)] == [ALICE, BOB]
    assert ours.machine.deadline == 2 * HEADS_EVERY


def test_heads_are_not_told_again_to_who_has_told_the_same(ours: Ours) -> None:
    with_log(ours, 1)
    ours.heads(BOB, 1, ALICE)
    ours.wait(HEADS_EVERY)
    assert [peer for peer, _ in ours.sent(FrameType.HEADS)] == [ALICE]
    ours.write(ALICE, 1)
    ours.sent(FrameType.HEADS)
    ours.wait(HEADS_EVERY)
    assert [peer for peer, _ in ours.sent(FrameType.HEADS)] == [ALICE, BOB]


def test_more_heads_than_one_message_holds_go_in_several() -> None:
    heads = {number.to_bytes(16, "big"): Head(ALICE, 1, bytes(32)) for number in range(4097)}
    first, second = make_heads(AUDIT, heads)
    assert open_heads(AUDIT, first) | open_heads(AUDIT, second) == heads


def test_a_peer_that_was_never_there_can_go() -> None:
    ours = Ours()
    ours.machine.peer_closed(ALICE)
    assert ours.machine.messages_to_send() == []


def test_nothing_is_dropped_that_is_not_being_stored(ours: Ours) -> None:
    ours.machine.dropped(LOG, 0.0)
    ours.heads(BOB, 2, CAROL)
    ours.machine.dropped(LOG, 0.0)
    assert wants(ours) == [(BOB, Want(LOG, 0, 2))]


def test_without_peers_nothing_is_due() -> None:
    ours = Ours()
    assert ours.machine.deadline == math.inf
    ours.open(ALICE)
    ours.machine.peer_closed(ALICE)
    assert ours.machine.deadline == math.inf
    assert ours.machine.tick(1000.0) == []


# --- asking -----------------------------------------------------------------------------------------------------------


def test_a_longer_log_is_asked_for_from_our_end_on(ours: Ours) -> None:
    with_log(ours, 3)
    assert ours.heads(BOB, 300, ALICE) == []
    assert wants(ours) == [(BOB, Want(LOG, 3, WANT_ITEMS))]


def test_what_comes_is_handed_over_and_counts_once_it_is_durable(ours: Ours) -> None:
    ours.heads(BOB, 2, ALICE)
    events = ours.items(BOB, 0, *items(0, 2))
    assert events == [ItemsVerified(LOG, ALICE, 0, tuple(items(0, 2)))]
    assert ours.machine.heads == {}
    ours.store(events)
    assert ours.machine.heads == {LOG: head(2, ALICE)}


def test_the_rest_is_asked_for_when_the_first_part_is_durable(ours: Ours) -> None:
    ours.heads(BOB, 4, ALICE)
    assert wants(ours) == [(BOB, Want(LOG, 0, 4))]
    events = ours.items(BOB, 0, *items(0, 3))
    assert wants(ours) == []
    ours.store(events)
    assert wants(ours) == [(BOB, Want(LOG, 3, 1))]


def test_one_range_of_a_log_is_asked_of_one_peer(ours: Ours) -> None:
    ours.heads(BOB, 5, ALICE)
    ours.heads(ALICE, 5, ALICE)
    assert wants(ours) == [(BOB, Want(LOG, 0, 5))]


def test_the_author_is_asked_first(ours: Ours) -> None:
    ours.heads(BOB, 5, ALICE)
    ours.heads(ALICE, 5, ALICE)
    wants(ours)
    ours.store(ours.items(BOB, 0, *items(0, 2)))
    assert wants(ours) == [(ALICE, Want(LOG, 2, 3))]


def test_a_log_that_is_not_wanted_is_neither_asked_for_nor_taken() -> None:
    chains = ToyChains()
    machine = Reconcile(AUDIT, node("ours"), chains, wanted=lambda log_id, _node_id: log_id != LOG)
    ours = Ours()
    ours.machine = machine
    ours.open(BOB)
    ours.heads(BOB, 2, ALICE)
    assert wants(ours) == []
    assert ours.items(BOB, 0, *items(0, 2)) == []
    assert chains.checks == 0


def test_a_newer_copy_of_our_own_log_is_asked_for_like_any_other(ours: Ours) -> None:
    ours.write(ours.name, 1)
    ours.machine.messages_to_send()
    ours.heads(BOB, 3, ours.name)
    assert wants(ours) == [(BOB, Want(LOG, 1, 2))]
    assert ours.items(BOB, 1, *items(1, 2)) == [ItemsVerified(LOG, ours.name, 1, tuple(items(1, 2)))]


def test_a_pushed_item_that_follows_is_taken_without_asking(ours: Ours) -> None:
    with_log(ours, 2)
    assert ours.items(ALICE, 2, item(2)) == [ItemsVerified(LOG, ALICE, 2, (item(2),))]


def test_a_pushed_item_that_does_not_follow_is_left_and_its_log_asked_for(ours: Ours) -> None:
    assert ours.items(ALICE, 4, item(4)) == []
    ours.heads(ALICE, 5, ALICE)
    assert wants(ours) == [(ALICE, Want(LOG, 0, 5))]


def test_what_comes_while_items_are_being_stored_is_asked_for_later(ours: Ours) -> None:
    first = ours.items(ALICE, 0, item(0))
    assert ours.items(ALICE, 1, item(1)) == []
    ours.heads(ALICE, 2, ALICE)
    assert wants(ours) == []
    ours.store(first)
    assert wants(ours) == [(ALICE, Want(LOG, 1, 1))]


# --- answering --------------------------------------------------------------------------------------------------------


def test_a_range_that_a_peer_lacks_is_read_and_sent(ours: Ours) -> None:
    with_log(ours, 5)
    (wanted,) = ours.want(BOB, 2, 256)
    assert wanted == RangeWanted(BOB, LOG, 2, 3)
    ours.machine.supply(RangeWanted(BOB, LOG, 2, 3), items(2, 3))
    ((peer, body),) = ours.sent(FrameType.ITEMS)
    assert (peer, open_items(AUDIT, body)) == (BOB, open_items(AUDIT, make_map(1, LOG, 2, items(2, 3), 2)))


def test_an_answer_holds_no_more_than_one_message(ours: Ours) -> None:
    with_log(ours, 5)
    ours.machine.supply(RangeWanted(BOB, LOG, 0, 256), [item(0, "x" * 50_000)] * 100)
    ((_, body),) = ours.sent(FrameType.ITEMS)
    assert len(open_items(AUDIT, body).items) == RANGE_BYTES // 50_020


@pytest.mark.parametrize("start", [5, 6])
def test_what_we_do_not_have_is_answered_with_nothing(ours: Ours, start: int) -> None:
    with_log(ours, 5)
    assert ours.want(BOB, start, 1) == []
    ((_, body),) = ours.sent(FrameType.ITEMS)
    assert open_items(AUDIT, body).items == ()


def test_an_item_of_ours_that_cannot_be_read_is_not_sent(ours: Ours) -> None:
    class Edited(ToyChains):
        def number_of(self, one: bytes) -> int:
            from overlay.core.wire import malformed

            malformed("edited")

    ours.machine = Reconcile(AUDIT, ours.name, Edited())
    ours.open(BOB)
    ours.machine.messages_to_send()
    ours.machine.supply(RangeWanted(BOB, LOG, 0, 1), [item(0)])
    ((_, body),) = ours.sent(FrameType.ITEMS)
    assert open_items(AUDIT, body).items == ()


def test_nothing_is_sent_to_a_peer_that_has_gone(ours: Ours) -> None:
    with_log(ours, 1)
    ours.machine.peer_closed(BOB)
    ours.machine.supply(RangeWanted(BOB, LOG, 0, 1), items(0, 1))
    assert ours.machine.messages_to_send() == []


# --- silence and other faults that are nobody's ------------------------------------------------------------------------


def test_what_does_not_come_in_time_is_asked_of_another(ours: Ours) -> None:
    ours.heads(BOB, 5, CAROL)
    ours.heads(ALICE, 5, CAROL)
    assert wants(ours) == [(BOB, Want(LOG, 0, 5))]
    assert ours.machine.deadline == REPLICATION_ANSWER_WITHIN
    ours.wait(REPLICATION_ANSWER_WITHIN)
    assert wants(ours) == [(ALICE, Want(LOG, 0, 5))]


def test_a_silent_peer_is_asked_again_after_ever_longer_pauses(ours: Ours) -> None:
    ours.heads(BOB, 5, ALICE)
    asked = []
    for _ in range(60):
        asked += [ours.now for _ in wants(ours)]
        ours.wait(5.0)
    assert asked == [0.0, 10.0, 25.0, 50.0, 95.0, 160.0, 225.0, 290.0]


def test_an_answer_that_comes_late_is_still_taken(ours: Ours) -> None:
    ours.heads(BOB, 2, CAROL)
    ours.heads(ALICE, 2, CAROL)
    ours.wait(REPLICATION_ANSWER_WITHIN)
    events = ours.items(BOB, 0, *items(0, 2))
    assert len(events) == 1
    ours.store(events)
    assert ours.items(ALICE, 0, *items(0, 2)) == []


def test_an_empty_answer_lets_another_be_asked_at_once(ours: Ours) -> None:
    ours.heads(BOB, 5, CAROL)
    ours.heads(ALICE, 5, CAROL)
    wants(ours)
    assert ours.items(BOB, 0, wanted=0) == []
    assert wants(ours) == [(ALICE, Want(LOG, 0, 5))]


def test_an_answer_of_another_range_lets_another_be_asked_at_once(ours: Ours) -> None:
    ours.heads(BOB, 5, CAROL)
    ours.heads(ALICE, 5, CAROL)
    wants(ours)
    assert ours.items(BOB, 3, item(3), item(4), wanted=0) == []
    assert wants(ours) == [(ALICE, Want(LOG, 0, 5))]
    assert ours.chains.checks == 0


def test_a_push_of_later_items_is_no_answer_and_the_range_stays_wanted(ours: Ours) -> None:
    ours.heads(BOB, 5, CAROL)
    ours.heads(ALICE, 5, CAROL)
    wants(ours)
    assert ours.items(BOB, 3, item(3), item(4)) == []
    assert wants(ours) == []
    assert len(ours.items(BOB, 0, item(0), item(1), wanted=0)) == 1


def test_what_a_peer_owes_when_it_goes_is_asked_of_another(ours: Ours) -> None:
    ours.heads(BOB, 5, CAROL)
    ours.heads(ALICE, 5, CAROL)
    wants(ours)
    ours.machine.peer_closed(BOB)
    assert ours.machine.deadline <= ours.now
    ours.wait(0)
    assert wants(ours) == [(ALICE, Want(LOG, 0, 5))]
    assert ours.machine.deadline > ours.now


def test_items_are_stored_even_if_the_peer_that_sent_them_goes(ours: Ours) -> None:
    ours.heads(BOB, 2, ALICE)
    events = ours.items(BOB, 0, *items(0, 2))
    ours.machine.peer_closed(BOB)
    ours.store(events)
    assert ours.machine.heads == {LOG: head(2, ALICE)}


def test_a_head_that_shrinks_is_ignored(ours: Ours) -> None:
    ours.heads(BOB, 5, ALICE)
    wants(ours)
    assert ours.heads(BOB, 3, ALICE) == []
    ours.store(ours.items(BOB, 0, *items(0, 4)))
    assert wants(ours) == [(BOB, Want(LOG, 4, 1))]


def test_a_head_that_was_told_before_is_no_event(ours: Ours) -> None:
    with_log(ours, 5)
    assert ours.heads(BOB, 5, ALICE) == [PeerAgrees(BOB, LOG, 5)]
    assert ours.heads(BOB, 5, ALICE) == []


def test_items_that_could_not_be_stored_are_asked_for_again(ours: Ours) -> None:
    ours.heads(BOB, 2, ALICE)
    ours.items(BOB, 0, *items(0, 2))
    wants(ours)
    ours.machine.dropped(LOG, ours.now)
    assert wants(ours) == []
    ours.wait(REPLICATION_ANSWER_WITHIN)
    assert wants(ours) == [(BOB, Want(LOG, 0, 2))]


def test_a_log_never_shrinks_here(ours: Ours) -> None:
    with_log(ours, 3)
    ours.machine.stored(LOG, head(2, ALICE), ours.now)
    assert ours.machine.heads[LOG].size == 3
    assert len(ours.items(ALICE, 3, item(3))) == 1


# --- items that have to wait -------------------------------------------------------------------------------------------


def test_items_ahead_of_their_time_are_asked_for_again_soon_and_then_less_often(ours: Ours) -> None:
    ours.heads(ALICE, 1, ALICE)
    asked = []
    for _ in range(60):
        for _ in wants(ours):
            asked.append(ours.now)
            assert ours.items(ALICE, 0, item(0, "later")) == []
        ours.wait(0.25)
    assert asked == [0.0, 0.25, 0.75, 1.75, 3.75, 7.75]
    assert ours.machine.deadline < 16.0


def test_those_before_the_first_that_waits_are_stored(ours: Ours) -> None:
    ours.heads(ALICE, 3, ALICE)
    wants(ours)
    ours.store(ours.items(ALICE, 0, item(0), item(1, "later"), item(2)))
    assert ours.machine.heads == {LOG: head(1, ALICE)}
    assert wants(ours) == []
    ours.wait(REPLICATION_HELD_FIRST)
    assert wants(ours) == [(ALICE, Want(LOG, 1, 2))]


def test_an_answer_that_is_good_ends_the_pauses(ours: Ours) -> None:
    ours.heads(ALICE, 2, ALICE)
    ours.items(ALICE, 0, item(0, "later"))
    ours.wait(REPLICATION_HELD_FIRST)
    ours.store(ours.items(ALICE, 0, item(0)))
    wants(ours)
    ours.items(ALICE, 1, item(1, "later"))
    ours.wait(REPLICATION_HELD_FIRST)
    assert wants(ours) == [(ALICE, Want(LOG, 1, 1))]


# --- liars -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [FrameType.HEADS, FrameType.WANT, FrameType.ITEMS])
@pytest.mark.parametrize("body", [b"", b"garbage", make_map(1), make_map(1, b"short", 0, 1), b"\xa0" * 2_000_000])
def test_garbage_is_misbehaviour(ours: Ours, frame: FrameType, body: bytes) -> None:
    (event,) = ours.machine.receive(BOB, frame, body, 0.0)
    assert isinstance(event, Misbehaved)
    assert (event.peer, event.reason) in {(BOB, Reason.MALFORMED), (BOB, Reason.TOO_LARGE)}


def test_messages_about_another_kind_of_chain_are_misbehaviour(ours: Ours) -> None:
    body = make_want(ChainKind.TOPIC, Want(LOG, 0, 1))
    assert ours.machine.receive(BOB, FrameType.WANT, body, 0.0) == [
        Misbehaved(BOB, Reason.UNSUPPORTED, "another kind of chain")
    ]


def test_another_frame_is_misbehaviour(ours: Ours) -> None:
    assert ours.machine.receive(BOB, FrameType.CALL, b"", 0.0) == [Misbehaved(BOB, Reason.UNEXPECTED_FRAME, "CALL")]


def test_two_heads_of_one_log_are_misbehaviour(ours: Ours) -> None:
    row = [LOG, ALICE, 1, bytes(32)]
    (event,) = ours.machine.receive(BOB, FrameType.HEADS, make_map(1, [row, row]), 0.0)
    assert isinstance(event, Misbehaved)


@pytest.mark.parametrize("count", [0, WANT_ITEMS + 1])
def test_a_want_of_nothing_or_too_much_is_misbehaviour(ours: Ours, count: int) -> None:
    with_log(ours, 5)
    (event,) = ours.want(BOB, 0, count)
    assert isinstance(event, Misbehaved)


def test_more_items_than_a_message_may_hold_are_misbehaviour(ours: Ours) -> None:
    (event,) = ours.items(ALICE, 0, *items(0, WANT_ITEMS + 1))
    assert isinstance(event, Misbehaved)
    assert ours.chains.checks == 0


def test_an_item_that_does_not_hold_is_misbehaviour_and_changes_nothing(ours: Ours) -> None:
    ours.heads(BOB, 2, ALICE)
    ours.heads(ALICE, 2, ALICE)
    wants(ours)
    events = ours.items(BOB, 0, item(0), item(1, "bad"))
    assert events == [Misbehaved(BOB, Reason.BAD_SIGNATURE, "a bad item")]
    assert ours.machine.heads == {}
    assert wants(ours) == [(ALICE, Want(LOG, 0, 2))]


def test_items_of_another_log_are_misbehaviour(ours: Ours) -> None:
    ours.heads(BOB, 2, ALICE)
    (event,) = ours.items(BOB, 0, item(0, log=b"M" * 16))
    assert isinstance(event, Misbehaved)


def test_a_check_that_fails_refuses(ours: Ours) -> None:
    class Broken(ToyChains):
        def check(self, *_: object) -> int:
            raise RuntimeError("a bug")

    ours.machine = Reconcile(AUDIT, ours.name, Broken())
    ours.open(BOB)
    (event,) = ours.items(BOB, 0, item(0))
    assert isinstance(event, Misbehaved)
    assert event.reason is Reason.INTERNAL


def test_who_misbehaved_is_heard_no_more(ours: Ours) -> None:
    ours.machine.receive(BOB, FrameType.HEADS, b"garbage", 0.0)
    assert ours.heads(BOB, 5, ALICE) == []
    ours.write(ours.name, 1)
    assert {peer for peer, _, _ in ours.machine.messages_to_send()} == {ALICE}


def test_a_stranger_is_not_heard(ours: Ours) -> None:
    assert ours.heads(CAROL, 5, CAROL) == []
    assert ours.machine.messages_to_send() == []


def test_a_peer_cannot_name_logs_without_end(ours: Ours) -> None:
    events = []
    for start in range(0, LOGS_PER_PEER + 4096, 4096):
        ids = [number.to_bytes(16, "big") for number in range(start, start + 4096)]
        (body,) = make_heads(AUDIT, {log: Head(BOB, 1, bytes(32)) for log in ids})
        events += [event for event in ours.machine.receive(BOB, FrameType.HEADS, body, 0.0) if isinstance(event, Misbehaved)]
    assert events == [Misbehaved(BOB, Reason.QUOTA, "too many logs")]


def test_a_liar_with_many_logs_does_not_starve_the_others(ours: Ours) -> None:
    for number in range(50):
        ours.heads(BOB, 9, BOB, log=b"fake%12d" % number)
    ours.heads(ALICE, 1, ALICE)
    asked = wants(ours)
    assert len([one for one in asked if one[0] == BOB]) == WANTS_PER_PEER
    assert asked[-1] == (ALICE, Want(LOG, 0, 1))


def test_an_author_that_owes_us_enough_is_spared_by_asking_others(ours: Ours) -> None:
    ours.open(CAROL)
    for number in range(WANTS_PER_PEER + 2):
        for peer in (BOB, CAROL):
            ours.heads(peer, 9, BOB, log=b"many%12d" % number)
    asked = [peer for peer, _ in wants(ours)]
    assert (asked.count(BOB), asked.count(CAROL)) == (WANTS_PER_PEER, 2)


def test_of_logs_that_a_peer_never_named_nothing_is_remembered(ours: Ours) -> None:
    for number in range(9):
        log = b"fake%12d" % number
        assert ours.items(BOB, 0, item(0, "later", log=log), log=log) == []
    assert ours.machine.deadline == HEADS_EVERY


def test_no_more_logs_are_held_than_we_can_follow() -> None:
    heads = [(number.to_bytes(16, "big"), Head(ALICE, 1, bytes(32))) for number in range(LOGS_MAX)]
    ours = Ours()
    ours.machine = Reconcile(AUDIT, ours.name, ours.chains, heads)
    ours.open(BOB)
    assert ours.items(BOB, 0, item(0)) == []
    assert ours.chains.checks == 0


def test_another_history_that_nobody_asked_for_is_reported_too(ours: Ours) -> None:
    with_log(ours, 2)
    assert ours.items(BOB, 2, item(2, "fork")) == [HeadsDiffer(BOB, LOG, 2)]


def test_items_that_are_stored_are_waited_for_as_long_as_it_takes(ours: Ours) -> None:
    ours.heads(BOB, 2, ALICE)
    events = ours.items(BOB, 0, *items(0, 2))
    ours.heads(ALICE, 2, ALICE)
    wants(ours)
    ours.wait(10 * REPLICATION_ANSWER_WITHIN)
    assert wants(ours) == []
    ours.store(events)
    assert ours.machine.heads == {LOG: head(2, ALICE)}


def test_items_that_could_not_be_stored_after_their_peer_went_are_asked_of_another(ours: Ours) -> None:
    ours.heads(BOB, 2, CAROL)
    ours.items(BOB, 0, *items(0, 2))
    ours.heads(ALICE, 2, CAROL)
    wants(ours)
    ours.machine.peer_closed(BOB)
    ours.machine.dropped(LOG, ours.now)
    assert wants(ours) == [(ALICE, Want(LOG, 0, 2))]


def test_what_is_under_way_is_bounded() -> None:
    ours = Ours()
    peers = [node(f"peer {number}") for number in range(WANTS_AT_ONCE)]
    ours.open(*peers)
    for number, peer in enumerate(peers):
        for log in (b"a%15d" % number, b"b%15d" % number):
            ours.heads(peer, 9, peer, log=log)
    assert len(wants(ours)) == WANTS_AT_ONCE
    late = b"c" * 16
    assert ours.items(peers[0], 0, item(0, log=late), log=late) == []


def test_a_peer_that_sends_one_item_after_the_other_is_asked_after_all_others(ours: Ours) -> None:
    """Slowly, for ever: each answer comes in time, and holds as little as it can."""
    ours.open(CAROL)
    slow, other = sorted((BOB, CAROL))  # of two that owe us as little, the one with the lower id is asked
    for peer in (slow, other):
        ours.heads(peer, 100, ALICE)
    assert wants(ours) == [(slow, Want(LOG, 0, 100))]
    ours.store(ours.items(slow, 0, item(0), wanted=0))
    assert wants(ours) == [(other, Want(LOG, 1, 99))]
    ours.store(ours.items(other, 1, *items(1, 99), wanted=1))
    assert ours.chains.size(LOG) == 100


def test_who_is_alone_and_slow_is_asked_again_later_and_later(ours: Ours) -> None:
    ours.heads(BOB, 100, ALICE)
    wants(ours)
    ours.store(ours.items(BOB, 0, item(0), wanted=0))
    for number, pause in enumerate((REPLICATION_ANSWER_WITHIN, 2 * REPLICATION_ANSWER_WITHIN), 1):
        assert wants(ours) == []
        ours.wait(pause - 0.1)
        assert wants(ours) == []
        ours.wait(0.1)
        assert wants(ours) == [(BOB, Want(LOG, number, 100 - number))]
        ours.store(ours.items(BOB, number, item(number), wanted=number))


def test_an_answer_that_is_as_large_as_it_may_be_is_not_short(ours: Ours) -> None:
    ours.heads(BOB, 100, ALICE)
    wants(ours)
    large = [item(number, "x" * (ENTRY_MAX - 100)) for number in range(8)]
    ours.store(ours.items(BOB, 0, *large, wanted=0))
    assert wants(ours) == [(BOB, Want(LOG, 8, 92))]


# --- two histories ------------------------------------------------------------------------------------------------------


def test_another_root_for_our_size_is_reported_once(ours: Ours) -> None:
    with_log(ours, 3)
    assert ours.heads(BOB, 3, ALICE, root=b"other" + bytes(27)) == [HeadsDiffer(BOB, LOG, 3)]
    assert ours.heads(BOB, 3, ALICE, root=b"other" + bytes(27)) == []


def test_another_root_is_reported_when_our_log_reaches_that_size(ours: Ours) -> None:
    with_log(ours, 2)
    ours.heads(BOB, 3, ALICE, root=b"other" + bytes(27))
    ours.store(ours.items(ALICE, 2, item(2)))
    assert ours.machine.deadline <= ours.now
    assert ours.wait(0) == [HeadsDiffer(BOB, LOG, 3)]
    assert ours.machine.deadline > ours.now


def test_another_history_is_not_the_fault_of_who_shows_it(ours: Ours) -> None:
    with_log(ours, 2)
    ours.heads(BOB, 3, ALICE)
    wants(ours)
    assert ours.items(BOB, 2, item(2, "fork")) == [HeadsDiffer(BOB, LOG, 2)]
    assert ours.items(BOB, 2, item(2, "fork")) == []
    for _ in range(20):
        ours.wait(10.0)
    assert wants(ours) == []
    assert len(ours.items(ALICE, 2, item(2))) == 1


# --- topics lose their start ---------------------------------------------------------------------------------------------


@pytest.fixture
def topics() -> Ours:
    ours = Ours(ChainKind.TOPIC)
    ours.open(ALICE, BOB, CAROL)
    ours.machine.messages_to_send()
    return ours


def test_a_chain_begins_where_its_author_still_has_it(topics: Ours) -> None:
    topics.heads(ALICE, 9, ALICE)
    assert topics.items(ALICE, 7, item(7), item(8), wanted=0) == [ItemsVerified(LOG, ALICE, 7, (item(7), item(8)))]


def test_a_push_by_the_author_does_not_say_that_what_was_before_is_gone(topics: Ours) -> None:
    topics.heads(ALICE, 9, ALICE)
    assert topics.items(ALICE, 7, item(7), item(8)) == []
    assert len(topics.items(ALICE, 0, item(0), wanted=0)) == 1


def test_a_gap_counts_only_when_all_others_were_asked(topics: Ours) -> None:
    topics.heads(BOB, 9, ALICE)
    topics.heads(CAROL, 9, ALICE)
    assert topics.items(BOB, 7, item(7), item(8), wanted=0) == []
    assert [peer for peer, _ in wants(topics)] == [BOB, CAROL]
    assert len(topics.items(CAROL, 0, item(0), wanted=0)) == 1


def test_a_gap_that_everyone_has_is_taken(topics: Ours) -> None:
    topics.heads(BOB, 9, ALICE)
    topics.heads(CAROL, 9, ALICE)
    assert topics.items(BOB, 7, item(7), item(8), wanted=0) == []
    assert topics.items(CAROL, 5, item(5), wanted=0) == [ItemsVerified(LOG, ALICE, 5, (item(5),))]


def test_a_gap_is_taken_when_the_others_are_silent(topics: Ours) -> None:
    topics.heads(BOB, 9, ALICE)
    topics.heads(CAROL, 9, ALICE)
    assert topics.items(BOB, 7, item(7), item(8), wanted=0) == []
    for _ in range(4):
        topics.wait(REPLICATION_ANSWER_WITHIN)
        if BOB in [peer for peer, _ in wants(topics)] and topics.items(BOB, 7, item(7), item(8), wanted=0):
            return
    pytest.fail("the gap was never taken")


def test_a_gap_that_nobody_asked_about_is_not_taken(topics: Ours) -> None:
    assert topics.items(ALICE, 7, item(7)) == []
    assert topics.chains.checks == 0


def test_an_audit_log_never_has_a_gap(ours: Ours) -> None:
    ours.heads(ALICE, 9, ALICE)
    assert ours.items(ALICE, 7, item(7), item(8)) == []
    assert ours.chains.checks == 0


def test_an_answer_begins_where_the_chain_still_is(topics: Ours) -> None:
    topics.write(topics.name, 9)
    topics.machine.messages_to_send()
    topics.machine.supply(RangeWanted(BOB, LOG, 0, 9), [item(7), item(8)])
    ((_, body),) = topics.sent(FrameType.ITEMS)
    assert open_items(ChainKind.TOPIC, body).start == 7
