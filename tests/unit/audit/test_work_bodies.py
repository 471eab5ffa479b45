"""What workers log of work."""

from typing import Any

import pytest

from audit.bodies import Body, application, describe
from audit.entry import Entry, Place, make_log_id, parse_entry, sign_entry
from audit.work_bodies import read_start, work_end, work_placed_twice, work_refused, work_start, work_stop
from overlay.core.mesh.chains import hlc_of
from overlay.core.work.checks import check_assignment
from overlay.core.work.records import Memory
from overlay.core.work.starts import StartWatch
from overlay.registry import GENESIS, EntryType, Reason, WorkState
from tests.unit.core.authority_kit import NOW, Member
from tests.unit.core.work.work_kit import (
    MESH,
    OTHER_WORKER,
    SCHEDULER,
    SECOND,
    SUBMITTER,
    WORKER,
    assign,
    report,
    sign_both,
    view,
)

RUN = check_assignment(assign(sign_both()).pack(), view(), Memory(), NOW)


def entry(body: Body, by: Member = WORKER, kind: EntryType = EntryType.WORK) -> Entry:
    place = Place(
        node_id=by.node_id, log_id=make_log_id(MESH.mesh_id, by.node_id, 0, GENESIS, by.start_id), seq=1, prev=GENESIS,
        hlc=hlc_of(NOW),
    )
    made = sign_entry(place, kind, body, signer=by.message, kid=by.kid, mesh_id=MESH.mesh_id)
    return parse_entry(made.raw).says


def test_a_start_tells_who_wants_what_where_and_carries_the_placement() -> None:
    made = entry(work_start(RUN))
    shown = describe(made.type, made.body)
    assert shown.pop("carried").endswith(" bytes")
    assert shown == {
        "event": "start", "name": "job", "workload": RUN.placement.workload.hex(), "run": 1, "placement": RUN.key.hex(),
        "scheduler": str(SCHEDULER.node_id), "originators": [str(SUBMITTER.node_id), str(SECOND.node_id)],
    }  # fmt: skip
    assert read_start(made) == RUN.assignment.placement.pack()
    assert len(made.raw) < 2048


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            work_stop(RUN, Reason.SCHEDULER_REVOKED, "x" * 5000),
            {"event": "stop", "reason": "scheduler_revoked", "detail": "x" * 512},
        ),
        (work_end(RUN, report(RUN.assignment.placement)), {"event": "end", "state": "exited", "number": 0}),
        (
            work_end(RUN, report(RUN.assignment.placement, state=WorkState.TIMED_OUT, number=None), "after 600 s"),
            {"event": "end", "state": "timed_out", "detail": "after 600 s"},
        ),
        (
            work_refused(SCHEDULER.node_id, Reason.RUN_COUNT, "run 2"),
            {"event": "refused", "reason": "run_count", "peer": str(SCHEDULER.node_id)},
        ),
    ],
)
def test_people_read_what_became_of_it(body: Body, expected: dict[str, Any]) -> None:
    made = entry(body)
    assert expected.items() <= describe(made.type, made.body).items()
    assert read_start(made) is None


def test_a_run_that_was_placed_twice_is_found_from_entries_of_two_logs() -> None:
    watch = StartWatch()
    found = None
    for worker in (WORKER, OTHER_WORKER):
        run = check_assignment(
            assign(sign_both(), worker=worker.node_id).pack(), view(own=worker), Memory(), NOW
        )
        made = entry(work_start(run), worker)
        carried = read_start(made)
        assert carried is not None
        found = watch.heard(made.node_id, carried, MESH.trust)
    assert found is not None
    names, workers = [str(peer.node_id) for peer in found.schedulers], [str(worker) for worker in found.workers]
    made = entry(work_placed_twice(found.workload, found.run, names, workers), SECOND)
    shown = describe(made.type, made.body)
    assert shown["scheduler"] == str(SCHEDULER.node_id) and shown["reason"] == "placed_twice"
    assert str(WORKER.node_id) in shown["detail"] and str(OTHER_WORKER.node_id) in shown["detail"]


def test_an_entry_of_another_kind_or_release_is_no_start() -> None:
    assert read_start(entry(application("note", 1), kind=EntryType.APPLICATION)) is None
    assert read_start(entry({0: 1, 1: 1, 99: b"new"})) is None
