"""How much of an author's log others take: 64 MiB a day, and 50 entries a second over an hour.

Counted by the entries' own time, so that who was away for a week catches up at once; an author that writes more runs ahead of
the clock, and nothing more of it is asked for until the clock has come near again. What is held of it stays. A start forgets
what was counted and lets another day's worth pass.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from overlay.core.keys import NodeId
from overlay.core.mesh.chains import hlc_time

BYTES_PER_DAY: Final = 64 * 1024 * 1024  # design
ENTRIES_PER_SECOND: Final = 50  # design
_DAY: Final = timedelta(days=1)
_BURST: Final = timedelta(hours=1)  # over which entries are averaged: our guess, so that a short burst of work is none
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Pace:
    """Until when what was taken of an author would have been its whole share (as in the generic cell rate algorithm)."""

    volume: datetime = _NEVER
    count: datetime = _NEVER


class Quotas:
    """Of all authors but ourselves."""

    def __init__(self, *, bytes_per_day: int = BYTES_PER_DAY, entries_per_second: int = ENTRIES_PER_SECOND) -> None:
        self._per_byte = _DAY.total_seconds() / bytes_per_day
        self._per_entry = 1.0 / entries_per_second
        self._paces: dict[NodeId, _Pace] = {}

    def took(self, author: NodeId, hlc: int, count: int, size: int) -> None:
        """So many entries of so many bytes are stored; `hlc` is that of the last one."""
        at, pace = hlc_time(hlc), self._paces.get(author, _Pace())
        self._paces[author] = _Pace(
            volume=max(pace.volume, at) + timedelta(seconds=size * self._per_byte),
            count=max(pace.count, at) + timedelta(seconds=count * self._per_entry),
        )

    def allows(self, author: NodeId, at: datetime) -> bool:
        """Whether more is asked for now."""
        pace = self._paces.get(author)
        return pace is None or (pace.volume <= at + _DAY and pace.count <= at + _BURST)

    def over(self, at: datetime) -> tuple[NodeId, ...]:
        """Of whom nothing more is asked for."""
        return tuple(author for author in self._paces if not self.allows(author, at))
