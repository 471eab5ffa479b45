"""The tree of a stored log gives the proofs that the whole list of hashes gives, whatever is stored of it."""

import sqlite3
from collections.abc import Iterator
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.stored_tree import BLOCK, LEVEL, SCHEMA, StoredTree
from overlay.core.merkle import check_consistency, check_inclusion, consistency_proof, inclusion_proof, root_of
from overlay.errors import StateDamaged

SIZE = 5 * BLOCK + 77
LEAVES = [sha256(b"%d" % number).digest() for number in range(SIZE)]


def filled(size: int, steps: list[int] | None = None) -> sqlite3.Connection:
    """Two logs, of which the other one must not matter; the first is written in these steps."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE entries (log INTEGER, seq INTEGER, hash BLOB, PRIMARY KEY (log, seq)) WITHOUT ROWID")
    connection.executescript(SCHEMA)
    connection.executemany("INSERT INTO entries VALUES (2, ?, ?)", [(seq, bytes(32)) for seq in range(size)])
    StoredTree(connection, 2).add(0, size)
    before = 0
    for after in [*(steps or []), size]:
        rows = [(seq, LEAVES[seq]) for seq in range(before, after)]
        connection.executemany("INSERT INTO entries VALUES (1, ?, ?)", rows)
        StoredTree(connection, 1).add(before, after)
        before = after
    return connection


@pytest.fixture(scope="module")
def whole() -> Iterator[sqlite3.Connection]:
    connection = filled(SIZE, [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
    yield connection
    connection.close()


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 511, 512, 700, 1024, SIZE])
def test_roots_and_proofs_are_those_of_the_list(whole: sqlite3.Connection, size: int) -> None:
    tree = StoredTree(whole, 1)
    assert tree.root(size) == root_of(LEAVES[:size])
    for index in sorted({0, 1, size // 3, size // 2, size - 2, size - 1} & set(range(size))):
        assert tree.inclusion(index, size) == inclusion_proof(LEAVES[:size], index)
        check_inclusion(LEAVES[index], index, size, tree.inclusion(index, size), root_of(LEAVES[:size]))
    for first in sorted({1, 2, size // 3, size // 2, size - 1, size} & set(range(1, size + 1))):
        assert tree.consistency(first, size) == consistency_proof(LEAVES[:size], first)


@given(st.integers(1, SIZE), st.data())
def test_any_proof_is_that_of_the_list(whole: sqlite3.Connection, size: int, data: st.DataObject) -> None:
    tree, root = StoredTree(whole, 1), root_of(LEAVES[:size])
    index = data.draw(st.integers(0, size - 1))
    check_inclusion(LEAVES[index], index, size, tree.inclusion(index, size), root)
    check_consistency(index + 1, root_of(LEAVES[: index + 1]), size, root, tree.consistency(index + 1, size))


@settings(max_examples=15)
@given(st.lists(st.integers(0, SIZE), max_size=6).map(sorted))
def test_the_nodes_do_not_depend_on_how_entries_came(steps: list[int]) -> None:
    rows = "SELECT level, place, hash FROM nodes WHERE log = 1 ORDER BY level, place"
    assert filled(SIZE, steps).execute(rows).fetchall() == filled(SIZE).execute(rows).fetchall()


def test_without_stored_nodes_it_takes_longer_and_gives_the_same(whole: sqlite3.Connection) -> None:
    other = filled(SIZE)
    other.execute("DELETE FROM nodes")
    assert StoredTree(other, 1).inclusion(700, SIZE) == StoredTree(whole, 1).inclusion(700, SIZE)


def test_proofs_of_what_follows_stay_when_whole_blocks_are_gone(whole: sqlite3.Connection) -> None:
    other = filled(SIZE)
    other.execute("DELETE FROM entries WHERE log = 1 AND seq < ?", (2 * BLOCK,))
    assert StoredTree(other, 1).inclusion(2 * BLOCK, SIZE) == StoredTree(whole, 1).inclusion(2 * BLOCK, SIZE)
    assert StoredTree(other, 1).consistency(2 * BLOCK, SIZE) == StoredTree(whole, 1).consistency(2 * BLOCK, SIZE)
    with pytest.raises(StateDamaged):
        StoredTree(other, 1).inclusion(BLOCK, SIZE)


def test_entries_that_are_not_there_give_no_proof(whole: sqlite3.Connection) -> None:
    tree = StoredTree(whole, 1)
    with pytest.raises(StateDamaged):
        tree.root(SIZE + 1)
    for index, size in ((-1, 5), (5, 5)):
        with pytest.raises(ValueError, match="no such leaf"):
            tree.inclusion(index, size)
    for first, second in ((0, 5), (6, 5)):
        with pytest.raises(ValueError, match="no such earlier tree"):
            tree.consistency(first, second)
    broken = filled(BLOCK * 2)
    broken.execute("DELETE FROM entries WHERE log = 1 AND seq = 3")
    with pytest.raises(StateDamaged, match="missing"):
        StoredTree(broken, 1).inclusion(5, BLOCK)
    assert StoredTree(broken, 1).stored(LEVEL, 99) is None
