"""How far nodes are believed that we do not appraise ourselves: by what others' audit logs say of them. Rules:

- of each log only its last word about a node counts: that its evidence was bad (drift), or good (it was let in)
- a signer's word is worth two, that of a node of level 3 or more one, others' none; our own is worth two
- bad words worth two limit the node to level 1, until good words worth two are newer than they are
- no word is from the future: a clock that is ahead gains nothing
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from overlay.core.keys import NodeId
from overlay.core.policy_parts import LEVEL_MAX
from overlay.registry import Reason

LIMIT: Final = 1  # protocol: the level that is left
ENOUGH: Final = 2  # protocol: two nodes of level 3, or one signer
REPORTER_LEVEL: Final = 3  # protocol
WORDS_MAX: Final = 65_536  # our guess: of 256 nodes about 256 others

# Reasons that speak against what a machine runs. A lease that ended, a policy that changed or a revocation do not.
SPEAKS_OF_DRIFT: Final = frozenset({
    Reason.BAD_EVIDENCE, Reason.ATTESTATION_KEY_MISMATCH, Reason.EVIDENCE_SIGNATURE, Reason.EVIDENCE_NOT_BOUND,
    Reason.PCR_SELECTION, Reason.PCR_MISMATCH, Reason.TPM_CLOCK, Reason.SOFTWARE_MISMATCH, Reason.FIRMWARE,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Word:
    """What a log said last of a node. `reason` is None where its evidence was good."""

    at: datetime
    reason: Reason | None


class DriftLimits:
    """Fed with entries as they become known, in any order; asked at any time."""

    def __init__(self, weight: Callable[[NodeId], int]) -> None:
        """`weight`: what the word of a node is worth now: 0, 1 or 2."""
        self._weight = weight
        self._words: OrderedDict[NodeId, dict[NodeId, Word]] = OrderedDict()
        self._count = 0
        self._suspects: set[NodeId] = set()  # of whom some log says bad things: all others are quickly told

    def heard(self, reporter: NodeId, about: NodeId, reason: Reason | None, at: datetime, now: datetime) -> None:
        """A log says of a node that it was let in (no reason), or why it is trusted no more; `at` by its author's clock."""
        if reason is not None and reason not in SPEAKS_OF_DRIFT:
            return
        words = self._words.setdefault(about, {})
        self._words.move_to_end(about)
        known, at = words.get(reporter), min(at, now)
        if known is not None and at < known.at:
            return
        self._count += known is None
        words[reporter] = Word(at, reason)
        if reason is not None:
            self._suspects.add(about)
        elif all(word.reason is None for word in words.values()):
            self._suspects.discard(about)
        while self._count > WORDS_MAX:
            oldest, lost = self._words.popitem(last=False)
            self._count -= len(lost)
            self._suspects.discard(oldest)

    def limit(self, about: NodeId) -> int:
        """The highest level that counts of a node: 1, or 5 for no limit."""
        return LIMIT if self.against(about) else LEVEL_MAX

    def against(self, about: NodeId) -> dict[NodeId, Reason]:
        """Who speaks against a node, and why; empty unless that limits it."""
        if about not in self._suspects:
            return {}
        words = self._words[about]
        good = [(word.at, self._weight(one)) for one, word in words.items() if word.reason is None]
        bad = {
            one: word.reason for one, word in words.items()
            if word.reason is not None and sum(weight for at, weight in good if at > word.at) < ENOUGH
        }  # fmt: skip
        worth = {one: reason for one, reason in bad.items() if self._weight(one)}
        return worth if sum(map(self._weight, worth)) >= ENOUGH else {}

    @property
    def limited(self) -> tuple[NodeId, ...]:
        """All nodes that are limited now."""
        return tuple(about for about in sorted(self._suspects) if self.against(about))
