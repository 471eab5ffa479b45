"""What verified a moment ago is not verified again; what may have changed since is asked each time."""

from datetime import timedelta

import pytest

from overlay.core.trust import Credentials, TrustSet, VerifiedPeer
from overlay.core.work.book import Declined, WorkBook
from overlay.core.work.seen_credentials import SEEN_FOR, SEEN_MAX, SeenCredentials
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import HOUR, NOW, make_mesh
from tests.unit.core.revocation_kit import cross
from tests.unit.core.work.work_kit import (
    MESH,
    MINUTE,
    SCHEDULER,
    SUBMITTER,
    assign,
    make_workload,
    member,
    sign,
    view,
    without,
)

SECOND = timedelta(seconds=1)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Credentials]:
    """What was verified in full."""
    calls: list[Credentials] = []
    verify = TrustSet.verify

    def counting(self: TrustSet, credentials: Credentials, at: object) -> VerifiedPeer:
        calls.append(credentials)
        return verify(self, credentials, at)  # type: ignore[arg-type]

    monkeypatch.setattr(TrustSet, "verify", counting)
    return calls


def test_credentials_are_verified_in_full_once_a_minute(counted: list[Credentials]) -> None:
    seen = SeenCredentials()
    for at in (NOW, NOW + SECOND, NOW + SEEN_FOR - SECOND):
        assert seen.verify(SCHEDULER.credentials, MESH.trust, at) == SCHEDULER.peer
    assert len(counted) == 1
    seen.verify(SCHEDULER.credentials, MESH.trust, NOW + SEEN_FOR)
    seen.verify(SCHEDULER.credentials, MESH.trust, NOW)  # a clock that was set back
    assert len(counted) == 3


def test_keys_that_end_meanwhile_are_refused_within_the_minute() -> None:
    seen, short = SeenCredentials(), member("short", endorsement_life=HOUR)
    last = NOW - MINUTE + HOUR + 5 * MINUTE
    assert seen.verify(short.credentials, MESH.trust, last)
    with pytest.raises(Refused) as caught:
        seen.verify(short.credentials, MESH.trust, last + SECOND)
    assert caught.value.reason is Reason.ENDORSEMENT_EXPIRED


def test_what_one_mesh_has_verified_counts_in_no_other() -> None:
    seen = SeenCredentials()
    seen.verify(SCHEDULER.credentials, MESH.trust, NOW)
    with pytest.raises(Refused):
        seen.verify(SCHEDULER.credentials, make_mesh("other").trust, NOW)


def test_another_root_asks_again(counted: list[Credentials]) -> None:
    seen = SeenCredentials()
    seen.verify(SCHEDULER.credentials, MESH.trust, NOW)
    seen.verify(SCHEDULER.credentials, MESH.trust.with_root(cross(MESH, 1), NOW), NOW)
    assert len(counted) == 2


def test_other_credentials_of_a_known_node_are_verified() -> None:
    seen = SeenCredentials()
    seen.verify(SCHEDULER.credentials, MESH.trust, NOW)
    mixed = Credentials(SUBMITTER.credentials.endorsement, SCHEDULER.credentials.leaf)
    with pytest.raises(Refused):
        seen.verify(mixed, MESH.trust, NOW)
    with pytest.raises(Refused):
        seen.verify(mixed, MESH.trust, NOW)  # what was refused is not kept


def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch, counted: list[Credentials]) -> None:
    monkeypatch.setattr("overlay.core.work.seen_credentials.SEEN_MAX", 1)
    seen = SeenCredentials()
    for one in (SCHEDULER, SUBMITTER, SCHEDULER):
        seen.verify(one.credentials, MESH.trust, NOW)
    assert len(counted) == 3 and SEEN_MAX > 1


@pytest.mark.parametrize(("gone", "reason"), [(SCHEDULER, Reason.SCHEDULER_REVOKED), (SUBMITTER, Reason.ORIGINATOR_REVOKED)])
def test_a_signer_that_was_seen_and_is_revoked_since_is_refused_at_once(gone: object, reason: Reason) -> None:
    book, work = WorkBook(), sign(make_workload(runs=2))
    book.receive(assign(work).pack(), view(), 0.0, NOW)
    event = book.receive(assign(work, run=2).pack(), view(trust=without(gone)), 0.0, NOW)  # type: ignore[arg-type]
    assert isinstance(event, Declined) and event.reason is reason
