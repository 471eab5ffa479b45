"""The binding: its bytes, its tree, and every field that must matter."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.binding import Tree, bind, bound_data, leaf_hash, qualifying_data, root_from_path
from attest.evidence import Proof, prove_all
from overlay.core.evidence import Binding
from overlay.core.limits import ROUND_LEAVES_MAX
from overlay.core.wire import sha256
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import Reason, Role
from tests.unit.attest.software_tpm import AK, Machine, a_binding

SIZES = [*range(1, 34), 63, 64, 65, 100]


def leaves(count: int) -> list[bytes]:
    return [sha256(str(number).encode()) for number in range(count)]


def rfc9162_root(items: list[bytes]) -> bytes:
    """Section 2.1.1, word for word: split at the largest power of two below n."""
    if len(items) == 1:
        return items[0]
    k = 1
    while k * 2 < len(items):
        k *= 2
    return sha256(b"\x01", rfc9162_root(items[:k]), rfc9162_root(items[k:]))


def test_the_bytes_of_a_binding_are_those_of_the_protocol() -> None:
    expected = (
        b"overlay/1 attest\0"
        + b"\x00\x20" + sha256(b"mesh") + b"\x00\x20" + sha256(b"h") + b"\x00\x01\x01"
        + b"\x00\x20" + sha256(b"attester") + b"\x00\x20" + sha256(b"verifier")
        + b"\x00\x20" + bytes(32) + b"\x00\x08" + bytes(7) + b"\x01" + b"\x00\x20" + sha256(b"claims")
    )
    assert bind(a_binding(), b"claims") == expected
    assert leaf_hash(expected) == sha256(b"\x00overlay/1 attest leaf\0" + expected)
    assert qualifying_data(258, bytes(32)) == sha256(b"overlay/1 attest root\0\x00\x00\x01\x02" + bytes(32))


@pytest.mark.parametrize("count", SIZES)
def test_the_tree_is_that_of_rfc_9162_over_sorted_leaves(count: int) -> None:
    assert Tree.of(leaves(count)).root == rfc9162_root(sorted(leaves(count)))


@pytest.mark.parametrize("count", SIZES)
def test_every_leaf_leads_to_the_root(count: int) -> None:
    tree = Tree.of(leaves(count))
    for leaf in leaves(count):
        index = tree.index(leaf)
        assert root_from_path(leaf, count, index, tree.path(index)) == tree.root


@pytest.mark.parametrize("count", SIZES)
def test_a_path_of_another_length_than_its_place_gives_is_refused(count: int) -> None:
    tree = Tree.of(leaves(count))
    for index in range(count):
        path = tree.path(index)
        for wrong in (path[:-1], (*path, bytes(32)), (bytes(32), *path)):
            if len(wrong) != len(path):
                with pytest.raises(Refused) as refusal:
                    root_from_path(tree.levels[0][index], count, index, wrong)
                assert refusal.value.reason is Reason.EVIDENCE_NOT_BOUND


def test_another_place_or_another_count_gives_another_quote() -> None:
    tree = Tree.of(leaves(7))
    right = qualifying_data(7, tree.root)
    for count in range(1, 12):
        for index in range(count):
            if (count, index) == (7, 2):
                continue
            try:
                found = qualifying_data(count, root_from_path(tree.levels[0][2], count, index, tree.path(2)))
            except Refused as error:
                assert error.reason is Reason.EVIDENCE_NOT_BOUND
            else:
                assert found != right


@pytest.mark.parametrize(("count", "index"), [(0, 0), (1, 1), (4, 4), (ROUND_LEAVES_MAX + 1, 0), (3, -1)])
def test_a_place_outside_the_tree_is_refused(count: int, index: int) -> None:
    with pytest.raises(Refused) as refusal:
        root_from_path(bytes(32), count, index, ())
    assert refusal.value.reason is Reason.EVIDENCE_NOT_BOUND


def test_a_tree_has_leaves_and_no_two_are_equal() -> None:
    for bad in ([], [bytes(32), bytes(32)]):
        with pytest.raises(LocalProtocolError):
            Tree.of(bad)


def test_the_largest_tree_has_paths_of_sixteen() -> None:
    tree = Tree.of(leaves(ROUND_LEAVES_MAX))
    assert len(tree.path(0)) == 16
    assert root_from_path(tree.levels[0][77], ROUND_LEAVES_MAX, 77, tree.path(77)) == tree.root
    with pytest.raises(LocalProtocolError):
        Tree.of(leaves(ROUND_LEAVES_MAX + 1))


VARIANTS: list[Binding] = [
    a_binding(),
    replace(a_binding(), mesh_id=sha256(b"other")),
    replace(a_binding(), h=sha256(b"other")),
    replace(a_binding(), role=Role.OTHER),
    replace(a_binding(), attester_leaf=sha256(b"other")),
    replace(a_binding(), verifier_leaf=sha256(b"other")),
    replace(a_binding(), nonce=sha256(b"other")),
    replace(a_binding(), epoch=2),
    replace(a_binding(), attester_leaf=a_binding().verifier_leaf, verifier_leaf=a_binding().attester_leaf),
]


def test_each_field_of_a_binding_matters() -> None:
    bound = sorted(bind(variant, b"claims") for variant in VARIANTS)
    assert all(one != other for one, other in pairwise(bound))
    assert bind(a_binding(), b"claims") != bind(a_binding(), b"Claims")


def test_one_proof_serves_all_bindings_in_their_order() -> None:
    bindings = [a_binding(number) for number in range(11)]
    asked: list[bytes] = []

    def prove_once(data: bytes) -> Proof:
        asked.append(data)
        return Machine().quote(data)

    found = prove_all(bindings, b"claims", prove_once)
    assert len(asked) == 1
    assert [bound_data(one, binding) for one, binding in zip(found, bindings, strict=True)] == asked * 11
    assert {one.ak_public for one in found} == {AK.area.raw}


def test_a_nonce_that_comes_twice_does_not_stop_the_round() -> None:
    found = prove_all([a_binding(1), a_binding(2), a_binding(1)], b"claims", Machine().quote)
    assert found[0] == found[2]
    assert {one.count for one in found} == {2}


def test_no_bindings_need_no_proof() -> None:
    assert prove_all([], b"claims", Machine().quote) == []


@given(
    st.binary(min_size=32, max_size=32), st.integers(0, 70_000), st.integers(0, 70_000),
    st.lists(st.binary(min_size=32, max_size=32), max_size=17),
)
def test_any_path_gives_a_root_or_a_refusal(leaf: bytes, count: int, index: int, path: list[bytes]) -> None:
    try:
        assert len(root_from_path(leaf, count, index, tuple(path))) == 32
    except Refused as error:
        assert error.reason is Reason.EVIDENCE_NOT_BOUND
