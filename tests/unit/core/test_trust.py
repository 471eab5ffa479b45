"""The trust set: both credentials together, and a policy that only moves forward."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.policy import Attestation, Policy
from overlay.core.trust import Credentials
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import DAY, HOUR, NOW, Member, make_member, make_mesh

MESH = make_mesh()
ALICE = make_member(MESH, "alice")
BOB = make_member(MESH, "bob", tpm_like=True)


def reason_for(credentials: Credentials) -> Reason:
    with pytest.raises(Refused) as caught:
        MESH.trust.verify(credentials, NOW)
    return caught.value.reason


def test_a_peer_is_its_certificate_and_its_endorsement() -> None:
    peer = MESH.trust.verify(ALICE.credentials, NOW)
    assert (peer.node_id, peer.name, peer.roles) == (ALICE.node_id, "alice", ())
    assert (peer.noise_public, peer.message_public) == (ALICE.noise.public, ALICE.message.public_key)
    assert (peer.start_id, peer.kid) == (ALICE.start_id, peer.endorsement.hash)


def test_a_peer_ends_when_the_first_of_its_credentials_ends() -> None:
    peer = make_member(MESH, "alice", life=7 * DAY, endorsement_life=HOUR).peer
    assert peer.not_after == peer.endorsement.not_after == NOW - timedelta(minutes=1) + HOUR
    assert ALICE.peer.not_after == ALICE.peer.certificate.not_after


def test_credentials_that_do_not_belong_together_are_refused() -> None:
    mixed = Credentials(ALICE.credentials.endorsement, BOB.credentials.leaf)
    assert reason_for(mixed) is Reason.BAD_ENDORSEMENT


def test_a_node_of_another_mesh_is_refused() -> None:
    assert reason_for(make_member(make_mesh("other"), "alice").credentials) is Reason.OTHER_MESH


def test_an_expired_endorsement_is_refused_under_a_good_certificate() -> None:
    old = make_member(MESH, "alice", not_before=NOW - DAY, life=2 * DAY, endorsement_life=HOUR)
    assert reason_for(old.credentials) is Reason.ENDORSEMENT_EXPIRED


def test_a_policy_moves_forward_and_the_old_set_stays_as_it_was() -> None:
    newer = MESH.trust.with_policy(MESH.authority.sign_policy(Policy(version=2, attestation=Attestation.REQUIRE)))
    assert newer.policy.policy.version == 2
    assert MESH.trust.policy.policy.version == 1
    assert newer.hash != MESH.trust.hash
    assert newer.mesh_id == MESH.trust.mesh_id


@pytest.mark.parametrize("version", [1, 2])
def test_a_policy_of_an_equal_or_lower_version_is_refused(version: int) -> None:
    trust = MESH.trust.with_policy(MESH.authority.sign_policy(Policy(version=2)))
    with pytest.raises(Refused, match=f"version {version} where 2 is in force") as caught:
        trust.with_policy(MESH.authority.sign_policy(Policy(version=version, minimum_level=1)))
    assert caught.value.reason is Reason.BAD_POLICY
    assert "higher version" in caught.value.hint


def test_the_policy_in_force_given_again_changes_nothing() -> None:
    assert MESH.trust.with_policy(MESH.trust.policy.raw) is MESH.trust


def test_a_policy_of_another_mesh_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        MESH.trust.with_policy(make_mesh("other").authority.sign_policy(Policy(version=9)))
    assert caught.value.reason is Reason.BAD_POLICY


def test_two_nodes_with_the_same_root_and_policy_have_the_same_hash() -> None:
    assert make_mesh().trust.hash == MESH.trust.hash
    assert make_mesh("other").trust.hash != MESH.trust.hash
    assert MESH.trust.number == 0


@pytest.mark.parametrize("member", [ALICE, BOB], ids=["Ed25519", "P-256"])
def test_a_clock_that_is_four_minutes_off_is_tolerated_and_one_that_is_six_off_is_not(member: Member) -> None:
    begin, end, minute = member.peer.certificate.not_before, member.peer.certificate.not_after, timedelta(minutes=1)
    for at in (begin - 4 * minute, end + 4 * minute):
        assert MESH.trust.verify(member.credentials, at).node_id == member.node_id
    with pytest.raises(Refused, match="valid from 2026-03-01T11:59:00Z, it is now 2026-03-01T11:53:00Z") as early:
        MESH.trust.verify(member.credentials, begin - 6 * minute)
    with pytest.raises(Refused, match="expired on 2026-03-02T11:59:00Z, it is now 2026-03-02T12:05:00Z") as late:
        MESH.trust.verify(member.credentials, end + 6 * minute)
    assert early.value.reason is Reason.CERTIFICATE_NOT_YET_VALID
    assert late.value.reason is Reason.CERTIFICATE_EXPIRED


@given(st.binary(max_size=64), st.binary(max_size=64), st.lists(st.binary(max_size=8), max_size=5))
def test_any_credentials_are_refused_and_nothing_else(endorsement: bytes, leaf: bytes, chain: list[bytes]) -> None:
    reason_for(Credentials(endorsement, leaf, tuple(chain)))
    reason_for(Credentials(endorsement, ALICE.credentials.leaf))
