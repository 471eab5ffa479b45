"""Certificates that have ended: who may still renew, and that they count for nothing else."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificates import VerifiedCertificate
from overlay.core.grace import OF_MEMBERS, WITH_FILE, WITH_TPM, GraceTimes, verify_expired_leaf
from overlay.core.trust import Credentials, VerifiedPeer
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import DAY, HOUR, NOW, Member, make_member, make_mesh
from tests.unit.core.revocation_kit import endorse, make_list, revoked

MESH = make_mesh()
MINUTE = timedelta(minutes=1)
BY_LEVEL = {level: make_member(MESH, "alice", facts=LeafFacts(level=level)) for level in range(5)}
ALICE = BY_LEVEL[1]
END = ALICE.peer.certificate.not_after


def refusal(action: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        action()
    return caught.value


def expired(member: Member, at: datetime, grace: GraceTimes | None = None) -> VerifiedCertificate:
    return verify_expired_leaf(member.credentials.leaf, [MESH.root], at, grace or GraceTimes())


@pytest.mark.parametrize(
    ("level", "grace"), [(0, timedelta(0)), (1, WITH_FILE), (2, WITH_TPM), (3, WITH_TPM), (4, WITH_TPM)]
)
def test_grace_is_as_long_as_the_level_says(level: int, grace: timedelta) -> None:
    member = BY_LEVEL[level]
    assert expired(member, END + grace + 5 * MINUTE).node_id == member.node_id
    error = refusal(lambda: expired(member, END + grace + 6 * MINUTE))
    assert error.reason is Reason.NO_GRACE
    assert "expired on 2026-03-02T11:59:00Z" in str(error)
    assert "it is now" in str(error)
    assert "invite" in error.hint


def test_members_of_the_authority_have_longer() -> None:
    members = GraceTimes(members=frozenset({ALICE.node_id}))
    assert (WITH_FILE, WITH_TPM, OF_MEMBERS) == (72 * HOUR, 30 * DAY, 90 * DAY)
    assert expired(ALICE, END + 90 * DAY, members).in_grace
    assert refusal(lambda: expired(ALICE, END + 90 * DAY + 6 * MINUTE, members)).reason is Reason.NO_GRACE


def test_a_certificate_is_marked_only_once_it_has_ended() -> None:
    assert not expired(ALICE, NOW).in_grace
    assert not expired(ALICE, END + 5 * MINUTE).in_grace
    assert expired(ALICE, END + 6 * MINUTE).in_grace
    assert expired(ALICE, NOW) == ALICE.peer.certificate


def test_grace_is_for_the_end_only() -> None:
    early = refusal(lambda: expired(ALICE, NOW - DAY))
    assert early.reason is Reason.CERTIFICATE_NOT_YET_VALID
    other = make_mesh("other")
    stranger = make_member(other, "alice")
    assert refusal(lambda: expired(stranger, END + HOUR)).reason is Reason.OTHER_MESH
    assert refusal(lambda: expired(ALICE, MESH.root.life.not_after + DAY)).reason is Reason.CERTIFICATE_EXPIRED


def test_whoever_was_let_in_for_renewal_is_no_peer_for_anything_else() -> None:
    marked = VerifiedPeer(expired(ALICE, END + HOUR), ALICE.peer.endorsement)
    error = refusal(lambda: MESH.trust.judge(marked, END + HOUR))
    assert error.reason is Reason.CERTIFICATE_EXPIRED


def test_a_certificate_in_force_needs_no_grace_on_a_link_for_renewal() -> None:
    assert MESH.trust.verify_in_grace(ALICE.credentials, NOW) == MESH.trust.verify(ALICE.credentials, NOW)


def test_a_revoked_node_is_not_renewed() -> None:
    trust = MESH.trust.with_list(make_list(MESH, revoked(ALICE)))
    assert refusal(lambda: trust.verify_in_grace(ALICE.credentials, NOW)).reason is Reason.REVOKED


def endorsed(begin: datetime, life: timedelta) -> Credentials:
    leaf = ALICE.credentials.leaf
    return Credentials(endorse(MESH, ALICE, leaf, begin, begin + life), leaf)


def test_a_node_in_grace_endorses_keys_for_an_hour_and_for_its_renewal_only() -> None:
    at = END + DAY
    shown = endorsed(at, HOUR)
    peer = MESH.trust.verify_in_grace(shown, at)
    assert peer.certificate.in_grace
    assert refusal(lambda: MESH.trust.verify(shown, at)).reason is Reason.CERTIFICATE_EXPIRED
    assert refusal(lambda: MESH.trust.verify_in_grace(endorsed(at, HOUR + MINUTE), at)).reason is Reason.BAD_ENDORSEMENT
    assert refusal(lambda: MESH.trust.verify_in_grace(shown, at + HOUR + 6 * MINUTE)).reason is Reason.ENDORSEMENT_EXPIRED


def test_nobody_in_force_endorses_beyond_the_certificate() -> None:
    shown = endorsed(END - HOUR, 2 * HOUR)
    assert refusal(lambda: MESH.trust.verify_in_grace(shown, END - HOUR)).reason is Reason.BAD_ENDORSEMENT
