"""One root after the other: which leaves count, for how long, and what is no successor."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from overlay.core.certificate_profile import ED25519_OID, Issuer, Life, authority_to_be_signed, seal
from overlay.core.certificates import Root, verify_later_root
from overlay.core.keys import Ed25519Signer, MeshId
from overlay.core.policy import Policy
from overlay.core.revocation_profile import revocation_list_to_be_signed
from overlay.core.roots import OLD_LEAVES_FOR, ROOTS_MAX, LaterRoot, Roots
from overlay.core.trust import Credentials, TrustSet
from overlay.core.wire import sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason
from tests.unit.core.authority_kit import DAY, HOUR, NOW, make_member, make_mesh, seed
from tests.unit.core.revocation_kit import (
    chain_to,
    credentials_under,
    cross,
    facts_of,
    make_list,
    revoked,
    root_issuer,
    root_key,
)

MESH = make_mesh()
ALICE = make_member(MESH, "alice")
BOB = make_member(MESH, "bob")
ONE, TWO, THREE, FOUR = (cross(MESH, number) for number in (1, 2, 3, 4))
SECOND = timedelta(seconds=1)
THIEF = Ed25519Signer(seed("thief"))


def after(*ders: bytes) -> TrustSet:
    trust = MESH.trust
    for der in ders:
        trust = trust.with_root(der, NOW)
    return trust


def refusal(action: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        action()
    return caught.value


def reason_for(trust: TrustSet, credentials: Credentials, at: timedelta = timedelta(0)) -> Reason:
    return refusal(lambda: trust.verify(credentials, NOW + at)).reason


def recovered(*, name: str = "lab", mesh_id: MeshId = MESH.mesh_id, life: Life | None = None) -> Root:
    """A root that only recovery keys vouch for: signed by itself."""
    issuer = Issuer(mesh_id, name, THIEF.spki)
    life = life or Life.between(NOW - DAY, NOW + 100 * DAY)
    content = authority_to_be_signed(issuer, THIEF.spki, name, life)
    return Root(seal(content, ED25519_OID, THIEF.sign(content)), THIEF.spki, THIEF.public_key, mesh_id, name, life)


# --- which leaves count ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [(), (ONE,), (ONE, TWO), (ONE, TWO, THREE)])
def test_a_leaf_of_a_later_root_counts_whether_its_root_is_known_or_not(known: tuple[bytes, ...]) -> None:
    peer = after(*known).verify(credentials_under(MESH, ALICE, 3), NOW)
    assert peer.node_id == ALICE.node_id
    assert peer.certificate.lineage[0] == MESH.root.key_hash
    assert len(peer.certificate.lineage) == 4
    after(*known).judge(peer, NOW)


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_a_chain_may_begin_below_any_root_that_is_known(length: int) -> None:
    trust = after(ONE, TWO, THREE, FOUR)
    shown = credentials_under(MESH, ALICE, 4, chain=chain_to(MESH, 4)[:length])
    assert len(trust.verify(shown, NOW).certificate.lineage) == 5
    if length == 3:  # the root before it is not known to a newcomer
        assert reason_for(MESH.trust, shown) is Reason.BAD_CERTIFICATE
    beyond = after(ONE, TWO, THREE)
    if length:
        assert len(beyond.verify(shown, NOW).certificate.lineage) == 5
    else:
        assert reason_for(beyond, shown) is Reason.BAD_CERTIFICATE


def test_leaves_of_a_root_are_refused_two_days_after_its_successor_was_accepted() -> None:
    trust = after(ONE)
    week = make_member(MESH, "alice", life=7 * DAY, endorsement_life=HOUR)
    trust.judge(week.peer, NOW + OLD_LEAVES_FOR - SECOND)
    error = refusal(lambda: trust.judge(week.peer, NOW + OLD_LEAVES_FOR))
    assert error.reason is Reason.WRONG_GENERATION
    assert "renew" in error.hint
    MESH.trust.judge(week.peer, NOW + OLD_LEAVES_FOR)


def test_of_two_successors_each_ends_the_leaves_of_the_root_before_it() -> None:
    first, second = (MESH.trust.verify(credentials_under(MESH, ALICE, number), NOW) for number in (1, 2))
    trust = after(ONE).with_root(TWO, NOW + DAY)
    trust.judge(first, NOW + DAY + OLD_LEAVES_FOR - SECOND)
    assert refusal(lambda: trust.judge(first, NOW + DAY + OLD_LEAVES_FOR)).reason is Reason.WRONG_GENERATION
    assert refusal(lambda: trust.judge(ALICE.peer, NOW + OLD_LEAVES_FOR)).reason is Reason.WRONG_GENERATION
    trust.judge(second, NOW + 10 * DAY)


def test_how_long_old_leaves_count_is_a_setting() -> None:
    trust = TrustSet(MESH.root, MESH.trust.policy, old_leaves_for=HOUR).with_root(ONE, NOW)
    trust.judge(ALICE.peer, NOW + HOUR - SECOND)
    assert refusal(lambda: trust.judge(ALICE.peer, NOW + HOUR)).reason is Reason.WRONG_GENERATION


def test_an_old_leaf_may_still_be_renewed() -> None:
    trust = after(ONE)
    week = make_member(MESH, "alice", life=7 * DAY, endorsement_life=DAY, not_before=NOW + 3 * DAY)
    assert reason_for(trust, week.credentials, 3 * DAY) is Reason.WRONG_GENERATION
    assert trust.verify_in_grace(week.credentials, NOW + 3 * DAY).node_id == ALICE.node_id


def test_a_leaf_of_a_second_successor_is_refused() -> None:
    forged = cross(MESH, 1, key=THIEF)
    shown = credentials_under(MESH, ALICE, 1, chain=(forged,), key=THIEF)
    peer = MESH.trust.verify(shown, NOW)  # who knows no successor cannot tell
    assert reason_for(after(ONE), shown) is Reason.WRONG_GENERATION
    assert reason_for(after(ONE, TWO), shown) is Reason.WRONG_GENERATION
    assert refusal(lambda: after(ONE).judge(peer, NOW)).reason is Reason.WRONG_GENERATION


def test_a_chain_with_something_foreign_in_it_is_refused_although_its_end_is_known() -> None:
    trust = after(ONE, TWO)
    for chain in ((TWO, ALICE.credentials.leaf), (TWO, TWO), (ONE, TWO), (TWO, MESH.root.der)):
        assert reason_for(trust, credentials_under(MESH, ALICE, 2, chain=chain)) is Reason.BAD_CERTIFICATE


def test_a_chain_that_is_too_deep_is_refused() -> None:
    assert reason_for(MESH.trust, credentials_under(MESH, ALICE, 13)) is Reason.BAD_CERTIFICATE


def test_a_leaf_counts_only_while_each_root_above_it_is_in_force() -> None:
    short = cross(MESH, 1, life=Life.between(NOW - DAY, NOW + HOUR))
    trust = MESH.trust.with_root(short, NOW)
    shown = credentials_under(MESH, ALICE, 1, chain=(short,))
    trust.verify(shown, NOW + HOUR)
    assert reason_for(trust, shown, HOUR + timedelta(minutes=6)) is Reason.CERTIFICATE_EXPIRED


def test_a_peer_of_no_known_root_is_refused() -> None:
    stranger = make_member(make_mesh("other"), "alice").peer
    assert refusal(lambda: MESH.trust.judge(stranger, NOW)).reason is Reason.WRONG_GENERATION
    of_nobody = replace(ALICE.peer.certificate, lineage=())
    assert refusal(lambda: Roots(MESH.root).check(of_nobody)).reason is Reason.WRONG_GENERATION


# --- successors -----------------------------------------------------------------------------------------------------


def test_the_same_root_again_changes_nothing_and_the_earlier_acceptance_counts() -> None:
    trust = after(ONE, TWO)
    assert trust.with_root(ONE, NOW + DAY) is trust
    earlier = trust.with_root(ONE, NOW - HOUR)
    assert earlier.later[0] == LaterRoot(trust.later[0].root, NOW - HOUR)
    assert earlier.later[1] == trust.later[1]
    assert earlier.hash == trust.hash
    assert (trust.roots.newest, after().roots.newest) == (trust.later[1].root, MESH.root)


def test_a_new_root_changes_the_hash() -> None:
    assert len({after().hash, after(ONE).hash, after(ONE, TWO).hash}) == 3


def test_a_second_successor_of_a_root_is_refused_as_such() -> None:
    forged = cross(MESH, 1, key=THIEF)
    for trust in (after(ONE), after(ONE, TWO)):
        assert refusal(lambda trust=trust: trust.with_root(forged, NOW)).reason is Reason.AUTHORITY_FROZEN  # type: ignore[misc]


def test_a_root_that_skips_one_or_comes_from_elsewhere_is_none() -> None:
    assert refusal(lambda: after().with_root(TWO, NOW)).reason is Reason.BAD_CERTIFICATE
    other = make_mesh("other")
    assert refusal(lambda: after().with_root(cross(other, 1), NOW)).reason is Reason.OTHER_MESH
    assert refusal(lambda: after().with_root(ALICE.credentials.leaf, NOW)).reason is Reason.BAD_CERTIFICATE


def test_a_new_root_must_be_in_force() -> None:
    old = cross(MESH, 1, life=Life.between(NOW - 2 * DAY, NOW - DAY))
    assert refusal(lambda: after().with_root(old, NOW)).reason is Reason.CERTIFICATE_EXPIRED


def test_the_key_of_an_earlier_root_never_comes_back() -> None:
    content = authority_to_be_signed(root_issuer(MESH, 1), MESH.root.spki, "lab", Life.between(NOW - DAY, NOW + DAY))
    back = seal(content, ED25519_OID, root_key(MESH, 1).sign(content))
    assert verify_later_root(back, after(ONE).roots.newest).spki == MESH.root.spki
    assert refusal(lambda: after(ONE).with_root(back, NOW)).reason is Reason.BAD_CERTIFICATE


def test_there_is_an_end_to_the_number_of_roots() -> None:
    first = after(ONE).later[0]
    full = Roots(MESH.root, tuple([first] * ROOTS_MAX))
    assert refusal(lambda: full.with_recovered(recovered(), NOW)).reason is Reason.BAD_CERTIFICATE


def test_a_recovered_root_issues_leaves_without_a_chain() -> None:
    root = recovered()
    trust = after(ONE).with_recovered_root(root, NOW)
    assert trust.with_recovered_root(root, NOW) is trust
    shown = credentials_under(MESH, ALICE, 0, chain=(), key=THIEF)
    assert len(trust.verify(shown, NOW).certificate.lineage) == 3
    assert reason_for(after(ONE), shown) is Reason.BAD_CERTIFICATE


def test_a_recovered_root_of_another_mesh_or_out_of_its_time_is_refused() -> None:
    for wrong, reason in (
        (recovered(mesh_id=make_mesh("other").mesh_id), Reason.OTHER_MESH),
        (recovered(name="other"), Reason.OTHER_MESH),
        (recovered(life=Life.between(NOW + DAY, NOW + 2 * DAY)), Reason.CERTIFICATE_NOT_YET_VALID),
    ):
        assert refusal(lambda wrong=wrong: after().with_recovered_root(wrong, NOW)).reason is reason  # type: ignore[misc]


# --- what else roots sign -------------------------------------------------------------------------------------------


def test_lists_of_every_root_count() -> None:
    lists = [make_list(MESH, revoked(who), number=number + 1, generation=number) for number, who in enumerate((ALICE, BOB))]
    trust = after(ONE).with_list(lists[0]).with_list(lists[1])
    assert set(trust.revocations.nodes) == {ALICE.node_id, BOB.node_id}
    assert refusal(lambda: after().with_list(lists[1])).reason is Reason.BAD_REVOCATION_LIST


def test_a_list_in_the_name_of_another_root_than_the_one_that_signed_it_is_refused() -> None:
    content = revocation_list_to_be_signed(root_issuer(MESH, 0), facts_of(revoked(BOB)))
    forged = seal(content, ED25519_OID, root_key(MESH, 1).sign(content))
    assert refusal(lambda: after(ONE).with_list(forged)).reason is Reason.BAD_REVOCATION_LIST


def test_a_policy_is_of_the_newest_root_only() -> None:
    payload = Policy(version=2).pack()
    by_first = sign1(payload, signer=root_key(MESH, 1), aad=Label.POLICY + MESH.mesh_id, kid=None)
    by_founding = MESH.authority.sign_policy(Policy(version=2))
    assert after(ONE).with_policy(by_first).policy.policy.version == 2
    assert refusal(lambda: after(ONE).with_policy(by_founding)).reason is Reason.BAD_POLICY
    assert after(ONE).with_policy(MESH.trust.policy.raw) == after(ONE)
