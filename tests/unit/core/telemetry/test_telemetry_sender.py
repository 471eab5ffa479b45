"""A stream at its sender: what is cut when, what is dropped, what is kept for who asks, and what the log is told."""

import math

import pytest

from overlay.core.telemetry import sender as module
from overlay.core.telemetry.anchor import ANCHOR_EVERY, anchor_body, read_anchor
from overlay.core.telemetry.asks import Ask
from overlay.core.telemetry.batch import RECORDS_MAX, parse_batch
from overlay.core.telemetry.records import Kind, Sample, Series
from overlay.core.telemetry.sender import QUEUE_MAX, Anchor, Cut, TelemetrySender
from overlay.errors import UsageError
from tests.unit.core.session_kit import local
from tests.unit.core.telemetry.telemetry_kit import ALICE, AT, LOAD, MESH, STREAM, author, cut, sender

AT0 = AT.timestamp()


def samples(count: int) -> list[Sample]:
    return [Sample(LOAD, Kind.GAUGE, float(number), AT0) for number in range(count)]


def head_of(raw: bytes) -> module.Head:
    return parse_batch(raw).verify(ALICE.node_id, author(ALICE).message_public, MESH.mesh_id).says


def test_samples_go_a_second_after_the_first_of_them() -> None:
    one = sender()
    one.record(samples(1), 5.0)
    one.record(samples(1), 5.5)
    assert one.deadline == 6.0
    assert one.tick(5.9, AT0) == []
    (made,) = one.tick(6.0, AT0)
    assert isinstance(made, Cut)
    assert head_of(made.raw).count == 2
    assert one.deadline == ANCHOR_EVERY


def test_a_batch_holds_no_more_than_4096_records_and_follows_from_the_one_before() -> None:
    one = sender()
    one.record(samples(RECORDS_MAX + 1), 5.0)
    first, second = (made.raw for made in one.tick(5.0, AT0) if isinstance(made, Cut))
    assert [head_of(raw).count for raw in (first, second)] == [RECORDS_MAX, 1]
    assert head_of(second).seq == 1
    assert head_of(second).prev == parse_batch(first).verify(ALICE.node_id, author(ALICE).message_public, MESH.mesh_id).hash


def test_a_batch_is_never_larger_than_a_collector_takes() -> None:
    long = Series.of("load", {f"label_{number}": "x" * 50 for number in range(12)})
    one = sender()
    one.record([Sample(long, Kind.GAUGE, 1.0, AT0)] * 3000, 0.0)
    made = [cut for cut in one.tick(2.0, AT0) if isinstance(cut, Cut)]
    assert len(made) > 1
    assert sum(len(parse_batch(cut.raw).records) for cut in made) == 3000  # parse_batch refuses what is too large


def test_what_does_not_fit_is_dropped_oldest_first_and_the_count_is_signed() -> None:
    one = sender()
    one.record(samples(QUEUE_MAX + 7), 0.0)
    raw = next(made.raw for made in one.tick(2.0, AT0) if isinstance(made, Cut))
    assert one.dropped == head_of(raw).dropped == 7


def test_a_batch_is_given_again_to_who_asks() -> None:
    one = sender()
    made = [cut(one, float(number)) for number in range(4)]
    assert [again.raw for again in one.receive(Ask(STREAM, 1, 2))] == made[1:3]
    assert [again.raw for again in one.batches_from(2)] == made[2:]
    assert one.receive(Ask(bytes(16), 1, 2)) == []


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 1000)
    one = sender()
    for number in range(20):
        cut(one, float(number))
    kept = one.batches_from(0)
    assert 0 < len(kept) < 5
    assert kept[-1].seq == 19


def test_the_log_is_told_every_minute_how_far_a_stream_goes() -> None:
    one = sender()
    cut(one, 1.0)
    one.record(samples(1), 10.0)
    made = one.tick(ANCHOR_EVERY, AT0)
    anchor = made[-1]
    assert isinstance(anchor, Anchor)
    (says,) = read_anchor(anchor_body(anchor.streams))
    assert (says.name, says.stream, says.size, says.dropped) == ("host", STREAM, 2, 0)
    assert one.tick(2 * ANCHOR_EVERY, AT0) == []  # no news
    assert one.deadline == 3 * ANCHOR_EVERY


def test_samples_of_which_one_is_wrong_are_not_queued() -> None:
    one = sender()
    with pytest.raises(UsageError):
        one.record([*samples(1), Sample(LOAD, Kind.GAUGE, math.nan, AT0)], 0.0)
    with pytest.raises(UsageError):
        one.record([Sample(Series("no name"), Kind.GAUGE, 1.0, AT0)], 0.0)
    assert one.tick(30.0, AT0) == []


@pytest.mark.parametrize(("name", "stream"), [("", STREAM), ("x" * 65, STREAM), ("a\n", STREAM), ("host", b"short")])
def test_a_stream_that_cannot_be(name: str, stream: bytes) -> None:
    with pytest.raises(UsageError, match="name"):
        TelemetrySender(name, stream, own=local(ALICE), mesh_id=MESH.mesh_id, now=0.0)
