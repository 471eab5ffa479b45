"""The trust set and what stands against a node: revocations for ever, quarantines until they end."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from overlay.core.certificate_profile import LeafFacts
from overlay.core.keys import Ed25519Signer
from overlay.core.policy import Policy
from overlay.core.revocation_profile import LogEnd, Mark, RevocationReason, Revocations, key_hash, serial_bytes
from overlay.core.trust import Quarantine, TrustSet, VerifiedPeer
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import DAY, HOUR, NOW, Member, make_member, make_mesh, seed
from tests.unit.core.revocation_kit import MARK, make_list, revoked

MESH = make_mesh()
ALICE = make_member(MESH, "alice")
BOB = make_member(MESH, "bob", tpm_like=True)
CAROL = make_member(
    MESH, "carol", facts=LeafFacts(level=2, ak_name=bytes(34), ak_qualified_name=bytes(34), ek_tag=seed("machine"))
)


def refusal(action: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        action()
    return caught.value


def without(what: Revocations) -> TrustSet:
    return MESH.trust.with_list(make_list(MESH, what))


def verdict(trust: TrustSet, member: Member, away: timedelta = timedelta(0)) -> Reason:
    return refusal(lambda: trust.judge(member.peer, NOW + away)).reason


# --- revoked --------------------------------------------------------------------------------------------------------

WAYS = {
    "its node id": Revocations(nodes={bytes(CAROL.node_id): MARK}),
    "its serial": Revocations(serials={serial_bytes(CAROL.peer.certificate.serial): MARK}),
    "its machine": Revocations(machines={seed("machine"): MARK}),
    "its identity key": Revocations(keys={key_hash(CAROL.signer.spki): MARK}),
    "its Noise key": Revocations(keys={key_hash(CAROL.noise.public): MARK}),
    "its message key": Revocations(keys={key_hash(CAROL.message.public_key): MARK}),
    "the key of its issuer": Revocations(keys={key_hash(MESH.root.spki): MARK}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_node_is_revoked_by(way: str) -> None:
    trust = without(WAYS[way])
    for action in (
        lambda: trust.verify(CAROL.credentials, NOW),
        lambda: trust.verify_in_grace(CAROL.credentials, NOW),
        lambda: trust.judge(CAROL.peer, NOW),
    ):
        error = refusal(action)
        assert error.reason is Reason.REVOKED
        assert "carol was revoked on 2026-03-01T11:59:00Z: key compromise" in str(error)
        assert "invite" in error.hint
    if way != "the key of its issuer":
        trust.judge(ALICE.peer, NOW)


def test_a_node_is_revoked_by_its_witness_key() -> None:
    witness = Ed25519Signer(seed("witness")).public_key
    peer = VerifiedPeer(CAROL.peer.certificate, replace(CAROL.peer.endorsement, witness_public=witness))
    trust = without(Revocations(keys={key_hash(witness): MARK}))
    assert refusal(lambda: trust.judge(peer, NOW)).reason is Reason.REVOKED


@pytest.mark.parametrize("later", [DAY, 1000 * DAY])
def test_a_node_that_is_revoked_by_its_id_stays_so_whatever_it_is_issued_later(later: timedelta) -> None:
    trust = without(revoked(ALICE))
    again = make_member(MESH, "alice", not_before=NOW + later, start=2)
    assert refusal(lambda: trust.verify(again.credentials, NOW + later)).reason is Reason.REVOKED


def test_a_node_whose_one_certificate_is_revoked_comes_back_with_another() -> None:
    trust = without(Revocations(serials={serial_bytes(ALICE.peer.certificate.serial): MARK}))
    again = make_member(MESH, "alice", not_before=NOW)
    assert trust.verify(again.credentials, NOW).node_id == ALICE.node_id


@pytest.mark.parametrize("away", [-1000 * DAY, 1000 * DAY])
def test_a_revocation_binds_whatever_the_clock_says(away: timedelta) -> None:
    mark = replace(MARK, since=MARK.since + away, revoked=MARK.revoked + away)
    of_then = make_list(MESH, revoked(ALICE, mark), this_update=NOW + away)
    assert verdict(MESH.trust.with_list(of_then), ALICE) is Reason.REVOKED


def test_a_list_with_a_lower_number_adds_what_it_says_and_takes_nothing_away() -> None:
    trust = MESH.trust.with_list(make_list(MESH, revoked(ALICE), number=8))
    trust = trust.with_list(make_list(MESH, revoked(BOB), number=3))
    assert trust.number == 8
    assert verdict(trust, ALICE) is verdict(trust, BOB) is Reason.REVOKED
    forgetful = trust.with_list(make_list(MESH, Revocations(), number=9))
    assert forgetful.number == 9
    assert verdict(forgetful, ALICE) is verdict(forgetful, BOB) is Reason.REVOKED


def test_a_list_that_adds_nothing_leaves_the_very_same_set() -> None:
    first, both = make_list(MESH, revoked(ALICE)), make_list(MESH, revoked(ALICE).merged(revoked(BOB)), number=2)
    trust = MESH.trust.with_list(both)
    assert trust.with_list(both) is trust
    assert trust.with_list(first) is trust
    assert MESH.trust.with_list(first).with_list(both) == trust
    assert MESH.trust.with_list(first).with_list(both).hash == trust.hash


def test_two_lists_with_one_number_are_merged_and_told_until_a_later_one_has_both() -> None:
    trust = without(revoked(ALICE)).with_list(make_list(MESH, revoked(BOB)))
    assert trust.numbers_used_twice == (1,)
    assert verdict(trust, ALICE) is verdict(trust, BOB) is Reason.REVOKED
    healed = trust.with_list(make_list(MESH, trust.revocations, number=2))
    assert healed.numbers_used_twice == ()
    assert [one.number for one in healed.lists] == [2]


@pytest.mark.parametrize("bad", [b"", make_list(make_mesh("other"), revoked(ALICE)), bytes(2**20)])
def test_a_bad_list_is_refused(bad: bytes) -> None:
    assert refusal(lambda: MESH.trust.with_list(bad)).reason in (Reason.BAD_REVOCATION_LIST, Reason.TOO_LARGE)


def test_a_revocation_says_where_the_logs_of_the_node_end() -> None:
    end = LogEnd(7, bytes([1]) * 32)
    trust = without(revoked(ALICE).merged(Revocations(ends={(bytes(ALICE.node_id), bytes(16)): end})))
    assert trust.log_end(ALICE.node_id, bytes(16)) == end
    assert trust.log_end(ALICE.node_id, bytes([1]) * 16) is None
    assert trust.log_end(BOB.node_id, bytes(16)) is None
    assert trust.revocation_of(ALICE.node_id) == MARK
    assert trust.revocation_of(BOB.node_id) is None


def test_of_several_revocations_the_earliest_is_told() -> None:
    earlier = Mark(NOW - DAY, NOW - HOUR, RevocationReason.CESSATION)
    machine = make_list(MESH, Revocations(machines={seed("machine"): earlier}), number=2)
    assert without(revoked(CAROL)).with_list(machine).mark_of(CAROL.peer) == earlier


# --- in quarantine --------------------------------------------------------------------------------------------------


def quarantine(member: Member, until: timedelta = DAY, order: str = "order") -> Quarantine:
    return Quarantine(member.node_id, NOW + until, seed(order))


def test_a_node_in_quarantine_is_refused_until_it_ends() -> None:
    trust = MESH.trust.with_quarantine(quarantine(ALICE, HOUR))
    for action in (
        lambda: trust.verify(ALICE.credentials, NOW),
        lambda: trust.verify_in_grace(ALICE.credentials, NOW),
        lambda: trust.judge(ALICE.peer, NOW + HOUR - timedelta(seconds=1)),
    ):
        error = refusal(action)
        assert error.reason is Reason.QUARANTINED
        assert "until 2026-03-01T13:00:00Z, it is now" in str(error)
        assert "operator" in error.hint
    trust.judge(ALICE.peer, NOW + HOUR)
    trust.judge(BOB.peer, NOW)


def test_of_several_quarantines_the_last_end_counts() -> None:
    short, long = quarantine(ALICE, HOUR, "a"), quarantine(ALICE, DAY, "b")
    for first, second in ((short, long), (long, short)):
        trust = MESH.trust.with_quarantine(first).with_quarantine(second)
        assert verdict(trust, ALICE, 2 * HOUR) is Reason.QUARANTINED


def test_a_quarantine_again_changes_nothing_and_one_that_ended_is_forgotten_when_asked() -> None:
    trust = MESH.trust.with_quarantine(quarantine(ALICE, HOUR)).with_quarantine(quarantine(BOB, DAY))
    assert trust.with_quarantine(quarantine(ALICE, HOUR)) is trust
    assert trust.without_ended(NOW) is trust
    assert trust.without_ended(NOW + HOUR).quarantines == {quarantine(BOB, DAY)}
    assert trust.without_ended(NOW + DAY).hash == MESH.trust.hash


def test_revoked_is_told_before_quarantined() -> None:
    assert verdict(without(revoked(ALICE)).with_quarantine(quarantine(ALICE)), ALICE) is Reason.REVOKED


# --- what moves it --------------------------------------------------------------------------------------------------


def test_everything_in_the_set_shows_in_its_hash() -> None:
    sets = [
        MESH.trust,
        without(revoked(ALICE)),
        without(revoked(BOB)),
        MESH.trust.with_quarantine(quarantine(ALICE)),
        MESH.trust.with_quarantine(quarantine(ALICE, HOUR)),
        MESH.trust.with_quarantine(quarantine(ALICE, order="another")),
        without(revoked(ALICE)).with_quarantine(quarantine(ALICE)),
    ]
    assert len({one.hash for one in sets}) == len(sets)


def test_a_policy_leaves_revocations_and_quarantines_as_they_are() -> None:
    trust = without(revoked(ALICE)).with_quarantine(quarantine(BOB))
    newer = trust.with_policy(MESH.authority.sign_policy(Policy(version=2)))
    assert (newer.lists, newer.quarantines, newer.number) == (trust.lists, trust.quarantines, 1)
    assert verdict(newer, BOB) is Reason.QUARANTINED
