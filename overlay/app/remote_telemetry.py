"""The telemetry of a node in another process, over its control socket."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from overlay.app.control_client import Connection
from overlay.app.telemetry.names import COLLECTOR, EVERY, STREAM
from overlay.app.telemetry.rows import Report, read_report


class RemoteTelemetry:
    """A TelemetryApi over the control socket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def send(
        self, name: str = STREAM, *, to: Iterable[str] = (COLLECTOR,), every: float = EVERY, host: bool = True
    ) -> AsyncIterator[None]:
        """See `TelemetryApi`."""
        async with self._connection.request("telemetry.send", name=name, to=list(to), every=every, host=host) as answers:
            await anext(answers)
            yield

    @asynccontextmanager
    async def collect(
        self, *, listen: str | None = None, otlp: str | None = None, level: int = 0, expect: Iterable[str] = ()
    ) -> AsyncIterator[str]:
        """See `TelemetryApi`."""
        wanted = {"listen": listen, "otlp": otlp, "level": level, "expect": list(expect)}
        async with self._connection.request("telemetry.collect", **wanted) as answers:
            yield str(await anext(answers))

    async def report(self, *, kept: bool = False) -> Report:
        """See `TelemetryApi`."""
        async with self._connection.request("telemetry.report", kept=kept) as answers:
            return read_report([(str(kind), row) async for kind, row in answers])
