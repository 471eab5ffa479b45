"""A clock a day behind or a year ahead: nothing is written that nobody would believe, and the log goes on afterwards."""

from datetime import timedelta
from pathlib import Path

import pytest

import audit
from audit.bodies import LogOpen
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import make_member, make_mesh

MESH = make_mesh()


def signer_of_day(days: int) -> audit.LogSigner:
    """As a node has it that starts then."""
    member = make_member(MESH, "alice", start=10 + days, not_before=MESH.at + timedelta(days=days), life=timedelta(days=1))
    return audit.LogSigner(member.message, member.credentials)


def test_after_a_day_back_a_new_log_names_the_one_before(tmp_path: Path) -> None:
    path, now = tmp_path / "audit.sqlite3", [MESH.at + timedelta(hours=1)]
    with audit.open_log(path, root=MESH.root, signer=signer_of_day(0), clock=lambda: now[0]) as log:
        log.append("before")
        before = log.state
    now[0] -= timedelta(days=1)
    with audit.open_log(path, root=MESH.root, signer=signer_of_day(-1), clock=lambda: now[0]) as log:
        log.append("behind")
        assert (log.state.k, log.state.log_id == before.log_id) == (1, False)
        former = LogOpen.read(log.query(audit.Query(log_id=log.state.log_id))[0].body).former
    assert former is not None
    assert (former.last, former.reason) == (before.last, "clock went back")
    audit.verify(path, root=MESH.root).demand()


def test_a_clock_a_day_back_while_the_log_is_open_writes_nothing_that_its_keys_do_not_cover(tmp_path: Path) -> None:
    path, now = tmp_path / "audit.sqlite3", [MESH.at + timedelta(hours=1)]
    with audit.open_log(path, root=MESH.root, signer=signer_of_day(0), clock=lambda: now[0]) as log:
        log.append("before")
        now[0] -= timedelta(days=1)
        with pytest.raises(Refused):
            log.append("behind")
        now[0] += timedelta(days=1)
        assert log.append("after").log_id == log.state.log_id
        assert log.state.k == 0
    audit.verify(path, root=MESH.root).demand()


def test_a_clock_a_year_ahead_writes_nothing_and_the_same_log_goes_on_when_it_is_right(tmp_path: Path) -> None:
    path, now = tmp_path / "audit.sqlite3", [MESH.at + timedelta(hours=1)]
    with audit.open_log(path, root=MESH.root, signer=signer_of_day(0), clock=lambda: now[0]) as log:
        log.append("before")
        now[0] += timedelta(days=365)
        with pytest.raises(Refused) as caught:
            log.append("ahead")
        assert caught.value.reason is Reason.NOT_IN_FORCE
        now[0] -= timedelta(days=365)
        assert (log.append("after").seq, log.state.k) == (2, 0)
    now[0] += timedelta(days=365)
    with pytest.raises(Refused):
        audit.open_log(path, root=MESH.root, signer=signer_of_day(0), clock=lambda: now[0])
    audit.verify(path, root=MESH.root).demand()
