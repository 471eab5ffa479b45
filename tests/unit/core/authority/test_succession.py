"""The chain of authority objects: one successor each, forks, which roots count, what gossip adds."""

from datetime import timedelta

import pytest

from overlay.core.authority.contents import OBJECT_MAX, ObjectKind
from overlay.core.authority.objects import make_object_zero
from overlay.core.authority.recovery_keys import RecoveryKeys
from overlay.core.authority.succession import OVERLAP, AuthorityChain, Outcome
from overlay.core.keys import Ed25519Signer, NodeId
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority.generations_kit import FOUNDER, FOUNDING_KEY, MESH, Generation, chain_of, founding, node, seal
from tests.unit.core.authority_kit import HOUR, NOW, make_mesh, seed

ZERO = founding()
ONE = ZERO.rollover("one")
TWO = ONE.reshared("bcde", 3)
THREE = TWO.rollover("three", "abcd", 3, NOW + 10 * HOUR)
RIVAL = ZERO.rollover("rival")
FULL = chain_of(ZERO, ONE, TWO, THREE)
SECOND = timedelta(seconds=1)


def outcome(chain: AuthorityChain, generation: Generation) -> tuple[AuthorityChain, Outcome]:
    change = chain.with_object(generation.raw, NOW)
    return change.chain, change.outcome


def reason_for(chain: AuthorityChain, raw: bytes) -> Reason:
    with pytest.raises(Refused) as caught:
        chain.with_object(raw, NOW)
    return caught.value.reason


def test_the_chain_grows_one_verified_object_at_a_time() -> None:
    assert [item.raw for item in FULL.objects] == [ZERO.raw, ONE.raw, TWO.raw, THREE.raw]
    assert FULL.newest_root == THREE.contents.root
    assert FULL.newest.kind is ObjectKind.ROLLOVER
    assert FULL.frozen_at is None
    assert outcome(FULL, TWO) == (FULL, Outcome.KNOWN)
    assert outcome(chain_of(ZERO, ONE), TWO) == (chain_of(ZERO, ONE, TWO), Outcome.APPENDED)


def test_signers_are_the_members_of_the_newest_generation_counted_from_one_by_node_id() -> None:
    ids = sorted(NodeId.of_key(node(name).spki) for name in "abcd")
    assert [FULL.identifier(node_id) for node_id in ids] == [1, 2, 3, 4]
    gone = NodeId.of_key(node("e").spki)
    assert chain_of(ZERO, ONE, TWO).is_signer(gone)
    assert not FULL.is_signer(gone)
    with pytest.raises(Refused) as caught:
        FULL.identifier(gone)
    assert caught.value.reason is Reason.NOT_A_SIGNER


def test_an_object_is_refused_while_those_before_it_are_missing() -> None:
    assert reason_for(chain_of(ZERO), TWO.raw) is Reason.WRONG_GENERATION


def test_an_object_of_another_mesh_is_refused() -> None:
    other = make_mesh("other")
    raw = make_object_zero(other.root, other.authority.key, FOUNDER)
    assert reason_for(FULL, raw) is Reason.OTHER_MESH
    with pytest.raises(Refused):
        AuthorityChain.begin(raw, MESH.root)


def test_an_object_of_another_branch_is_refused_until_its_own_is_known() -> None:
    assert reason_for(chain_of(ZERO, ONE), RIVAL.reshared("bcde", 3).raw) is Reason.BAD_AUTHORITY_OBJECT


def test_a_key_never_comes_back() -> None:
    back = THREE.rollover("one")
    assert reason_for(FULL, back.raw) is Reason.BAD_AUTHORITY_OBJECT


# --- forks ----------------------------------------------------------------------------------------------------------


def test_a_second_successor_is_a_fork_that_freezes_rollover_and_leaves_what_is_in_force() -> None:
    frozen, what = outcome(chain_of(ZERO, ONE, TWO), RIVAL)
    assert what is Outcome.FORKED
    assert frozen.frozen_at == 1
    assert frozen.newest == chain_of(ZERO, ONE, TWO).newest
    assert frozen.roots_in_force(NOW) == chain_of(ZERO, ONE, TWO).roots_in_force(NOW)
    assert reason_for(frozen, THREE.raw) is Reason.AUTHORITY_FROZEN


def test_a_resharing_beside_a_rollover_is_a_fork_too() -> None:
    frozen, what = outcome(FULL, ONE.reshared("cde"))
    assert (what, frozen.frozen_at) == (Outcome.FORKED, 2)


def test_two_founding_objects_are_a_fork() -> None:
    frozen, what = outcome(FULL, founding(RecoveryKeys()))
    assert (what, frozen.frozen_at) == (Outcome.FORKED, 0)


def test_the_same_object_signed_anew_is_no_fork() -> None:
    again = seal(ONE.contents, ONE.contents.pack(), ONE.key, ONE.members, previous_root=FOUNDING_KEY)
    assert FULL.with_object(again, NOW).outcome is Outcome.KNOWN


def test_a_rival_that_is_not_good_proves_nothing() -> None:
    forged = seal(RIVAL.contents, RIVAL.contents.pack(), RIVAL.key, RIVAL.members, previous_root=Ed25519Signer(seed("thief")))
    assert reason_for(FULL, forged) is Reason.BAD_AUTHORITY_OBJECT


def test_a_fork_is_shown_to_others_and_freezes_them() -> None:
    frozen, _ = outcome(FULL, RIVAL)
    found = chain_of(ZERO, ONE).merged(frozen.to_show, NOW)
    assert Outcome.FORKED in found.outcomes
    assert found.chain.fork == frozen.fork
    assert not found.refused


@pytest.mark.parametrize("turn", range(3))
def test_every_node_keeps_the_same_proof_of_the_same_fork(turn: int) -> None:
    rivals = [ONE, RIVAL, ZERO.rollover("third")]
    chain = chain_of(ZERO)
    for rival in [*rivals[turn:], *rivals[:turn]]:
        chain = chain.with_object(rival.raw, NOW).chain
    assert chain.fork is not None
    assert [item.hash for item in chain.fork] == sorted(rival.contents.hash for rival in rivals)[:2]
    assert len(chain.objects) == 2
    assert len(chain.to_show) in (3, 4)  # what stands, if it is not in the proof


def test_the_earliest_fork_is_kept() -> None:
    late, early = ONE.reshared("cde"), RIVAL
    first, _ = outcome(outcome(FULL, late)[0], early)
    second, what = outcome(outcome(FULL, early)[0], late)
    assert first == second
    assert (first.frozen_at, what) == (1, Outcome.KNOWN)


# --- which roots count ----------------------------------------------------------------------------------------------


def test_a_leaf_under_the_root_before_counts_for_48_hours() -> None:
    chain = chain_of(ZERO, ONE)
    both, newest = (ONE.contents.root, MESH.root), (ONE.contents.root,)
    assert chain.roots_in_force(NOW) == both
    assert chain.roots_in_force(NOW + OVERLAP - SECOND) == both
    assert chain.roots_in_force(NOW + OVERLAP) == newest
    assert timedelta(hours=48) == OVERLAP


def test_a_resharing_does_not_end_the_life_of_its_root() -> None:
    chain = chain_of(ZERO, ONE, TWO)
    assert chain.roots_in_force(NOW + 1000 * HOUR) == (ONE.contents.root,)
    assert chain.newest_root == ONE.contents.root


def test_after_two_rollovers_within_48_hours_three_roots_count_and_end_one_by_one() -> None:
    roots = (THREE.contents.root, ONE.contents.root, MESH.root)
    assert FULL.roots_in_force(NOW + 10 * HOUR) == roots
    assert FULL.roots_in_force(NOW + 48 * HOUR) == roots[:2]
    assert FULL.roots_in_force(NOW + 58 * HOUR) == roots[:1]


def test_in_mode_3_all_roots_count() -> None:
    assert FULL.all_roots == (THREE.contents.root, ONE.contents.root, MESH.root)


# --- what others show -----------------------------------------------------------------------------------------------


def test_a_returning_node_walks_the_whole_chain() -> None:
    found = chain_of(ZERO).merged(FULL.to_show, NOW)
    assert (found.chain, found.refused) == (FULL, ())
    assert found.outcomes == (Outcome.KNOWN, *[Outcome.APPENDED] * 3)
    assert found.chain.digest == FULL.digest != chain_of(ZERO).digest


def test_of_what_is_shown_only_the_bad_is_lost() -> None:
    found = chain_of(ZERO).merged([b"x", ONE.raw, THREE.raw, TWO.raw], NOW)
    assert found.chain == chain_of(ZERO, ONE, TWO)
    assert [error.reason for error in found.refused] == [Reason.MALFORMED, Reason.WRONG_GENERATION]


def test_no_more_than_the_limit_is_read_and_what_came_within_it_stands() -> None:
    limit = len(ZERO.raw) + len(ONE.raw)
    found = chain_of(ZERO).merged(FULL.to_show, NOW, limit=limit)
    assert found.chain == chain_of(ZERO, ONE)
    assert [error.reason for error in found.refused] == [Reason.TOO_LARGE]
    assert OBJECT_MAX == 64 * 1024
    flood = chain_of(ZERO).merged([bytes(OBJECT_MAX // 2)] * 9, NOW, limit=OBJECT_MAX)
    assert [error.reason for error in flood.refused] == [Reason.MALFORMED] * 2 + [Reason.TOO_LARGE]
