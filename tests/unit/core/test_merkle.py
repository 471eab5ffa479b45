"""The tree level by level: the way in which batches use it. What holds of proofs is tested with the audit log."""

import pytest

from overlay.core.merkle import EMPTY_ROOT, Tree, inclusion_proof, levels_of, path_through, root_of
from overlay.core.wire import sha256

LEAVES = [sha256(bytes([number])) for number in range(70)]


@pytest.mark.parametrize("size", range(1, 70))
def test_the_levels_end_in_the_root_that_an_appended_tree_has(size: int) -> None:
    levels = levels_of(LEAVES[:size])
    assert levels[-1] == [Tree().extend(LEAVES[:size]).root]
    assert [path_through(levels, index) for index in range(size)] == [
        inclusion_proof(LEAVES[:size], index) for index in range(size)
    ]


def test_nothing_has_a_root_and_no_levels() -> None:
    assert root_of([]) == EMPTY_ROOT
    with pytest.raises(ValueError, match="no leaves"):
        levels_of([])
