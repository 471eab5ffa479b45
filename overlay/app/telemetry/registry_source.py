"""A user's own metrics: a prometheus_client CollectorRegistry, read into samples."""

from collections.abc import Iterable
from typing import Any, Final, Protocol

from overlay.app.telemetry.sampling import Reading
from overlay.core.telemetry.records import Kind

COUNTING: Final = {  # by type of family: endings of the samples that only grow
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
}


class Registry(Protocol):
    """What is asked of a CollectorRegistry."""

    def collect(self) -> Iterable[Any]:
        """Its metric families."""
        ...


class RegistrySource:
    """Reads all that a registry has; what its collectors compute, they compute here."""

    blocks = True

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def read(self, reading: Reading) -> None:
        """All its samples: histograms and summaries as the counters that they are made of."""
        for family in self._registry.collect():
            grows = COUNTING.get(family.type, ())
            for sample in family.samples:
                kind = Kind.COUNTER if sample.name.endswith(grows) and grows else Kind.GAUGE
                reading.add(sample.name, kind, sample.value, sample.labels)
