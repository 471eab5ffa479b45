"""Sums per series and author, out of verified records only: who wants to count something comes through `Aggregates.add`."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from overlay.core.keys import NodeId
from overlay.core.telemetry.records import Kind, Series, split_record
from overlay.errors import Refused
from overlay.registry import Reason

SERIES_PER_AUTHOR: Final = 10_000  # our guess: ten times what node_exporter has
AUTHORS_MAX: Final = 4096  # our guess


@dataclass(slots=True)
class Aggregate:
    """What one author's verified samples of one series come to."""

    series: Series
    kind: Kind
    level: int = 0  # of its author, as of the last batch
    count: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    last: float = 0.0
    last_at: int = -1  # Unix milliseconds


class Aggregates:
    """All that was counted. A batch counts whole or not at all."""

    def __init__(self, series_per_author: int = SERIES_PER_AUTHOR) -> None:
        self._authors: dict[NodeId, dict[bytes, Aggregate]] = {}
        self._limit = series_per_author

    def __iter__(self) -> Iterator[tuple[NodeId, Aggregate]]:
        """(author, aggregate), in the order in which they were first seen."""
        return ((author, one) for author, table in self._authors.items() for one in table.values())

    def add(self, author: NodeId, level: int, at: int, records: Sequence[bytes]) -> int:
        """Count the verified records of a batch made at `at`, Unix milliseconds; how many there were.

        Raises:
            Refused: MALFORMED or TOO_LARGE for a record that is none, or for one series of two kinds; TOO_MANY for more series
                than one author may have, or authors than there is room for.
        """
        table = self._authors.get(author, {})
        fresh: dict[bytes, Aggregate] = {}
        taken = []
        for record in records:
            packed, kind, value, age = split_record(record)
            one = table.get(packed) or fresh.get(packed)
            if one is None:
                one = fresh[packed] = Aggregate(Series.unpack(packed), kind)
            if one.kind is not kind:
                raise Refused(Reason.MALFORMED, f"{one.series.name} is a {one.kind.name.lower()} and a {kind.name.lower()}")
            taken.append((one, value, at - age))
        self._check_room(author, len(table) + len(fresh))
        table.update(fresh)
        self._authors[author] = table
        for one, value, when in taken:
            _count(one, level, value, when)
        return len(taken)

    def _check_room(self, author: NodeId, series: int) -> None:
        if series > self._limit:
            raise Refused(Reason.TOO_MANY, f"more than {self._limit} series of one author")
        if author not in self._authors and len(self._authors) >= AUTHORS_MAX:
            raise Refused(Reason.TOO_MANY, f"more than {AUTHORS_MAX} authors")


def _count(one: Aggregate, level: int, value: float, at: int) -> None:
    one.level = level
    one.count += 1
    one.total += value
    one.low = min(one.low, value)
    one.high = max(one.high, value)
    if at >= one.last_at:
        one.last, one.last_at = value, at
