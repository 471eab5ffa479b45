"""The telemetry that a node's settings name, for as long as it runs."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from overlay.app.config import Config
from overlay.app.telemetry.face import Telemetry
from overlay.app.telemetry.names import NO_PAGE


@asynccontextmanager
async def standing_telemetry(telemetry: Telemetry, config: Config) -> AsyncIterator[None]:
    """Send and collect for the length of the block. Raises as `Telemetry.send` and `collect`."""
    async with AsyncExitStack() as stack:
        if config.telemetry_send:
            sending = telemetry.send(to=config.telemetry_send, every=config.telemetry_every)
            await stack.enter_async_context(sending)
        if config.telemetry_collect or config.telemetry_otlp:
            listen = None if config.telemetry_collect in ("", NO_PAGE) else config.telemetry_collect
            await stack.enter_async_context(telemetry.collect(listen=listen, otlp=config.telemetry_otlp or None))
        yield
