"""Two workers with one run are proof against their scheduler; and nobody can make one against somebody else."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.keys import NodeId
from overlay.core.wire import make_map, sign1
from overlay.core.work.envelopes import SignedPlacement
from overlay.core.work.starts import StartWatch, check_proof
from overlay.errors import Refused
from overlay.registry import Label, Reason
from tests.unit.core.authority_kit import DAY, NOW, Member
from tests.unit.core.work.work_kit import (
    MESH,
    OTHER_WORKER,
    SCHEDULER,
    SECOND,
    WORKER,
    make_workload,
    member,
    put,
    sign,
    without,
)

HERE, THERE = put(), put(worker=OTHER_WORKER.node_id)
TRUST = MESH.trust
SCHEDULER_2 = member("another", "scheduler")


def heard(watch: StartWatch, placement: SignedPlacement, worker: NodeId | None = None, trust: Any = TRUST) -> Any:
    return watch.heard(worker or placement.says.worker, placement.pack(), trust)


def made_up(worker: Member, by: Member) -> SignedPlacement:
    """What a worker could write into its log: a placement in the scheduler's name that the scheduler never signed."""
    says = replace(put(worker=worker.node_id).says)
    raw = sign1(says.pack(), signer=by.message, aad=Label.PLACEMENT + MESH.mesh_id, kid=SCHEDULER.kid)
    return SignedPlacement.read(raw, SCHEDULER.credentials)


def test_two_workers_with_one_run_are_proof_against_the_scheduler() -> None:
    watch = StartWatch()
    assert heard(watch, HERE) is None
    found = heard(watch, THERE)
    assert found.is_proof and found.schedulers == (SCHEDULER.peer,)
    assert (found.workload, found.run, found.workers) == (sign().hash, 1, (WORKER.node_id, OTHER_WORKER.node_id))
    assert check_proof(found.pack(), TRUST) == found  # for anyone else, by itself
    assert heard(watch, HERE) is None and heard(watch, THERE) is None  # said once


def test_a_proof_counts_when_the_scheduler_is_revoked_and_its_certificate_has_ended() -> None:
    watch = StartWatch()
    heard(watch, HERE, trust=without(SCHEDULER))
    assert heard(watch, THERE, trust=without(SCHEDULER)).is_proof
    assert check_proof(make_map(HERE.pack(), THERE.pack()), without(SCHEDULER)).is_proof


def test_honest_schedulers_are_never_accused() -> None:
    watch, work = StartWatch(), sign(make_workload(runs=2))
    again = put(nonce=b"n" * 16)  # to the same worker, because the first one came to nothing
    for one in (HERE, HERE, again, put(work), put(work, run=2, worker=OTHER_WORKER.node_id)):
        assert heard(watch, one) is None


def test_two_schedulers_with_one_run_are_told_and_prove_nothing() -> None:
    watch = StartWatch()
    heard(watch, HERE)
    found = heard(watch, put(by=SCHEDULER_2, worker=OTHER_WORKER.node_id))
    assert not found.is_proof and found.schedulers == (SCHEDULER.peer, SCHEDULER_2.peer)


def test_a_placement_that_was_copied_into_another_log_says_nothing() -> None:
    watch = StartWatch()
    heard(watch, HERE)
    assert heard(watch, HERE, worker=OTHER_WORKER.node_id) is None
    assert heard(watch, THERE).is_proof


@pytest.mark.parametrize("forger_first", [True, False])
def test_a_worker_that_makes_up_a_placement_accuses_nobody_and_hides_nothing(forger_first: bool) -> None:
    watch, forged = StartWatch(), made_up(SECOND, by=SECOND)
    order = [forged, HERE] if forger_first else [HERE, forged]
    assert [heard(watch, one) for one in order] == [None, None]
    assert heard(watch, THERE).is_proof


def test_a_node_that_was_no_scheduler_is_not_accused_of_scheduling() -> None:
    watch = StartWatch()
    plain = member("plain")
    heard(watch, put(by=plain))
    assert heard(watch, put(by=plain, worker=OTHER_WORKER.node_id)) is None


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (HERE, HERE, Reason.MALFORMED),
        (HERE, put(sign(make_workload(runs=2)), run=2, worker=OTHER_WORKER.node_id), Reason.MALFORMED),
        (HERE, made_up(OTHER_WORKER, by=OTHER_WORKER), Reason.BAD_SIGNATURE),
        (put(by=OTHER_WORKER), put(by=OTHER_WORKER, worker=OTHER_WORKER.node_id), Reason.SCHEDULER_ROLE),
        (HERE, put(by=SCHEDULER, worker=OTHER_WORKER.node_id, at=NOW + 2 * DAY), Reason.CERTIFICATE_EXPIRED),
    ],
)
def test_what_proves_nothing_is_no_proof(first: SignedPlacement, second: SignedPlacement, reason: Reason) -> None:
    with pytest.raises(Refused) as caught:
        check_proof(make_map(first.pack(), second.pack()), TRUST)
    assert caught.value.reason is reason


def test_a_placement_in_the_name_of_another_scheduler_is_no_proof_against_it() -> None:
    says = replace(THERE.says, scheduler=SCHEDULER.node_id)
    raw = sign1(says.pack(), signer=SCHEDULER_2.message, aad=Label.PLACEMENT + MESH.mesh_id, kid=SCHEDULER_2.kid)
    other = SignedPlacement.read(raw, SCHEDULER_2.credentials)
    with pytest.raises(Refused) as caught:
        check_proof(make_map(HERE.pack(), other.pack()), TRUST)
    assert caught.value.reason is Reason.SCHEDULER_SIGNATURE


@given(st.binary(max_size=200))
def test_any_bytes_in_a_log_are_survived(data: bytes) -> None:
    assert StartWatch().heard(WORKER.node_id, data, TRUST) is None
    with suppress(Refused):
        check_proof(data, TRUST)


def test_only_so_many_starts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overlay.core.work.starts.STARTS_MAX", 1)
    watch, other = StartWatch(), sign(make_workload(name="other"))
    heard(watch, HERE)
    heard(watch, put(other))
    assert heard(watch, THERE) is None  # the first was forgotten
    assert heard(watch, HERE).is_proof
