"""What the two ends of telemetry call each other's services, what holds where nothing is said, and where exports go."""

from typing import Final
from urllib.parse import urlsplit

from overlay.errors import UsageError

BATCH: Final = "telemetry.batch"  # at a collector: takes one batch, whoever made it
MISSING: Final = "telemetry.missing"  # at a sender: batches that a collector asks for, one a part
COLLECTOR: Final = "role:collector"  # to whom a node sends if nobody is named
EVERY: Final = 15.0  # seconds between two readings: our guess, and what Prometheus' own example has
STREAM: Final = "host"  # the name of a stream that nobody has named
NO_PAGE: Final = "-"  # in the place of an address: collect, and serve no page
OTLP_PATH: Final = "/v1/metrics"  # OTLP/HTTP, where no path is given


def parse_endpoint(text: str) -> str:
    """The whole URL of an OTLP/HTTP receiver. Raises UsageError for what is no http or https URL."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"{text!r} is not an OTLP endpoint", hint="write http://host:4318 or https://host/v1/metrics")
    return parts._replace(path=parts.path if parts.path not in ("", "/") else OTLP_PATH).geturl()
