"""What a collector holds as OTLP: the JSON encoding of an ExportMetricsServiceRequest, sent by HTTP.

Source: OpenTelemetry Protocol 1.5, "OTLP/HTTP" and "JSON Protobuf Encoding": 64-bit numbers are text, enums are numbers.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from overlay.app.telemetry.rows import Report
from overlay.app.version import VERSION
from overlay.core.telemetry.records import Kind
from overlay.errors import HostLacks

CUMULATIVE: Final = 2  # AggregationTemporality
WITHIN: Final = 10.0  # seconds for one request: the default of OpenTelemetry's exporters
POINTS_AT_ONCE: Final = 5_000  # our guess: some 1.5 MB; receivers take 4 MiB and more


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to send, as `parse_endpoint` gives it."""

    url: str

    def send(self, body: bytes) -> None:
        """Blocks. Raises HostLacks, with what the receiver said."""
        request = urllib.request.Request(  # noqa: S310 - http or https, see parse_endpoint
            self.url, data=body, method="POST", headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=WITHIN) as answer:  # noqa: S310
                answer.read(4096)
        except urllib.error.HTTPError as error:
            error.close()
            raise HostLacks(f"{self.url} answers {error.code} {error.reason}") from None
        except (OSError, ValueError) as error:
            raise HostLacks(f"cannot reach {self.url}: {getattr(error, 'reason', error)}") from None


def requests(report: Report, at: float, since: float) -> Iterator[bytes]:
    """The requests for all that is exported. `at`, `since`: Unix seconds, now and when the collector began."""
    times = {Kind.COUNTER: {"timeUnixNano": _nanos(at), "startTimeUnixNano": _nanos(since)}}
    times[Kind.GAUGE] = {"timeUnixNano": _nanos(at)}
    metrics: dict[tuple[str, Kind], list[dict[str, Any]]] = {}
    points = 0
    for name, kind, labels, value in report.exported():
        attributes = [{"key": label, "value": {"stringValue": text}} for label, text in labels.items()]
        metrics.setdefault((name, kind), []).append({"attributes": attributes, "asDouble": float(value), **times[kind]})
        points += 1
        if points == POINTS_AT_ONCE:
            yield _request(metrics)
            metrics, points = {}, 0
    if metrics:
        yield _request(metrics)


def _request(metrics: dict[tuple[str, Kind], list[dict[str, Any]]]) -> bytes:
    scope = {"scope": {"name": "overlay", "version": VERSION}, "metrics": [_metric(*one) for one in metrics.items()]}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "overlay"}}]}
    return json.dumps({"resourceMetrics": [{"resource": resource, "scopeMetrics": [scope]}]}, separators=(",", ":")).encode()


def _metric(key: tuple[str, Kind], points: list[dict[str, Any]]) -> dict[str, Any]:
    name, kind = key
    if kind is Kind.GAUGE:
        return {"name": name, "gauge": {"dataPoints": points}}
    return {"name": name, "sum": {"dataPoints": points, "aggregationTemporality": CUMULATIVE, "isMonotonic": True}}


def _nanos(seconds: float) -> str:
    return str(int(seconds * 1e9))
