"""Seeds for `fork_targets.py`: a proof of each kind."""

from collections.abc import Iterator

from audit.forks import make_fork
from overlay.core.wire import decode, encode
from overlay.registry import ForkKind
from tests.fuzz.fork_targets import forker, shortened
from tests.unit.audit.fork_kit import entry_side, head_side, leaf_side


def forks() -> Iterator[bytes]:
    """Without credentials (1), and one with those of somebody else."""
    left, right = forker().left, forker().right
    entries = make_fork(ForkKind.ENTRIES, entry_side(left, 2), entry_side(right, 2))
    yield b"\1" + shortened(entries)
    yield b"\1" + shortened(make_fork(ForkKind.HEADS, head_side(left, 4), head_side(right, 4)))
    yield b"\1" + shortened(make_fork(ForkKind.LEAVES, leaf_side(left, 4, 2), leaf_side(right, 3, 2)))
    yield b"\1" + shortened(make_fork(ForkKind.ENTRY_AND_LEAF, entry_side(left, 3), leaf_side(right, 4, 3)))
    fields = decode(shortened(entries), limit=4096)
    yield b"\1" + encode(fields | {2: fields[2] | {1: 1}})
    yield b"\0" + encode({0: 1, 1: 1, 2: {0: 1}, 3: {0: 1}})
    yield b"\1" + encode({0: 1, 1: 1, 2: 0, 3: {10: 1}})  # a side without its format number
