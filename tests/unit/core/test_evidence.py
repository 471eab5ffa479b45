"""Evidence as it travels, and the binding that it must carry."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.evidence import Appraisal, Binding, Evidence, Lease
from overlay.core.limits import PROOF_MAX
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import EvidenceKind, Reason, Role
from tests.unit.core.authority_kit import NOW
from tests.unit.core.session_kit import ALICE

EVIDENCE = Evidence(count=2, index=1, path=(b"p" * 32,), claims=b"claims", ak_public=b"ak", quote=b"quote", signature=b"sig")
BINDING = Binding(
    mesh_id=b"m" * 32, h=b"h" * 32, role=Role.OPENER, attester_leaf=b"a" * 32, verifier_leaf=b"v" * 32, nonce=b"n" * 32, epoch=1
)


@given(
    st.builds(
        Evidence, count=st.integers(0, 65_536), index=st.integers(0, 65_535),
        path=st.lists(st.binary(min_size=32, max_size=32), max_size=16).map(tuple), claims=st.binary(max_size=100),
        ak_public=st.binary(max_size=1024), quote=st.binary(max_size=2048), signature=st.binary(max_size=1024),
    )
)
def test_evidence_is_read_as_it_was_written(evidence: Evidence) -> None:
    assert Evidence.unpack(evidence.pack(), evidence.claims, limit=PROOF_MAX) == evidence


def test_evidence_for_admission_is_evidence_without_round_and_claims() -> None:
    assert EVIDENCE.pack() == make_map(2, 1, [b"p" * 32], b"ak", b"quote", b"sig")


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 65_537}, {"index": 65_536}, {"path": (b"p" * 31,)}, {"path": (b"p" * 32,) * 17}, {"ak_public": bytes(1025)},
        {"quote": bytes(2049)}, {"signature": bytes(1025)},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_evidence_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        Evidence.unpack(replace(EVIDENCE, **changes).pack(), b"", limit=PROOF_MAX)
    assert caught.value.reason is Reason.MALFORMED


def test_evidence_above_its_limit_is_refused_unread() -> None:
    with pytest.raises(Refused) as caught:
        Evidence.unpack(bytes(65), b"", limit=64)
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("changes", [{"nonce": bytes(31)}, {"h": bytes(33)}])
def test_a_binding_without_a_whole_nonce_or_hash_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        replace(BINDING, **changes)


APPRAISAL = Appraisal(level=1, kind=EvidenceKind.SOFTWARE, software_version="1")
TOLERANCE = timedelta(minutes=5)


def lease_of(peer: VerifiedPeer, at: datetime) -> Lease:
    """For evidence taken at 1000.0, ten seconds ago."""
    return Lease.grant(APPRAISAL, peer, since=1000.0, life=150.0, now=1010.0, at=at)


def test_a_lease_lasts_from_the_evidence_on() -> None:
    assert lease_of(ALICE.peer, NOW) == Lease(1150.0, Reason.LEASE_EXPIRED, APPRAISAL, 1000.0)


def test_a_lease_ends_with_the_endorsement() -> None:
    at = ALICE.peer.not_after + TOLERANCE - timedelta(seconds=60)
    assert lease_of(ALICE.peer, at) == Lease(1070.0, Reason.ENDORSEMENT_EXPIRED, APPRAISAL, 1000.0)


def test_a_lease_ends_with_the_certificate() -> None:
    end = ALICE.peer.certificate.not_after
    longer = replace(ALICE.peer, endorsement=replace(ALICE.peer.endorsement, not_after=end + timedelta(hours=1)))
    at = end + TOLERANCE - timedelta(seconds=60)
    assert lease_of(longer, at) == Lease(1070.0, Reason.CERTIFICATE_EXPIRED, APPRAISAL, 1000.0)


def test_a_lease_for_credentials_that_have_ended_has_ended_before_it_began() -> None:
    lease = lease_of(ALICE.peer, ALICE.peer.not_after + timedelta(days=1))
    with pytest.raises(Refused) as caught:
        lease.check(1010.0)
    assert caught.value.reason is Reason.ENDORSEMENT_EXPIRED


def test_a_lease_holds_until_its_end() -> None:
    lease = lease_of(ALICE.peer, NOW)
    lease.check(1149.9)
    with pytest.raises(Refused) as caught:
        lease.check(1150.0)
    assert caught.value.reason is Reason.LEASE_EXPIRED


def test_what_is_secret_or_long_is_not_shown() -> None:
    assert repr(EVIDENCE) == f"Evidence(count=2, index=1, path={EVIDENCE.path!r})"
