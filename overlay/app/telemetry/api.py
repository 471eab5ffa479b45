"""What users hold: the telemetry of a node, running here or in another process."""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from overlay.app.telemetry.names import COLLECTOR, EVERY, STREAM
from overlay.app.telemetry.rows import Report


class TelemetryApi(Protocol):
    """Telemetry of a node; see `Telemetry` for what each method promises."""

    def send(
        self, name: str = STREAM, *, to: Iterable[str] = (COLLECTOR,), every: float = EVERY, host: bool = True
    ) -> AbstractAsyncContextManager[Any]:
        """Send this node's metrics, and with `host` this machine's, for the length of the block."""
        ...

    def collect(
        self, *, listen: str | None = None, otlp: str | None = None, level: int = 0, expect: Iterable[str] = ()
    ) -> AbstractAsyncContextManager[str]:
        """Collect for the length of the block; gives where Prometheus finds the page, empty without one."""
        ...

    async def report(self, *, kept: bool = False) -> Report:
        """What is collected, and with `kept` what is in quarantine."""
        ...
