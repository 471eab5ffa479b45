"""When the signers make new shares without an order, who of them begins, and to whom the others say yes. Rules:

- a share is refreshed when its time is over; before that nobody takes part in what no operator has ordered
- the lowest node id of those that are there begins; each one after it a turn later, for the case that it does not
- all members are waited for; once a second time is over, all but one are enough, and no fewer than it takes to sign
- whoever says "not yet" is waited for until a third time is over: left behind, its share would have to be repaired
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from overlay.core.authority.upkeep_record import UpkeepRecord
from overlay.core.certificates import show_time
from overlay.core.keys import NodeId
from overlay.core.wire import UInt, make_map, open_map
from overlay.errors import Refused
from overlay.registry import Reason

SLACK: Final = 7  # a seventh of the time between two: members need not have made their shares at one moment: our guess
TURN_MAX: Final = timedelta(minutes=10)  # our guess: a refresh takes seconds
BODY_MAX: Final = 64
NOT_YET: Final = frozenset({Reason.BUSY, Reason.NOT_ALLOWED})  # whoever says this says yes another time


@dataclass(frozen=True, slots=True)
class RefreshRules:
    """`every`: the time between two refreshes."""

    every: timedelta

    @property
    def turn(self) -> timedelta:
        """How long one signer leaves it to the one before."""
        return min(TURN_MAX, self.every / 20)

    def begins_at(self, record: UpkeepRecord, own: NodeId, there: Sequence[NodeId]) -> datetime:
        """When it is our turn, if it was nobody else's before; `there`: the members that can be reached, and ourselves."""
        return record.since + self.every + sorted(there).index(own) * self.turn

    def enough(self, record: UpkeepRecord, members: int, threshold: int, at: datetime) -> int:
        """How many must take part."""
        overdue = at >= record.since + 2 * self.every
        return max(threshold, members - 1) if overdue else members

    def may_lead(
        self, record: UpkeepRecord, answers: Collection[Reason | None], members: int, threshold: int, at: datetime
    ) -> bool:
        """Whether whoever has asked the others goes on with those that have answered yes, which is None."""
        if at < record.since + 3 * self.every and not NOT_YET.isdisjoint(answers):
            return False
        ready = 1 + sum(reason is None for reason in answers)
        return ready >= self.enough(record, members, threshold, at)

    def check(self, record: UpkeepRecord, root: bytes, generation: int, wanted: int, at: datetime) -> None:
        """Whether we take part in a refresh of that generation that nobody has ordered.

        Args:
            root, generation: of the share that we have.

        Raises:
            Refused: WRONG_GENERATION, or NOT_ALLOWED while it is too early.
        """
        if wanted != generation:
            raise Refused(Reason.WRONG_GENERATION, f"generation {wanted} where ours is {generation}")
        if (record.root, record.generation) != (root, generation):
            raise Refused(Reason.NOT_ALLOWED, "our share is of this moment")
        earliest = record.since + self.every - self.every / SLACK
        if at < earliest and not record.repaired:
            raise Refused(Reason.NOT_ALLOWED, f"no operator has ordered it, and it is due on {show_time(earliest)}")


def pack_wanted(generation: int) -> bytes:
    """REFRESH_WANTED: new shares in the place of those of that generation."""
    return make_map(generation)


def unpack_wanted(body: bytes) -> int:
    """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
    (generation,) = open_map(body, UInt(), limit=BODY_MAX)
    return int(generation)


def pack_answer(reason: Reason | None) -> bytes:
    """REFRESH_ANSWER: yes, or why not."""
    return make_map(0 if reason is None else int(reason))


def unpack_answer(body: bytes) -> Reason | None:
    """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
    (number,) = open_map(body, UInt(255), limit=BODY_MAX)
    return None if number == 0 else Reason(number) if number in set(Reason) else Reason.INTERNAL
