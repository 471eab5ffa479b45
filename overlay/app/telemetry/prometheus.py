"""What a collector holds in Prometheus' text format, written by prometheus_client.

A name has one type in an exposition: where authors differ in theirs, or a counter's name does not end in _total, it has none.
"""

from typing import Any, Final

from overlay.app.telemetry.extras import prometheus_client
from overlay.app.telemetry.rows import OWN_PREFIX, Report
from overlay.core.telemetry.records import Kind

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
TOTAL: Final = "_total"


def exposition(report: Report) -> bytes:
    """All that is exported. Raises HostLacks without prometheus_client."""
    client = prometheus_client()
    families: dict[str, list[tuple[dict[str, str], float]]] = {}
    kinds: dict[str, set[Kind]] = {}
    for name, kind, labels, value in report.exported():
        families.setdefault(name, []).append((labels, value))
        kinds.setdefault(name, set()).add(kind)
    metrics = [_family(client, name, kinds[name], samples) for name, samples in families.items()]
    return bytes(client.generate_latest(_Ready(metrics)))


def _family(client: Any, name: str, kinds: set[Kind], samples: list[tuple[dict[str, str], float]]) -> object:
    family = client.Metric(*_named(name, kinds))
    for labels, value in samples:
        family.add_sample(name, labels, value)
    return family


def _named(name: str, kinds: set[Kind]) -> tuple[str, str, str]:
    """Name of the family, its text, its type."""
    text = "Of the collector itself." if name.startswith(OWN_PREFIX) else "Signed by its author."
    if kinds == {Kind.GAUGE}:
        return name, text, "gauge"
    if kinds == {Kind.COUNTER} and name.endswith(TOTAL) and name != TOTAL:
        return name.removesuffix(TOTAL), text, "counter"
    return name, text, "unknown"


class _Ready:
    """A registry that has been read already."""

    def __init__(self, families: list[object]) -> None:
        self._families = families

    def collect(self) -> list[object]:
        return self._families
