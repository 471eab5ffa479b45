"""Gossip of authority objects: whatever nodes show each other, in whatever order, they end up with the same chain."""

from hypothesis import given
from hypothesis import strategies as st

from overlay.core.authority.recovery import RECOVERY_WAIT
from overlay.core.authority.stored_chain import pack_chain, unpack_chain
from overlay.core.authority.succession import AuthorityChain
from overlay.errors import Refused
from tests.unit.core.authority.generations_kit import MESH, chain_of, founding
from tests.unit.core.authority_kit import NOW

ZERO = founding()
ONE, RIVAL, THIRD = (ZERO.rollover(word) for word in ("one", "rival", "third"))
TWO = ONE.reshared("bcde", 3)
THREE = TWO.rollover("three", "abcd", 3)
RESCUE, OTHER_RESCUE, UNFORK = TWO.recovered("rescue"), TWO.recovered("other", by=(0, 1)), ZERO.recovered("unfork")

PEACEFUL = [ZERO, ONE, TWO, THREE, RESCUE, OTHER_RESCUE]  # no fork
EVERY = [*PEACEFUL, RIVAL, THIRD, UNFORK, TWO.reshared("cde"), RIVAL.reshared("cde")]
START = chain_of(ZERO)


def told(chain: AuthorityChain, raws: list[bytes]) -> AuthorityChain:
    """Again and again, as gossip does, until nothing changes."""
    while True:
        after = chain.merged(raws, NOW).chain
        if after == chain:
            return chain
        chain = after


@given(st.permutations([item.raw for item in PEACEFUL]), st.permutations([item.raw for item in PEACEFUL]))
def test_without_a_fork_the_order_does_not_matter(first: list[bytes], second: list[bytes]) -> None:
    assert told(START, first) == told(START, second)


@given(st.permutations([item.raw for item in EVERY]), st.permutations([item.raw for item in EVERY]))
def test_with_a_fork_all_are_frozen_by_the_same_proof_and_recover_to_the_same_chain(
    first: list[bytes], second: list[bytes]
) -> None:
    one, other = told(START, first), told(START, second)
    assert (one.fork, one.candidates) == (other.fork, other.candidates)
    assert one.frozen_at == 1
    assert one.settle(NOW + RECOVERY_WAIT) == other.settle(NOW + RECOVERY_WAIT)


@given(st.lists(st.sampled_from(range(3)), min_size=1, max_size=12), st.permutations([item.raw for item in PEACEFUL]))
def test_nodes_that_merge_each_others_chains_agree(turns: list[int], raws: list[bytes]) -> None:
    chains = [START.merged(raws[index::3], NOW).chain for index in range(3)]
    for turn in turns:
        chains[turn] = chains[turn].merged(chains[(turn + 1) % 3].to_show, NOW).chain
    for _ in range(3):
        chains = [chain.merged([raw for other in chains for raw in other.to_show], NOW).chain for chain in chains]
    assert chains[0] == chains[1] == chains[2]
    assert len({chain.digest for chain in chains}) == 1


@given(st.lists(st.sampled_from([item.raw for item in EVERY]) | st.binary(max_size=40), max_size=12))
def test_whatever_comes_the_chain_never_gets_shorter_and_can_be_kept(raws: list[bytes]) -> None:
    chain = START
    for raw in raws:
        before = chain
        try:
            chain = chain.with_object(raw, NOW).chain
        except Refused:
            assert chain == before
        assert chain.objects[: len(before.objects)] == before.objects
        assert before.frozen_at is None or (chain.frozen_at is not None and chain.frozen_at <= before.frozen_at)
    assert unpack_chain(pack_chain(chain), MESH.root) == chain
