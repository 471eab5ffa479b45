"""Samples out of whatever a source has: values and labels that no record can hold are left out, never a whole reading."""

import math
from collections.abc import Mapping

from overlay.core.telemetry.records import RESERVED, Kind, Sample, Series
from overlay.errors import UsageError

EXPORTED = "exported_"  # as Prometheus names a label that would hide one of its own


class Reading:
    """One reading of a source at one time, Unix seconds."""

    def __init__(self, at: float) -> None:
        self.samples: list[Sample] = []
        self.left_out = 0
        self._at = at

    def counter(self, name: str, value: float, **labels: str) -> None:
        """A total since some start."""
        self.add(name, Kind.COUNTER, value, labels)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """A value that goes up and down."""
        self.add(name, Kind.GAUGE, value, labels)

    def add(self, name: str, kind: Kind, value: float, labels: Mapping[str, str]) -> None:
        """Take a sample, if it can be one: `author` and `level` are the collector's and get another name."""
        named = {EXPORTED + label if label in RESERVED else label: text for label, text in labels.items()}
        try:
            series = Series.of(name, named)
        except UsageError:
            self.left_out += 1
            return
        if not math.isfinite(value) or len(named) < len(labels):
            self.left_out += 1
            return
        self.samples.append(Sample(series, kind, float(value), self._at))
