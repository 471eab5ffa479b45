"""Is our copy of our own log the newest one? Asked of its witnesses at each start, before anything is written: sans-IO.

- q of them have answered, and nobody has more than we hold: the log goes on
- somebody has more of it, or a log of ours that we do not hold (the folder was restored from a backup, or cloned): what is
  missing is waited for, and then a new incarnation begins, which claims to know the end of the old one
- neither within ten seconds, or one of them has cosigned another history of it than ours: a new incarnation begins that says
  `unconfirmed`, and claims nothing
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from audit.checkpoint import Checkpoint
from audit.quorum import WitnessSet
from overlay.core.keys import NodeId
from overlay.core.limits import CONFIRM_WITHIN


class Outcome(Enum):
    """What our log does next."""

    GOES_ON = auto()
    NEWER_ELSEWHERE = auto()  # and what is newer has come
    UNCONFIRMED = auto()


@dataclass(frozen=True, slots=True)
class Shown:
    """What a witness has cosigned last of a log of ours; `note` is what it showed."""

    checkpoint: Checkpoint
    note: bytes = field(repr=False)
    differs: bool = False  # its root is not the one that our copy has at that size


class Confirmation:
    """The machine."""

    def __init__(
        self, log_id: bytes, held: Mapping[bytes, int], witnesses: WitnessSet, now: float, within: float = CONFIRM_WITHIN
    ) -> None:
        """`held`: how many entries of each of our logs are here; `log_id`: the one that would go on."""
        self.deadline = now + within
        self._log_id = log_id
        self._first = dict(held)
        self._held = dict(held)
        self._witnesses = witnesses
        self._answered: set[NodeId] = set()
        self._newest: dict[bytes, Shown] = {}  # of each log what reaches furthest
        self._differs = False

    @property
    def note(self) -> bytes | None:
        """The newest checkpoint of the open log that its witnesses have shown."""
        found = self._newest.get(self._log_id)
        return None if found is None else found.note

    def holds(self, held: Mapping[bytes, int]) -> None:
        """So much of each of our logs is here now."""
        self._held = dict(held)

    def answered(self, witness: NodeId, shown: Sequence[Shown]) -> None:
        """What one of them knows; of others nothing counts."""
        if witness not in self._witnesses.nodes:
            return
        self._answered.add(witness)
        for one in shown:
            self._differs = self._differs or one.differs
            known = self._newest.get(one.checkpoint.log_id)
            if known is None or known.checkpoint.size < one.checkpoint.size:
                self._newest[one.checkpoint.log_id] = one

    def outcome(self, now: float, *, behind: bool) -> Outcome | None:
        """None while it is not known. `behind`: some peer holds more of the open log than we, cosigned or not."""
        missing = behind or any(one.checkpoint.size > self._held.get(log_id, 0) for log_id, one in self._newest.items())
        if self._differs or (now >= self.deadline):
            return Outcome.UNCONFIRMED
        if missing or len(self._answered) < self._witnesses.needed:
            return None
        return Outcome.NEWER_ELSEWHERE if self._has_grown() else Outcome.GOES_ON

    def _has_grown(self) -> bool:
        return self._held[self._log_id] > self._first[self._log_id] or self._held.keys() > self._first.keys()
