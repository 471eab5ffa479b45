"""What evidence is bound to: one link, epoch, direction and nonce; many bindings become one tree and 32 bytes to quote.

The tree is that of RFC 9162, section 2.1, with a label in each leaf and the leaves sorted.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from overlay.core.evidence import Binding, Evidence
from overlay.core.limits import ROUND_LEAVES_MAX
from overlay.core.wire import lv, sha256, u32, u64
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import Label, Reason

LEAF: Final = b"\x00"
NODE: Final = b"\x01"


def bind(binding: Binding, claims: bytes) -> bytes:
    """The bytes that say for whom, on which link and under which nonce these claims are made."""
    return Label.ATTEST + lv(
        binding.mesh_id,
        binding.h,
        bytes([binding.role]),
        binding.attester_leaf,
        binding.verifier_leaf,
        binding.nonce,
        u64(binding.epoch),
        sha256(claims),
    )


def leaf_hash(bound: bytes) -> bytes:
    """A leaf of the tree, 32 bytes, from the bytes of `bind`."""
    return sha256(LEAF, Label.ATTEST_LEAF, bound)


def qualifying_data(count: int, root: bytes) -> bytes:
    """What is quoted or signed: 32 bytes for a tree of `count` leaves."""
    return sha256(Label.ATTEST_ROOT, u32(count), root)


@dataclass(frozen=True, slots=True)
class Tree:
    """All levels of a tree, leaves first, the root alone in the last."""

    levels: tuple[tuple[bytes, ...], ...] = field(repr=False)

    @classmethod
    def of(cls, leaves: Iterable[bytes]) -> "Tree":
        """The tree over the sorted leaves; LocalProtocolError for none, too many, or two equal ones."""
        level = tuple(sorted(leaves))
        if not 1 <= len(level) <= ROUND_LEAVES_MAX:
            raise LocalProtocolError(f"a round has 1 to {ROUND_LEAVES_MAX} leaves")
        if len(set(level)) != len(level):
            raise LocalProtocolError("two bindings of a round are equal")
        levels = [level]
        while len(level) > 1:
            level = _parents(level)
            levels.append(level)
        return cls(tuple(levels))

    @property
    def count(self) -> int:
        """How many leaves there are."""
        return len(self.levels[0])

    @property
    def root(self) -> bytes:
        """32 bytes; of a single leaf, the leaf."""
        return self.levels[-1][0]

    def index(self, leaf: bytes) -> int:
        """Where the leaf stands among the sorted ones."""
        return self.levels[0].index(leaf)

    def path(self, index: int) -> tuple[bytes, ...]:
        """The siblings from the leaf to the root (RFC 9162, section 2.1.3.1)."""
        siblings = []
        for level in self.levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                siblings.append(level[sibling])
            index //= 2
        return tuple(siblings)


def _parents(level: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """One level up; a last node without a sibling moves up as it is, which gives RFC 9162's tree."""
    pairs = zip(level[::2], level[1::2], strict=False)
    parents = tuple(sha256(NODE, left, right) for left, right in pairs)
    return parents + level[-1:] if len(level) % 2 else parents


def root_from_path(leaf: bytes, count: int, index: int, path: tuple[bytes, ...]) -> bytes:
    """The root that a leaf and its path lead to (RFC 9162, section 2.1.3.2).

    Raises:
        Refused: EVIDENCE_NOT_BOUND if no path of this length can stand at `index` of `count`.
    """
    if not 0 <= index < count <= ROUND_LEAVES_MAX:
        raise Refused(Reason.EVIDENCE_NOT_BOUND, "index and count of the tree")
    if leaf in path:
        raise Refused(Reason.EVIDENCE_NOT_BOUND, "two equal leaves")
    place, last, node = index, count - 1, leaf
    for sibling in path:
        if last == 0:
            raise Refused(Reason.EVIDENCE_NOT_BOUND, "path is too long")
        if place % 2 or place == last:
            node = sha256(NODE, sibling, node)
            while place and not place % 2:
                place, last = place // 2, last // 2
        else:
            node = sha256(NODE, node, sibling)
        place, last = place // 2, last // 2
    if last:
        raise Refused(Reason.EVIDENCE_NOT_BOUND, "path is too short")
    return node


def bound_data(evidence: Evidence, binding: Binding) -> bytes:
    """The 32 bytes that evidence for this binding must be made over.

    Raises:
        Refused: EVIDENCE_NOT_BOUND for a path that does not fit its place in the tree.
    """
    leaf = leaf_hash(bind(binding, evidence.claims))
    return qualifying_data(evidence.count, root_from_path(leaf, evidence.count, evidence.index, evidence.path))
