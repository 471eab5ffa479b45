"""Notices that policies differ: somebody refuses us, or we somebody, for what the policy says of evidence.

Who has missed a policy may refuse everybody, and be refused by all, and so never hear of it. Then links of mode 3 are tried, on
which members compare what they know of the authority, the policy with it, and nothing else.
"""

from collections.abc import Callable
from typing import Final

from overlay.events import LinkRefused, NodeEvent, TrustLost
from overlay.registry import Reason

EVERY: Final = 15.0  # seconds between two tries: our guess; such a link lasts up to a minute
RECENT: Final = 120.0  # seconds that a refusal counts: our guess, twice the longest pause between two dials

BY_POLICY: Final = frozenset({
    Reason.EVIDENCE_NOT_ACCEPTED, Reason.PCR_SELECTION, Reason.PCR_MISMATCH, Reason.SOFTWARE_MISMATCH, Reason.LEVEL_TOO_LOW,
    Reason.FIRMWARE,
})  # fmt: skip


class ShutOut:
    """Of one node. `linked`: whether there is an open link to a node of this id."""

    def __init__(self, now: Callable[[], float], linked: Callable[[str], bool]) -> None:
        self._now = now
        self._linked = linked
        self._refused: dict[str, float] = {}  # who, or we by whom, and when
        self._tried = -EVERY

    def observe(self, event: NodeEvent) -> None:
        """Take an event."""
        if isinstance(event, LinkRefused | TrustLost) and event.reason in BY_POLICY:
            now = self._now()
            self._refused = {node: at for node, at in self._refused.items() if now - at < RECENT} | {event.node: now}

    def is_time(self) -> bool:
        """Whether to try now: there is somebody whom a policy keeps from us, and the last try is a while ago."""
        now = self._now()
        if now - self._tried < EVERY:
            return False
        if not any(now - at < RECENT and not self._linked(node) for node, at in self._refused.items()):
            return False
        self._tried = now
        return True
