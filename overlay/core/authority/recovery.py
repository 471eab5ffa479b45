"""Recovery: an authority named by the recovery keys, which waits a day in case the old one is still there. Rules:

- it takes effect when 24 hours have passed since this node first saw it, at the next `settle`; a node may be told another
  wait (in a lab it is short), which is its own affair as is its clock
- a successor that the old authority signs before that makes it void; this is no fork
- two different recoveries in one place contest each other: neither takes effect
- where the old authority forked, recovery takes the place of both successors
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from overlay.core.authority.objects import AuthorityObject
from overlay.core.limits import RECOVERY_SECONDS

RECOVERY_WAIT: Final = timedelta(seconds=RECOVERY_SECONDS)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recovery that waits. When it was first seen is this node's own word: another's could end the wait at once."""

    object: AuthorityObject
    first_seen: datetime

    @property
    def takes_effect(self) -> datetime:
        """Unless the old authority answers, or another recovery comes."""
        return self.waits_until()

    def waits_until(self, wait: timedelta = RECOVERY_WAIT) -> datetime:
        """The same on a node that was told another wait."""
        return self.first_seen + wait


def with_candidate(candidates: Sequence[Candidate], found: AuthorityObject, at: datetime) -> tuple[Candidate, ...]:
    """The candidates with one more; two are enough to show that there is no agreement, so no more are kept."""
    every = {item.object.hash: item for item in (Candidate(found, at), *candidates)}
    return tuple(every[key] for key in sorted(every)[:2])


def settled(candidates: Sequence[Candidate], at: datetime, wait: timedelta = RECOVERY_WAIT) -> AuthorityObject | None:
    """The recovery that takes effect now."""
    if len(candidates) != 1 or at < candidates[0].waits_until(wait):
        return None
    return candidates[0].object
