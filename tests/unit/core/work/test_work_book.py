"""The runs of a worker from placement to end: what may start, what must stop, and when they are looked at again."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.members import Members
from overlay.core.trust import TrustSet
from overlay.core.work.book import RECHECK_EVERY, Accepted, Begun, Declined, Halted, WorkBook
from overlay.core.work.envelopes import Assignment
from overlay.core.work.records import RECORDS_MAX, Memory, RunRecord
from overlay.core.work.view import WorkerView
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import DAY, HOUR, NOW
from tests.unit.core.work.work_kit import (
    MINUTE,
    SCHEDULER,
    SUBMITTER,
    Levels,
    assign,
    make_workload,
    member,
    quarantining,
    sign,
    view,
    without,
)


def accepted(book: WorkBook, assignment: Assignment | None = None, now: float = 0.0) -> bytes:
    event = book.receive((assignment or assign()).pack(), view(), now, NOW)
    assert isinstance(event, Accepted)
    return event.run.key


def begun(book: WorkBook, assignment: Assignment | None = None, now: float = 0.0) -> bytes:
    key = accepted(book, assignment, now)
    assert isinstance(book.begin(key, view(), NOW), Begun)
    return key


def declined(book: WorkBook, assignment: Assignment | bytes, seen: WorkerView | None = None) -> Reason:
    raw = assignment if isinstance(assignment, bytes) else assignment.pack()
    event = book.receive(raw, seen or view(), 0.0, NOW)
    assert isinstance(event, Declined)
    return event.reason


MANY = sign(make_workload(runs=99))


def test_a_run_is_accepted_begins_and_ends() -> None:
    book = WorkBook()
    assert book.deadline == math.inf
    event = book.receive(assign().pack(), view(), 5.0, NOW)
    assert isinstance(event, Accepted) and book.runs == (event.run,) and book.deadline == 5.0 + RECHECK_EVERY
    assert book.begin(event.run.key, view(), NOW) == Begun(event.run, RunRecord.of(assign()))
    book.end(event.run.key)
    assert book.runs == () and book.deadline == math.inf


def test_what_is_declined_says_why_and_what_was_claimed() -> None:
    bad = assign(by=SUBMITTER)
    event = WorkBook().receive(bad.pack(), view(), 0.0, NOW)
    assert isinstance(event, Declined)
    assert (event.reason, event.claimed) == (Reason.SCHEDULER_ROLE, bad) and event.hint and "alice" in event.detail
    nothing = WorkBook().receive(b"\xff" * 100, view(), 0.0, NOW)
    assert isinstance(nothing, Declined) and nothing.claimed is None


def test_a_workload_of_ten_megabytes_is_declined_by_its_size() -> None:
    assert declined(WorkBook(), bytes(10_000_000)) is Reason.TOO_LARGE


def test_a_placement_that_is_sent_again_does_not_run_again() -> None:
    book = WorkBook()
    key = accepted(book)
    assert declined(book, assign()) is Reason.WORK_REPLAYED  # while it waits
    book.begin(key, view(), NOW)
    assert declined(book, assign()) is Reason.WORK_REPLAYED  # while it runs
    book.end(key)
    assert declined(book, assign()) is Reason.WORK_REPLAYED  # when it is over


def test_one_run_does_not_start_twice_by_two_placements() -> None:
    book = WorkBook()
    accepted(book, assign(MANY))
    assert declined(book, assign(MANY, nonce=b"n" * 16)) is Reason.WORK_REPLAYED
    accepted(book, assign(MANY, run=2))


def test_a_placement_does_not_run_again_after_a_restart() -> None:
    book = WorkBook()
    event = book.begin(accepted(book), view(), NOW)
    assert isinstance(event, Begun)
    stored = RunRecord.unpack(event.record.pack())
    assert stored == event.record
    assert declined(WorkBook([stored]), assign()) is Reason.WORK_REPLAYED


def test_a_run_whose_artifact_never_came_uses_up_nothing() -> None:
    book = WorkBook()
    book.end(accepted(book))
    begun(book)


def test_a_record_is_kept_as_long_as_its_times_would_let_it_run_and_then_forgotten() -> None:
    book = WorkBook()
    book.end(begun(book))
    accepted(book, assign(MANY), now=1.0)
    for at in (NOW + HOUR + 5 * MINUTE, NOW + HOUR + 65 * MINUTE):
        book.tick(view(), book.deadline, at)
        assert book.receive(assign().pack(), view(), 0.0, NOW) == Declined(
            Reason.WORK_REPLAYED, "this placement was here before", Refused(Reason.WORK_REPLAYED).hint, assign()
        )
    before = book.receive(assign().pack(), view(), 0.0, NOW)
    book.tick(view(), book.deadline, NOW + HOUR + 66 * MINUTE)
    after = book.receive(assign().pack(), view(), 0.0, NOW)
    assert isinstance(before, Declined) and isinstance(after, Declined) and before.detail != after.detail


def test_a_clock_that_was_ahead_and_was_set_back_lets_nothing_run_again() -> None:
    book, longer = WorkBook(), sign(make_workload(not_after=NOW + 20 * HOUR))
    book.end(begun(book))
    accepted(book, assign(longer), now=1.0)
    book.tick(view(), book.deadline, NOW + 3 * HOUR)
    assert declined(book, assign()) is Reason.WORK_REPLAYED  # its record is gone


def test_more_runs_than_a_worker_takes_at_once_are_declined_and_may_come_later() -> None:
    book = WorkBook(at_once=1)
    key = begun(book, assign(MANY))
    assert declined(book, assign(MANY, run=2)) is Reason.BUSY
    book.end(key)
    begun(book, assign(MANY, run=2))


def test_no_run_begins_that_could_not_be_remembered() -> None:
    book = WorkBook(
        RunRecord(workload=bytes(32), run=run, placement=bytes(32), until=2**39) for run in range(1, RECORDS_MAX + 1)
    )
    event = book.begin(accepted(book), view(), NOW)
    assert isinstance(event, Halted) and event.reason is Reason.TOO_MANY


def test_memory_counts_what_it_holds() -> None:
    memory = Memory()
    memory.add(RunRecord.of(assign()))
    assert memory.count == 1
    memory.forget(NOW + DAY)
    assert memory.count == 0


# --- revoked between placement and start, and while it runs -------------------------------------------------------------


@pytest.mark.parametrize("trust", [without, quarantining])
def test_a_scheduler_that_is_revoked_between_placement_and_start_starts_nothing(trust: Callable[..., TrustSet]) -> None:
    book = WorkBook()
    key = accepted(book)
    event = book.begin(key, view(trust=trust(SCHEDULER)), NOW)
    assert isinstance(event, Halted) and event.reason is Reason.SCHEDULER_REVOKED and event.run.key == key
    book.end(key)
    assert book.runs == ()


def test_a_run_that_waited_until_its_placement_was_over_does_not_start() -> None:
    book = WorkBook()
    event = book.begin(accepted(book), view(), NOW + 11 * MINUTE)
    assert isinstance(event, Halted) and event.reason is Reason.WORK_TIME


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trust": without(SCHEDULER)}, Reason.SCHEDULER_REVOKED),
        ({"trust": without(SUBMITTER)}, Reason.ORIGINATOR_REVOKED),
        ({"members": Members().with_certificate(member("sched", not_before=NOW).peer.certificate)}, Reason.SCHEDULER_ROLE),
    ],
)
def test_a_revocation_ends_what_runs_and_what_waits_at_once(wait: bool, change: dict[str, Any], reason: Reason) -> None:
    book = WorkBook()
    key = accepted(book) if wait else begun(book)
    assert book.trust_moved(view(), NOW) == []
    [event] = book.trust_moved(view(**change), NOW)
    assert (event.run.key, event.reason) == (key, reason) and event.detail
    assert book.trust_moved(view(**change), NOW) == []  # said once
    assert book.runs  # until the shell has ended it
    book.end(key)
    assert book.runs == ()


def test_both_signers_are_looked_at_again_every_thirty_seconds() -> None:
    book, gone = WorkBook(), view(trust=without(SCHEDULER))
    begun(book, now=100.0)
    assert book.tick(gone, 129.9, NOW) == []
    assert book.tick(view(), 130.0, NOW) == [] and book.deadline == 160.0
    [event] = book.tick(gone, 160.0, NOW)
    assert event.reason is Reason.SCHEDULER_REVOKED


def test_what_has_halted_does_not_begin() -> None:
    book = WorkBook()
    key = accepted(book)
    book.trust_moved(view(trust=without(SCHEDULER)), NOW)
    with pytest.raises(LocalProtocolError):
        book.begin(key, view(), NOW)


def test_a_run_that_goes_on_is_not_ended_by_its_placement_being_over() -> None:
    book = WorkBook()
    begun(book, assign(sign(make_workload(not_after=NOW + MINUTE))))
    assert book.trust_moved(view(), NOW + 2 * HOUR) == []
    waiting = WorkBook()
    accepted(waiting)
    [event] = waiting.trust_moved(view(), NOW + 2 * HOUR)
    assert event.reason is Reason.WORK_TIME


def test_a_guard_that_raises_ends_the_run() -> None:
    levels = Levels()
    book = WorkBook()
    begun(book)
    levels.fault = RuntimeError("broken")
    [event] = book.trust_moved(view(levels), NOW)
    assert event.reason is Reason.INTERNAL
    assert declined(WorkBook(), assign(), view(levels)) is Reason.INTERNAL


def test_only_what_waits_can_begin() -> None:
    book = WorkBook()
    for key in (bytes(32), begun(book)):
        with pytest.raises(LocalProtocolError):
            book.begin(key, view(), NOW)
    book.end(bytes(32))


# --- whatever a scheduler and the machine do ------------------------------------------------------------------------------

RUNS = sign(make_workload(runs=2))
OFFERS = [assign(RUNS, run=run, nonce=bytes([nonce]) * 16).pack() for run in (1, 2) for nonce in (1, 2)]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, 3)), st.tuples(st.just("begin"), st.integers(0, 3)),
        st.tuples(st.just("end"), st.integers(0, 3)), st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("tick"), st.sampled_from([0, 1, 90])),
    ),
    max_size=30,
)  # fmt: skip


class Machine:
    """A worker that stores each record as it should, and may go down at any moment."""

    def __init__(self) -> None:
        self.stored: list[RunRecord] = []
        self.began: list[tuple[bytes, int]] = []
        self.book = WorkBook()
        self.at = NOW
        self.begun: set[bytes] = set()  # by this process

    def offer(self, number: int) -> None:
        self.book.receive(OFFERS[number], view(), 0.0, self.at)

    def begin(self, number: int) -> None:
        waiting = [run for run in self.book.runs if run.key not in self.begun]
        if waiting:
            run = waiting[number % len(waiting)]
            self.begun.add(run.key)
            try:
                event = self.book.begin(run.key, view(), self.at)
            except LocalProtocolError:
                return  # it was halted while it waited
            if isinstance(event, Begun):
                self.stored.append(RunRecord.unpack(event.record.pack()))
                self.began.append((event.record.workload, event.record.run))

    def end(self, number: int) -> None:
        for run in self.book.runs[number : number + 1]:
            self.book.end(run.key)
            self.begun.discard(run.key)

    def restart(self, _: int) -> None:
        self.book = WorkBook(self.stored)
        self.begun.clear()

    def tick(self, minutes: int) -> None:
        self.at += minutes * MINUTE
        self.book.tick(view(), math.inf, self.at)

@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_no_run_ever_begins_twice(steps: list[tuple[str, int]]) -> None:
    machine = Machine()
    for step, number in steps:
        getattr(machine, step)(number)
    assert len(machine.began) == len(set(machine.began)) <= 2
