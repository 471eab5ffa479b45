"""The tree over a list (RFC 9162, section 2.1; RFC 6962 has the same one): roots, proofs and their verification.

Leaves come in as leaf hashes, H(0x00 || entry); an inner node is H(0x01 || left || right). All hashes have 32 bytes.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason

HASH_SIZE: Final = 32
EMPTY_ROOT: Final = sha256()  # section 2.1.1: the hash of an empty list


def inner_hash(left: bytes, right: bytes) -> bytes:
    """The node above two others."""
    return sha256(b"\1", left, right)


@dataclass(frozen=True, slots=True)
class Tree:
    """The right edge of a tree: roots of its full subtrees, largest first, one per bit of `size`.

    To append costs O(log n).
    """

    size: int = 0
    edge: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        fits = self.size >= 0 and len(self.edge) == self.size.bit_count()
        if not fits or any(len(node) != HASH_SIZE for node in self.edge):
            raise ValueError("the edge of a tree has one hash per bit of its size")

    @property
    def root(self) -> bytes:
        """32 bytes that commit to all leaves and their order."""
        return _fold(self.edge)

    def append(self, leaf: bytes) -> "Tree":
        """The tree with one more leaf."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> "Tree":
        """The tree with more leaves, in order."""
        size, edge = self.size, list(self.edge)
        for leaf in leaves:
            node, full = leaf, size
            while full & 1:
                node, full = inner_hash(edge.pop(), node), full >> 1
            edge.append(node)
            size += 1
        return Tree(size, tuple(edge))


def _fold(edge: Sequence[bytes]) -> bytes:
    """The root above the full subtrees."""
    if not edge:
        return EMPTY_ROOT
    *rest, node = edge
    for left in reversed(rest):
        node = inner_hash(left, node)
    return node


def levels_of(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """All nodes of the tree of these leaf hashes, level by level, leaves first; a node without a sibling moves up as it is.

    Raises ValueError without leaves.
    """
    if not leaves:
        raise ValueError("no leaves, no levels")
    digest = hashlib.sha256  # called as it is: these lines are most of the cost of a batch of messages
    level = list(leaves)
    levels = [level]
    while len(level) > 1:
        above = [digest(b"\1" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        level = above + level[len(level) & ~1 :]
        levels.append(level)
    return levels


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root of a list of leaf hashes."""
    return levels_of(leaves)[-1][0] if leaves else EMPTY_ROOT


# --- making proofs ----------------------------------------------------------------------------------------------------


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """PATH of section 2.1.3.1: what shows that leaf `index` is in the tree of these leaves.

    Raises ValueError for an index outside the tree.
    """
    if not 0 <= index < len(leaves):
        raise ValueError("there is no such leaf")
    return path_through(levels_of(leaves), index)


def path_through(levels: Sequence[Sequence[bytes]], index: int) -> tuple[bytes, ...]:
    """The same for levels that are there already: the siblings on the way up."""
    places = ((level, index >> height ^ 1) for height, level in enumerate(levels[:-1]))
    return tuple(level[place] for level, place in places if place < len(level))


def consistency_proof(leaves: Sequence[bytes], first: int) -> tuple[bytes, ...]:
    """PROOF of section 2.1.4.1: what shows that the tree of the first leaves became the tree of all.

    Raises ValueError unless 0 < first <= len(leaves).
    """
    if not 0 < first <= len(leaves):
        raise ValueError("there is no such earlier tree")
    return _subproof(leaves, first, whole=True)


def _subproof(leaves: Sequence[bytes], first: int, *, whole: bool) -> tuple[bytes, ...]:
    """SUBPROOF of section 2.1.4.1; `whole`: the root of these leaves is known to the verifier."""
    if first == len(leaves):
        return () if whole else (root_of(leaves),)
    split = _split(len(leaves))
    if first <= split:
        return (*_subproof(leaves[:split], first, whole=whole), root_of(leaves[split:]))
    return (*_subproof(leaves[split:], first - split, whole=False), root_of(leaves[:split]))


def consistency_from(old: Tree, more: Sequence[bytes]) -> tuple[bytes, ...]:
    """The same proof out of the right edge of the earlier tree and the leaves that came after it. Raises ValueError."""
    if not old.size:
        raise ValueError("an empty tree proves nothing")
    full: dict[tuple[int, int], bytes] = {}
    start = 0
    for node in old.edge:
        end = start + (1 << (old.size - start).bit_length() - 1)
        full[start, end], start = node, end

    def node_over(first: int, end: int) -> bytes:
        return full[first, end] if end <= old.size else root_of(more[first - old.size : end - old.size])

    def walk(first: int, end: int, *, whole: bool) -> tuple[bytes, ...]:
        if end == old.size:
            return () if whole else (node_over(first, end),)
        split = first + _split(end - first)
        if old.size <= split:
            return (*walk(first, split, whole=whole), node_over(split, end))
        return (*walk(split, end, whole=False), node_over(first, split))

    return walk(0, old.size + len(more), whole=True)


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


# --- verifying proofs -------------------------------------------------------------------------------------------------


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Section 2.1.3.2: the leaf stands at `index` in the tree of that size and root. Raises Refused(CHAIN_BROKEN)."""
    _check_sizes(root)
    if root_above(leaf, index, size, proof) != root:
        _broken("the proof leads to another root")


def root_above(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root to which a proof leads from a leaf (section 2.1.3.2). Raises Refused(CHAIN_BROKEN) if it leads nowhere."""
    _check_sizes(leaf, *proof)
    if not 0 <= index < size:
        _broken("the index is outside the tree")
    node = leaf
    for sibling, on_the_left in zip(proof, _sides(index, size - 1, len(proof)), strict=True):
        node = inner_hash(sibling, node) if on_the_left else inner_hash(node, sibling)
    return node


def check_consistency(first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Section 2.1.4.2: the second tree is the first one with leaves appended. Raises Refused(CHAIN_BROKEN)."""
    _check_sizes(first_root, second_root, *proof)
    if not 0 < first <= second:
        _broken("an empty tree proves nothing, and a tree never shrinks")
    if first == second:
        if proof or first_root != second_root:
            _broken("one size has one root and needs no proof")
        return
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        _broken("the proof is empty")
    old = new = path[0]
    full = _trailing_ones(first - 1)
    for node, on_the_left in zip(path[1:], _sides(first - 1 >> full, second - 1 >> full, len(path) - 1), strict=True):
        old = inner_hash(node, old) if on_the_left else old
        new = inner_hash(node, new) if on_the_left else inner_hash(new, node)
    if old != first_root or new != second_root:
        _broken("the proof leads to another root")


def _sides(position: int, last: int, steps: int) -> list[bool]:
    """On the way from a node up to the root: whether each sibling stands on the left. `last`: of that level.

    Raises:
        Refused: the way has another number of steps.
    """
    sides = []
    while last:
        on_the_left = bool(position & 1) or position == last
        if on_the_left:
            skipped = _trailing_zeros(position)  # levels at which the node is the last one and has no sibling
            position, last = position >> skipped, last >> skipped
        sides.append(on_the_left)
        position, last = position >> 1, last >> 1
    if len(sides) != steps:
        _broken("the proof is too long or too short")
    return sides


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1 if number else 0


def _trailing_ones(number: int) -> int:
    return _trailing_zeros(~number)


def _check_sizes(*hashes: bytes) -> None:
    if any(len(node) != HASH_SIZE for node in hashes):
        _broken("a hash of the tree has 32 bytes")


def _broken(detail: str) -> NoReturn:
    raise Refused(Reason.CHAIN_BROKEN, detail)
