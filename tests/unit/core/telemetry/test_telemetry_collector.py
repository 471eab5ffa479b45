"""What a collector counts and what it does not: each check broken alone."""

from datetime import timedelta

import pytest

from overlay.core.keys import MeshId
from overlay.core.mesh.load import Rate
from overlay.core.telemetry import aggregates as aggregates_module
from overlay.core.telemetry.aggregates import Aggregates
from overlay.core.telemetry.anchor import ANCHORED_MAX, Anchored
from overlay.core.telemetry.anchors_seen import ANCHORS_MAX, WITHHELD_AFTER
from overlay.core.telemetry.asks import Ask
from overlay.core.telemetry.batch import BATCH_MAX
from overlay.core.telemetry.collector import AGE_MAX, RATED_BYTES, STREAMS_MAX
from overlay.core.telemetry.early import EARLY_MAX, GAP_AFTER
from overlay.core.telemetry.events import Contradicted, Counted, Gap
from overlay.core.telemetry.quarantine import KEPT_BYTES, KEPT_MAX, Quarantine, Quarantined
from overlay.core.telemetry.records import Kind, Series, pack_record
from overlay.core.telemetry.sender import Anchor, TelemetrySender
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.telemetry.telemetry_kit import (
    ALICE,
    AT,
    BOB,
    LOAD,
    STREAM,
    World,
    cut,
    forged,
    records_of,
    sender,
    with_records,
)

ONE = pack_record(LOAD.pack(), Kind.GAUGE, 7.0, 0)
OTHER = pack_record(LOAD.pack(), Kind.GAUGE, 8.0, 0)


def made(count: int, one: TelemetrySender | None = None) -> list[bytes]:
    """Batches of one stream, with the values 1, 2, 4, ..."""
    one = one or sender()
    return [cut(one, float(2**number)) for number in range(count)]


def gaps(events: list[object]) -> list[Gap]:
    return [event for event in events if isinstance(event, Gap)]


# --- what counts --------------------------------------------------------------------------------------------------------


def test_batches_in_order_are_summed_by_series_and_author() -> None:
    world = World()
    for raw in made(3):
        world.counts(raw)
    for raw in made(2, sender(BOB)):
        world.counts(raw, BOB)
    assert world.totals() == {(ALICE.node_id, "load"): 7.0, (BOB.node_id, "load"): 3.0}


def test_what_is_known_of_a_series() -> None:
    world = World()
    one = sender()
    world.counts(cut(one, 3.0, 9.0, 5.0))
    ((who, found),) = list(world.collector.aggregates)
    assert (who, found.series, found.kind, found.level) == (ALICE.node_id, LOAD, Kind.GAUGE, 1)
    assert (found.count, found.total, found.low, found.high, found.last) == (3, 17.0, 3.0, 9.0, 5.0)


def test_a_batch_counts_for_who_signed_it_and_not_for_who_hands_it_over() -> None:
    world = World()
    world.counts(made(1)[0], BOB)
    assert world.totals() == {(ALICE.node_id, "load"): 1.0}


# --- each check broken alone --------------------------------------------------------------------------------------------


def test_what_is_too_large_is_not_even_read() -> None:
    assert World().refused(bytes(BATCH_MAX + 1)) is Reason.TOO_LARGE


def test_bytes_that_are_no_batch() -> None:
    assert World().refused(b"\xa0") is Reason.UNSUPPORTED
    assert World().refused(b"") is Reason.MALFORMED


def test_an_author_whom_nobody_knows() -> None:
    assert World(BOB).refused(made(1)[0]) is Reason.WRONG_AUTHOR


def test_a_signature_over_something_else() -> None:
    raw = bytearray(made(1)[0])
    raw[raw.index(b"host")] ^= 1
    assert World().refused(bytes(raw)) is Reason.BAD_SIGNATURE


def test_a_batch_of_another_mesh() -> None:
    assert World().refused(forged([ONE], mesh_id=MeshId(bytes(32)))) is Reason.BAD_SIGNATURE


def test_a_batch_in_the_name_of_another() -> None:
    assert World().refused(forged([ONE], author=BOB.node_id)) is Reason.WRONG_AUTHOR


def test_a_batch_outside_the_life_of_its_endorsement() -> None:
    world = World()
    early = int((world.known.members[ALICE.kid].not_before - timedelta(seconds=1)).timestamp() * 1000)
    assert world.refused(forged([ONE], at=early)) is Reason.NOT_IN_FORCE


@pytest.mark.parametrize("reason", [Reason.REVOKED, Reason.QUARANTINED, Reason.LEASE_EXPIRED])
def test_a_batch_of_one_who_does_not_count_any_more(reason: Reason) -> None:
    world = World()
    first, second = made(2)
    world.counts(first)
    world.known.refused[ALICE.node_id] = reason
    assert world.refused(second) is reason
    assert world.totals() == {(ALICE.node_id, "load"): 1.0}


def test_an_author_below_the_level() -> None:
    assert World(level=2).refused(made(1)[0]) is Reason.LEVEL_TOO_LOW


def test_a_guard_that_fails_refuses() -> None:
    world = World()
    world.known.fails = True
    assert world.refused(made(1)[0]) is Reason.INTERNAL


def test_a_batch_that_comes_twice() -> None:
    world = World()
    first, second = made(2)
    world.counts(first)
    assert world.refused(first) is Reason.TELEMETRY_REPEATED
    world.counts(second)
    assert world.refused(first) is Reason.TELEMETRY_REPEATED


def test_two_batches_with_one_number() -> None:
    world = World()
    world.counts(forged([ONE]))
    assert world.refused(forged([OTHER])) is Reason.TELEMETRY_FORKED


def test_a_batch_that_does_not_follow_from_the_one_before() -> None:
    world = World()
    world.counts(forged([ONE]))
    assert world.refused(forged([OTHER], seq=1, prev=bytes([1]) * 32)) is Reason.CHAIN_BROKEN


def test_an_edited_batch_is_refused_and_the_true_one_asked_for() -> None:
    world = World()
    (true,) = made(1)
    assert world.refused(with_records(true, [OTHER])) is Reason.TELEMETRY_ROOT
    assert world.collector.messages_to_send() == [(ALICE.node_id, Ask(STREAM, 0, 1))]
    assert world.counts(true) == [0]


@pytest.mark.parametrize("change", [[0, 2, 1], [0, 1], [0, 1, 2, 2], []], ids=["order", "less", "more", "none"])
def test_records_in_another_order_or_number(change: list[int]) -> None:
    true = cut(sender(), 1.0, 2.0, 3.0)
    records = records_of(true)
    assert World().refused(with_records(true, [records[place] for place in change])) is Reason.TELEMETRY_ROOT


def test_a_count_that_lies() -> None:
    assert World().refused(forged([ONE, OTHER], count=1)) is Reason.TELEMETRY_ROOT
    assert World().refused(forged([ONE], count=2)) is Reason.TELEMETRY_ROOT


def test_a_batch_from_the_future_does_not_count_and_its_stream_goes_on() -> None:
    world, one = World(), sender()
    future = cut(one, 64.0, at=AT.timestamp() + 400)
    assert world.refused(future) is Reason.CLOCK
    assert world.counts(cut(one, 1.0)) == [1]
    assert world.totals() == {(ALICE.node_id, "load"): 1.0}


def test_a_batch_from_long_ago_does_not_count() -> None:
    world = World()
    raw = made(1)[0]
    world.at += timedelta(seconds=AGE_MAX + 400)
    assert world.refused(raw) is Reason.CLOCK


@pytest.mark.parametrize(
    "records",
    [
        [ONE, b"not a record at all"],
        [ONE, pack_record(b"\xa0", Kind.GAUGE, 1.0, 0)],
        [ONE, pack_record(LOAD.pack(), Kind.COUNTER, 1.0, 0)],
    ],
    ids=["form", "series", "kind"],
)
def test_a_batch_with_one_bad_record_does_not_count_at_all(records: list[bytes]) -> None:
    assert World().refused(forged(records)) in {Reason.MALFORMED, Reason.UNSUPPORTED}


def test_more_series_than_one_author_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Aggregates(series_per_author=2)
    records = [pack_record(Series.of(name).pack(), Kind.GAUGE, 1.0, 0) for name in "abc"]
    with pytest.raises(Refused, match="series of one author"):
        table.add(ALICE.node_id, 1, 0, records)
    assert list(table) == []
    table.add(ALICE.node_id, 1, 0, records[:2])
    monkeypatch.setattr(aggregates_module, "AUTHORS_MAX", 1)
    with pytest.raises(Refused, match="authors"):
        table.add(BOB.node_id, 1, 0, records[:1])


# --- many ---------------------------------------------------------------------------------------------------------------


def test_a_flood_of_one_takes_nothing_from_the_others() -> None:
    world = World(rate=Rate(per_second=10, burst=20))
    flood = made(1)[0]
    found = [world.give(flood, BOB)[0] for _ in range(10_000)]
    refused = [one for one in found if isinstance(one, Quarantined) and one.reason is Reason.TOO_MANY]
    assert len(refused) == 10_000 - 20
    assert world.counts(made(1, sender(stream=bytes(16)))[0]) == [0]
    assert len(list(world.collector.quarantine)) == 19  # repeated ones; what is over the rate is counted only
    assert world.collector.quarantine.counts[BOB.node_id, Reason.TOO_MANY] == 10_000 - 20


def test_a_large_batch_takes_as_much_of_the_rate_as_many_small_ones() -> None:
    world = World(rate=Rate(per_second=1, burst=20))
    many = (Series.of("load", {"core": f"{number}", "of": "x" * 64}) for number in range(1000))
    records = [pack_record(series.pack(), Kind.GAUGE, 7.0, 0) for series in many]
    large = forged(records, BOB)
    assert len(large) > 20 * RATED_BYTES
    assert isinstance(world.give(large, BOB)[0], Counted)
    assert world.refused(forged([ONE], BOB, seq=1), BOB) is Reason.TOO_MANY
    assert world.counts(forged([ONE], stream=bytes(16))) == [0]


def test_streams_of_one_author_are_bounded_until_some_are_over() -> None:
    world = World()
    for number in range(STREAMS_MAX):
        world.counts(forged([ONE], stream=number.to_bytes(16, "big")))
    assert world.refused(forged([ONE], stream=bytes([255]) * 16)) is Reason.TOO_MANY
    world.wait(AGE_MAX + 700)
    world.counts(forged([ONE], stream=bytes([255]) * 16, at=int(world.at.timestamp() * 1000)))
    assert len(world.collector.chains) == 1


def test_a_quarantine_is_bounded_and_counts_all() -> None:
    place = Quarantine()
    for number in range(KEPT_MAX + 5):
        place.add(Quarantined(at=AT, sender=ALICE.node_id, author=None, reason=Reason.CLOCK, detail=str(number), raw=b""))
    assert len(list(place)) == KEPT_MAX
    assert len(place) == KEPT_MAX + 5
    assert next(iter(place)).detail == "5"
    for _ in range(3):
        half = bytes(KEPT_BYTES // 2)
        place.add(Quarantined(at=AT, sender=ALICE.node_id, author=None, reason=Reason.CLOCK, detail="", raw=half))
    assert sum(len(one.raw) for one in place) <= KEPT_BYTES


# --- gaps ---------------------------------------------------------------------------------------------------------------


def test_what_comes_too_early_waits_and_what_is_missing_is_asked_for() -> None:
    world = World()
    first, second, third, fourth = made(4)
    world.counts(first)
    assert world.give(fourth) == []
    assert world.collector.messages_to_send() == [(ALICE.node_id, Ask(STREAM, 1, 2))]
    assert world.give(third) == []
    assert world.collector.messages_to_send() == []  # asked a moment ago
    assert world.totals() == {(ALICE.node_id, "load"): 1.0}
    assert world.counts(second) == [1, 2, 3]
    assert world.totals() == {(ALICE.node_id, "load"): 15.0}
    assert world.collector.deadline > world.now + 1e9


def test_it_is_asked_for_again_while_it_is_missing() -> None:
    world = World()
    first, _, third = made(3)
    world.counts(first)
    world.give(third)
    world.collector.messages_to_send()
    world.wait(world.collector.deadline - world.now)
    assert world.collector.messages_to_send() == [(ALICE.node_id, Ask(STREAM, 1, 1))]


def test_what_never_comes_is_recorded_as_missing() -> None:
    world = World()
    batches = made(5)
    world.counts(batches[0])
    world.give(batches[3])
    events = world.wait(GAP_AFTER)
    assert gaps(list(events)) == [Gap(author=ALICE.node_id, name="host", stream=STREAM, first=1, count=2)]
    assert world.totals() == {(ALICE.node_id, "load"): 9.0}
    assert world.counts(batches[4]) == [4]
    assert world.collector.chains[ALICE.node_id, STREAM].missing == 2
    assert world.refused(batches[1]) is Reason.TELEMETRY_REPEATED  # too late: it is said to be missing


def test_a_gap_that_only_an_edited_batch_would_fill_is_given_up() -> None:
    world = World()
    first, second = made(2)
    assert world.refused(with_records(first, [OTHER])) is Reason.TELEMETRY_ROOT
    world.give(second)
    events = world.wait(GAP_AFTER)
    assert [type(event) for event in events] == [Gap, Counted]


def test_who_is_revoked_while_a_batch_waits_does_not_count() -> None:
    world = World()
    first, second, third = made(3)
    world.counts(first)
    world.give(third)
    world.known.refused[ALICE.node_id] = Reason.REVOKED
    events = world.wait(GAP_AFTER)
    assert [type(event) for event in events] == [Gap, Quarantined]
    assert world.refused(second) is Reason.REVOKED
    assert world.totals() == {(ALICE.node_id, "load"): 1.0}


def test_a_batch_that_waited_and_does_not_follow_is_refused() -> None:
    world = World()
    world.counts(forged([ONE]))
    assert world.give(forged([OTHER], seq=2, prev=bytes([9]) * 32)) == []
    first = world.collector.chains[ALICE.node_id, STREAM].head
    kinds = [type(event) for event in world.give(forged([ONE], seq=1, prev=first))]
    assert kinds == [Counted, Quarantined]
    assert world.totals() == {(ALICE.node_id, "load"): 14.0}


def test_what_waits_is_bounded() -> None:
    world = World()
    batches = made(EARLY_MAX + 10)
    for raw in batches[1:]:
        assert world.give(raw) == []
    assert world.counts(batches[0]) == list(range(EARLY_MAX + 1))
    (who, ask), = world.collector.messages_to_send()[-1:]  # fmt: skip
    assert (who, ask.first) == (ALICE.node_id, 0)


# --- anchors ------------------------------------------------------------------------------------------------------------


def anchor_of(one: TelemetrySender) -> tuple[Anchored, ...]:
    (entry,) = one.anchor()
    assert isinstance(entry, Anchor)
    return entry.streams


def test_an_author_that_withholds_batches_is_found_out_by_its_own_log() -> None:
    world, one = World(), sender()
    batches = made(3, one)
    world.counts(batches[0])
    world.collector.anchored(ALICE.node_id, anchor_of(one), world.now)
    assert world.wait(WITHHELD_AFTER - 1) == []
    (event,) = world.wait(1)
    assert isinstance(event, Contradicted)
    assert (event.reason, event.have, event.anchored) == (Reason.TELEMETRY_WITHHELD, 1, 3)


def test_an_anchor_that_agrees_says_nothing() -> None:
    world, one = World(), sender()
    for raw in made(3, one):
        world.counts(raw)
    world.collector.anchored(ALICE.node_id, anchor_of(one), world.now)
    assert world.wait(WITHHELD_AFTER) == []


def test_a_log_that_says_something_else_than_what_came() -> None:
    world = World()
    world.counts(forged([ONE]))
    world.collector.anchored(ALICE.node_id, (Anchored("host", STREAM, 1, bytes(32), 0),), world.now)
    (event,) = world.wait(WITHHELD_AFTER)
    assert isinstance(event, Contradicted)
    assert event.reason is Reason.TELEMETRY_FORKED


def test_a_stream_that_has_to_come_and_never_does() -> None:
    world = World(expects=lambda author, name: (author, name) == (ALICE.node_id, "host"))
    one = sender()
    made(1, one)
    world.collector.anchored(ALICE.node_id, anchor_of(one), world.now)
    world.collector.anchored(BOB.node_id, (Anchored("host", STREAM, 1, bytes(32), 0),), world.now)  # not of us
    (event,) = world.wait(WITHHELD_AFTER)
    assert isinstance(event, Contradicted)
    assert (event.author, event.have) == (ALICE.node_id, 0)


def test_anchors_of_one_author_take_no_place_of_others() -> None:
    world = World(expects=lambda author, name: True)
    for number in range(ANCHORS_MAX):
        world.collector.anchored(BOB.node_id, (Anchored("x", number.to_bytes(16, "big"), 1, bytes(32), 0),), world.now)
    world.collector.anchored(ALICE.node_id, (Anchored("host", STREAM, 9, bytes(32), 0),), world.now)
    found = [event for event in world.wait(WITHHELD_AFTER) if isinstance(event, Contradicted)]
    assert [event.anchored for event in found if event.author == ALICE.node_id] == [9]
    assert sum(event.author == BOB.node_id for event in found) == ANCHORED_MAX


def test_a_stream_of_anchors_puts_nothing_off() -> None:
    world, one = World(), sender()
    world.counts(made(1, one)[0])
    for number in range(1, 4):
        cut(one, float(number))
        world.collector.anchored(ALICE.node_id, anchor_of(one), world.now)
        events = world.wait(WITHHELD_AFTER / 3)
    assert [type(event) for event in events] == [Contradicted]


