"""One line of output, and how it is made of several runs."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`ratio` is value / against; both are None where there is nothing to compare with."""

    name: str
    value: float
    unit: str
    against: float | None = None
    ratio: float | None = None
    runs: int

    def fields(self) -> dict[str, object]:
        """Ready for JSON."""
        return asdict(self)


def row(name: str, unit: str, values: Sequence[float], against: Sequence[float] = ()) -> Row:
    """The medians of the runs."""
    value = statistics.median(values)
    if not against:
        return Row(name=name, value=_short(value), unit=unit, runs=len(values))
    other = statistics.median(against)
    return Row(
        name=name, value=_short(value), unit=unit, against=_short(other), ratio=round(value / other, 3), runs=len(values)
    )


def _short(value: float) -> float:
    return round(value, 1 if value >= 100 else 3)
