"""Trees and proofs against a second, slow reading of RFC 9162."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.merkle import (
    EMPTY_ROOT,
    Tree,
    check_consistency,
    check_inclusion,
    consistency_from,
    consistency_proof,
    inclusion_proof,
    root_of,
)
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason

LEAVES = [sha256(b"\0", bytes([number])) for number in range(40)]


def slow_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, word for word."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1", slow_root(leaves[:split]), slow_root(leaves[split:]))


@pytest.mark.parametrize("size", range(20))
def test_the_root_is_that_of_the_rfc(size: int) -> None:
    assert root_of(LEAVES[:size]) == slow_root(LEAVES[:size])


def test_appending_one_by_one_gives_the_same_tree() -> None:
    tree = Tree()
    for leaf in LEAVES:
        tree = tree.append(leaf)
    assert tree == Tree().extend(LEAVES)


def test_the_empty_tree_has_the_hash_of_nothing_as_its_root() -> None:
    assert Tree().root == EMPTY_ROOT
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(("size", "edge"), [(-1, ()), (1, ()), (2, (bytes(32), bytes(32))), (1, (bytes(31),))])
def test_an_edge_that_does_not_fit_the_size_is_no_tree(size: int, edge: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="edge"):
        Tree(size, edge)


@given(st.integers(1, 40), st.data())
def test_every_leaf_can_be_proven_and_nothing_else(size: int, data: st.DataObject) -> None:
    leaves = LEAVES[:size]
    index = data.draw(st.integers(0, size - 1))
    proof, root = inclusion_proof(leaves, index), root_of(leaves)
    check_inclusion(leaves[index], index, size, proof, root)
    bad = [
        (sha256(b"other"), index, size, proof, root), (leaves[index], index, size, proof, sha256(b"other")),
        (leaves[index], index, size, (*proof, bytes(32)), root), (leaves[index], size, size, proof, root),
        *([(leaves[index], index, size, proof[:-1], root)] if proof else []),
        *([(leaves[index], index ^ 1, size, proof, root)] if size > 1 else []),
    ]  # fmt: skip
    for case in bad:
        with pytest.raises(Refused):
            check_inclusion(*case)


@given(st.integers(1, 40), st.data())
def test_every_older_tree_can_be_proven_and_nothing_else(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, size))
    proof, old, new = consistency_proof(LEAVES[:size], first), root_of(LEAVES[:first]), root_of(LEAVES[:size])
    check_consistency(first, old, size, new, proof)
    other = sha256(b"other")
    bad = [
        (first, other, size, new, proof), (first, old, size, other, proof), (first, old, size, new, (*proof, other)),
        (size + 1, old, size, new, proof), (0, old, size, new, proof),
        *([(first, old, size, new, proof[:-1])] if proof else []),
    ]  # fmt: skip
    for case in bad:
        with pytest.raises(Refused):
            check_consistency(*case)


@given(st.integers(1, 70), st.data())
def test_the_same_proof_follows_from_the_edge_of_the_older_tree_and_what_came_after(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, size))
    leaves = [sha256(number.to_bytes(2, "big")) for number in range(size)]
    assert consistency_from(Tree().extend(leaves[:first]), leaves[first:]) == consistency_proof(leaves, first)
    with pytest.raises(ValueError, match="empty tree"):
        consistency_from(Tree(), leaves)


def test_hashes_of_another_length_are_refused() -> None:
    with pytest.raises(Refused) as caught:
        check_inclusion(LEAVES[0], 0, 2, [bytes(31)], bytes(32))
    assert caught.value.reason is Reason.CHAIN_BROKEN
    with pytest.raises(Refused):
        check_consistency(1, bytes(33), 1, bytes(33), [])


@pytest.mark.parametrize("index", [-1, 2])
def test_there_is_no_proof_of_a_leaf_outside_the_tree(index: int) -> None:
    with pytest.raises(ValueError, match="leaf"):
        inclusion_proof(LEAVES[:2], index)


@pytest.mark.parametrize("first", [0, 3])
def test_there_is_no_proof_of_a_tree_that_is_not_older(first: int) -> None:
    with pytest.raises(ValueError, match="earlier"):
        consistency_proof(LEAVES[:2], first)
