"""Which of several links to one peer stays: a rule over facts that both ends share, so that both keep the same one.

Both dialled: the link whose opener has the lower node id stays. A later start of the peer replaces an earlier one. A peer
that says it has no link makes us probe the old one, which then either answers or dies.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from overlay.core.keys import NodeId
from overlay.core.limits import STARTS_REMEMBERED
from overlay.registry import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFacts:
    """What the rule looks at."""

    own_id: NodeId
    peer_id: NodeId
    role: Role  # ours
    start_id: bytes  # the peer's
    started: datetime  # the peer's endorsement.not_before
    peer_has_link: bool  # what the peer said in CHALLENGE

    @property
    def opener(self) -> NodeId:
        """Who dialled."""
        return self.own_id if self.role is Role.OPENER else self.peer_id


class Choice(Enum):
    """What to do with an old link and a new one."""

    KEEP_NEW = auto()  # the old one says GOODBYE(DUPLICATE) when it has drained
    KEEP_OLD = auto()  # the new one does
    REPLACE = auto()  # the old one ends at once: the peer has started anew
    REFUSE = auto()  # the new one ends at once: it belongs to an earlier start
    PROBE = auto()  # keep both until the old one has answered or died


def choose(old: LinkFacts, new: LinkFacts) -> Choice:
    """The same at both ends for links of one start; the lower opener wins."""
    if new.start_id != old.start_id:
        return Choice.REPLACE if new.started >= old.started else Choice.REFUSE
    if new.opener < old.opener:
        return Choice.KEEP_NEW
    if new.role is Role.OTHER and not new.peer_has_link:
        return Choice.PROBE  # whoever dialled again may have lost the old one, of which we have not heard
    return Choice.KEEP_NEW if new.opener == old.opener else Choice.KEEP_OLD  # who dials twice knows what it does


def dial_delay(own_id: NodeId, peer_id: NodeId | None) -> float:
    """Seconds to wait before a first dial, so that two ends seldom dial at once: the higher id gives the lower a start."""
    if peer_id is None or own_id < peer_id:
        return 0.0
    return 0.5  # our guess: some LAN round trips and a handshake


@dataclass(frozen=True, slots=True)
class Starts:
    """The starts of one peer that we saw; a third change between the same two within 10 minutes is CLONED_IDENTITY.

    That is said once of the same two.
    """

    changes: tuple[tuple[float, frozenset[bytes]], ...] = ()
    told: tuple[frozenset[bytes], ...] = ()

    def changed(self, old: bytes, new: bytes, now: float) -> "tuple[Starts, bool]":
        """Remember a change; the flag says that one identity runs twice, and that this was not said before."""
        pair = frozenset((old, new))
        recent = (*(one for one in self.changes if now - one[0] < 600.0), (now, pair))
        cloned = pair not in self.told and sum(1 for _, other in recent if other == pair) >= 3
        return Starts(recent[-STARTS_REMEMBERED:], (*self.told, pair)[-STARTS_REMEMBERED:] if cloned else self.told), cloned
