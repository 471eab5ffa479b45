"""Telemetry of one node, as users and settings reach it: streams that it sends, and the collector that it may be."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import trio

from audit.entry import Entry
from audit.log import AuditLog
from overlay.app.telemetry.collecting import Collecting
from overlay.app.telemetry.extras import prometheus_client
from overlay.app.telemetry.host import HostSource
from overlay.app.telemetry.names import BATCH, COLLECTOR, EVERY, MISSING, STREAM, parse_endpoint
from overlay.app.telemetry.otlp import Endpoint, requests
from overlay.app.telemetry.own_source import OwnSource
from overlay.app.telemetry.page import Page
from overlay.app.telemetry.prometheus import exposition
from overlay.app.telemetry.registry_source import Registry, RegistrySource
from overlay.app.telemetry.rows import Report
from overlay.app.telemetry.sending import Sending, Source
from overlay.core.forwarding import parse_listen, parse_rule
from overlay.core.keys import NodeId
from overlay.core.telemetry.anchor import read_anchor
from overlay.core.telemetry.asks import Ask
from overlay.errors import NotAllowed, OverlayError, Refused, UsageError
from overlay.net.background import background
from overlay.net.listening import listening
from overlay.net.node import Node
from overlay.net.request import Handler, Request
from overlay.net.statistics import NodeStatistics
from overlay.registry import EntryType

EVERY_LEAST: Final = 0.1  # seconds: our guess, faster readings measure themselves
EVERY_MOST: Final = 3600.0
NOT_COLLECTING: Final = "`overlay telemetry collect`, or telemetry_collect in its settings"
OTLP_EVERY: Final = 15.0  # seconds between two exports: as between two readings


class Telemetry:
    """Nothing is measured, sent or collected before somebody asks for it."""

    def __init__(self) -> None:
        self.warning = ""  # why the last export failed
        self._sendings: dict[bytes, Sending] = {}
        self._collecting: Collecting | None = None
        self._engine: Node | None = None
        self._log: AuditLog | None = None
        self._statistics: Callable[[], NodeStatistics] | None = None

    def attach(self, engine: Node, log: AuditLog, statistics: Callable[[], NodeStatistics]) -> None:
        """The node runs."""
        self._engine, self._log, self._statistics = engine, log, statistics
        log.listen(self._on_entries)

    @property
    def services(self) -> dict[str, Handler]:
        """For NodeParts."""
        return {BATCH: self._batch, MISSING: self._missing}

    # --- sending ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def send(
        self, name: str = STREAM, *, to: Iterable[str] = (COLLECTOR,), every: float = EVERY, host: bool = True,
        node: bool = True, registry: Registry | None = None,
    ) -> AsyncIterator[Sending]:
        """Send a stream for the length of the block; `record` of what is given puts samples of one's own into it.

        Args:
            name: of the stream, for people.
            to: rules as for `expose`: the members who may have it.
            every: seconds between two readings.
            host: read this machine, by psutil.
            node: read this node: links, logs, services.
            registry: a prometheus_client registry to read, too.

        Raises:
            UsageError: a name, rule or time that is wrong.
            HostLacks: psutil is missing.
        """
        engine, log, statistics = self._running()
        if not EVERY_LEAST <= every <= EVERY_MOST:
            raise UsageError(f"between two readings are {EVERY_LEAST:g} to {EVERY_MOST:g} seconds")
        sources: list[Source] = [OwnSource(statistics)] if node else []
        sources += [HostSource()] if host else []
        sources += [] if registry is None else [RegistrySource(registry)]
        one = Sending(
            name, engine, log, to=tuple(map(parse_rule, to)), sources=sources, every=every,
            here=lambda: self._collecting,
        )
        self._sendings[one.stream] = one
        try:
            async with background() as tasks:
                tasks.start_soon(one.run)
                yield one
        finally:
            with trio.CancelScope(shield=True):
                await one.finish()
            del self._sendings[one.stream]

    async def _missing(self, request: Request) -> AsyncIterator[bytes]:
        """Batches of a stream of ours that a collector has missed."""
        try:
            ask = Ask.unpack(request.body)
        except Refused as error:
            raise NotAllowed(str(error)) from None
        one = self._sendings.get(ask.stream)
        if one is not None:
            async for raw in one.missing(ask, request.peer):
                yield raw

    # --- collecting ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def collect(
        self, *, listen: str | None = None, otlp: str | None = None, level: int = 0, expect: Iterable[str] = ()
    ) -> AsyncIterator[str]:
        """Collect for the length of the block; gives where Prometheus finds the page, empty without one.

        Args:
            listen: where `/metrics` is to be: a port of 127.0.0.1 (0 for any), `host:port`, `[ipv6]:port` or `unix:/path`.
            otlp: URL of an OTLP/HTTP receiver to export to.
            level: the least level of an author that counts.
            expect: rules; whoever fits one has to send here, or its log says so and a warning comes.

        Raises:
            UsageError: a text that is wrong, or this node collects already.
            HostLacks: there cannot be listened, or prometheus_client is missing.
        """
        engine, log, _ = self._running()
        if self._collecting is not None:
            raise UsageError("this node collects already", hint="`overlay telemetry show` says what")
        endpoint = None if otlp is None else Endpoint(parse_endpoint(otlp))
        if listen is not None:
            prometheus_client()
        collecting = Collecting(
            engine, log.replica.author_of, level=level, expect=tuple(map(parse_rule, expect)), name_of=self._name_of
        )
        self._collecting = collecting
        try:
            async with AsyncExitStack() as stack, background() as tasks:
                tasks.start_soon(collecting.run)
                address = "" if listen is None else await self._open_page(stack, tasks, listen, collecting)
                if endpoint is not None:
                    tasks.start_soon(self._export, collecting, endpoint)
                yield address
        finally:
            self._collecting = None

    async def _open_page(self, stack: AsyncExitStack, tasks: trio.Nursery, listen: str, collecting: Collecting) -> str:
        listener, place = await stack.enter_async_context(listening(parse_listen(listen)))

        async def render() -> bytes:
            return await trio.to_thread.run_sync(exposition, collecting.report())

        serve: Callable[[trio.SocketStream], Awaitable[object]] = Page(render).serve
        tasks.start_soon(trio.serve_listeners, serve, [listener])
        return str(place) if place.path else f"http://{place}/metrics"

    async def _export(self, collecting: Collecting, endpoint: Endpoint) -> None:
        """Each time all that is fresh; a receiver that is away gets the next one, and a status says so."""
        assert self._engine is not None
        while True:
            await trio.sleep(OTLP_EVERY)
            at = self._engine.parts.calendar().timestamp()
            try:
                for body in requests(collecting.report(), at, collecting.began):
                    await trio.to_thread.run_sync(endpoint.send, body, abandon_on_cancel=True)
                self.warning = ""
            except OverlayError as error:
                self.warning = f"telemetry is not exported: {error}"

    async def _batch(self, request: Request) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._collecting is None:
            raise NotAllowed("this node collects no telemetry")
        self._collecting.receive(request.body, request.peer.node_id)
        return b""

    def _on_entries(self, entries: tuple[Entry, ...]) -> None:
        if self._collecting is None:
            return
        for entry in entries:
            if entry.type == EntryType.TELEMETRY:
                try:
                    self._collecting.anchored(entry.node_id, read_anchor(entry.body))
                except Refused:
                    continue  # another release may write more in it

    async def report(self, *, kept: bool = False) -> Report:
        """What is collected: `kept` with what is in quarantine. Raises UsageError where this node does not collect."""
        await trio.lowlevel.checkpoint()
        if self._collecting is None:
            raise UsageError("this node collects no telemetry", hint=NOT_COLLECTING)
        return self._collecting.report(kept=kept)

    # --- both ---------------------------------------------------------------------------------------------------------

    def _running(self) -> tuple[Node, AuditLog, Callable[[], NodeStatistics]]:
        if self._engine is None or self._log is None or self._statistics is None:
            raise OverlayError("the node does not run yet")
        return self._engine, self._log, self._statistics

    def _name_of(self, node_id: NodeId) -> str:
        """As its link or certificate says; else a part of its id."""
        assert self._engine is not None
        return self._engine.info_of(node_id, "").name or node_id.short
