"""Whether a closing checkpoint agrees with what a node holds of that log: where its history under the old authority ends.

Who leads a ceremony writes them into the object. A size beyond what others hold would let entries in that somebody writes
later, a root of another history hides a fork, and a size that is too small takes entries away. Each member looks before it
signs.
"""

from dataclasses import dataclass
from typing import Final

from overlay.core.authority.contents import ClosingCheckpoint
from overlay.core.certificates import TOLERANCE

SETTLED_BEFORE: Final = 2 * TOLERANCE  # what is so old when it begins has reached all: two clocks differ by no more; our guess


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What this node holds of the log that a checkpoint names."""

    knows_author: bool = True  # whether it holds any log of that author
    root: bytes | None = None  # of the first entries, as many as the checkpoint counts; None where it holds fewer
    settled: int = 0  # how many entries are older than the ceremony by SETTLED_BEFORE
    superseded: bool = False  # the author's next log has such entries


def judge_closing(checkpoint: ClosingCheckpoint, copy: Copy, *, leaves: bool) -> str:
    """What is wrong with it; empty if nothing is, as far as can be known.

    `leaves`: another node that is no member any more. It must not be able to stop its own removal, by showing to some what it
    keeps from others: so for its log too early an end is no fault.
    """
    if not copy.knows_author:
        return ""
    if copy.root is None:
        return f"closed after {checkpoint.size} entries, which nobody has shown here"
    if copy.root != checkpoint.root:
        return f"closed after {checkpoint.size} entries of another history than here"
    if not leaves and (copy.superseded or checkpoint.size < copy.settled):
        return f"closed after {checkpoint.size} entries, and older ones than the ceremony come later"
    return ""
