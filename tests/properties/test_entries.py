"""Properties of logs: random histories verify whole and in pieces, and what is not such a history changes nothing."""

from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audit.chain import ChainState, extend
from audit.entry import parse_entry
from overlay.core.merkle import Tree, check_consistency, check_inclusion, consistency_proof, inclusion_proof, root_of
from overlay.errors import Refused
from tests.unit.audit.audit_kit import Writer, start_of
from tests.unit.core.authority_kit import make_member, make_mesh

MESH = make_mesh()
STARTS = [make_member(MESH, "alice", start=number) for number in (1, 2, 3)]

some = settings(deadline=None, max_examples=60)
histories = st.lists(st.one_of(st.text(max_size=20), st.integers(0, 2)), max_size=12)


def log_of(history: Sequence[str | int]) -> Writer:
    """Texts are notes; a number changes to the keys of that start, if they are others."""
    writer = Writer.begin(MESH, STARTS[0])
    writer.open()
    for step in history:
        if isinstance(step, str):
            writer.note(step)
        elif STARTS[step] is not writer.member:
            writer.change_to(STARTS[step])
    return writer


def after(state: ChainState, raws: Sequence[bytes]) -> ChainState:
    return extend(state, raws, MESH.root, at=None).state


@some
@given(histories, st.data())
def test_a_history_verifies_whole_and_in_pieces(history: list[str | int], data: st.DataObject) -> None:
    writer = log_of(history)
    whole = after(start_of(writer), writer.raws)
    cut = data.draw(st.integers(0, len(writer.raws)))
    assert after(after(start_of(writer), writer.raws[:cut]), writer.raws[cut:]) == whole
    assert whole.root == root_of([entry.hash for entry in writer.entries])
    assert whole.size == len(writer.entries)


@some
@given(histories, st.data())
def test_one_changed_byte_anywhere_breaks_a_history(history: list[str | int], data: st.DataObject) -> None:
    writer = log_of(history)
    raws = list(writer.raws)
    where = data.draw(st.integers(0, len(raws) - 1))
    changed = bytearray(raws[where])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    raws[where] = bytes(changed)
    start = start_of(writer)
    with pytest.raises(Refused):
        after(start, raws)
    assert start == start_of(writer)
    assert after(start, writer.raws[:where]).size == where


@some
@given(histories, st.data())
def test_any_other_order_breaks_a_history(history: list[str | int], data: st.DataObject) -> None:
    writer = log_of(history)
    order = data.draw(st.lists(st.sampled_from(range(len(writer.raws))), max_size=len(writer.raws) + 2))
    raws = [writer.raws[index] for index in order]
    if order == list(range(len(order))):
        assert after(start_of(writer), raws).size == len(order)
    else:
        with pytest.raises(Refused):
            after(start_of(writer), raws)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    for raw in (data, b"\xd2" + data, b"\xd2\x84" + data):
        with pytest.raises(Refused):
            parse_entry(raw)
        with pytest.raises(Refused):
            after(start_of(Writer.begin(MESH, STARTS[0])), [raw])


# --- trees ------------------------------------------------------------------------------------------------------------

hashes = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70)


@settings(deadline=None, max_examples=200)
@given(hashes, st.data())
def test_every_leaf_and_every_earlier_tree_can_be_proven(leaves: list[bytes], data: st.DataObject) -> None:
    tree = Tree().extend(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    check_inclusion(leaves[index], index, len(leaves), inclusion_proof(leaves, index), tree.root)
    first = index + 1
    proof = consistency_proof(leaves, first)
    check_consistency(first, root_of(leaves[:first]), len(leaves), tree.root, proof)


@settings(deadline=None, max_examples=200)
@given(hashes, st.data())
def test_a_proof_is_of_its_two_roots_only(leaves: list[bytes], data: st.DataObject) -> None:
    first = data.draw(st.integers(1, len(leaves)))
    proof, before, after = consistency_proof(leaves, first), root_of(leaves[:first]), root_of(leaves)
    other = data.draw(st.binary(min_size=32, max_size=32))
    assume(other not in (before, after))
    for roots in ((other, after), (before, other)):
        with pytest.raises(Refused):
            check_consistency(first, roots[0], len(leaves), roots[1], proof)


@settings(deadline=None, max_examples=200)
@given(hashes, st.data())
def test_a_changed_proof_proves_nothing(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    root, first, size = root_of(leaves), index + 1, len(leaves)
    inclusion, consistency = list(inclusion_proof(leaves, index)), list(consistency_proof(leaves, first))
    for proof in (inclusion, consistency):
        other = data.draw(st.binary(min_size=32, max_size=32))
        assume(other not in proof)
        replaced = bool(proof) and data.draw(st.booleans())
        if replaced:
            proof[data.draw(st.integers(0, len(proof) - 1))] = other
        else:
            proof.insert(data.draw(st.integers(0, len(proof))), other)
    with pytest.raises(Refused):
        check_inclusion(leaves[index], index, size, inclusion, root)
    with pytest.raises(Refused):
        check_consistency(first, root_of(leaves[:first]), size, root, consistency)
