"""What the node tells of itself: links, refusals, logs and services, as `overlay status` shows them."""

from collections.abc import Callable

from overlay.app.telemetry.sampling import Reading
from overlay.net.statistics import NodeStatistics


class OwnSource:
    """Reads the statistics of the node that runs here."""

    blocks = False

    def __init__(self, statistics: Callable[[], NodeStatistics]) -> None:
        self._statistics = statistics

    def read(self, reading: Reading) -> None:
        """Few series, whatever the size of the mesh but for one link each."""
        found = self._statistics()
        reading.gauge("overlay_level", found.level)
        reading.gauge("overlay_links", len(found.links))
        reading.gauge("overlay_warnings", len(found.warnings))
        reading.counter("overlay_refused_total", found.refused)
        own = [chain.size for chain in found.chains if chain.node == found.node]
        reading.gauge("overlay_log_entries", sum(own))
        for link in found.links:
            reading.gauge("overlay_link_level", link.level, peer=link.name)
            if link.round_trip is not None:
                reading.gauge("overlay_link_round_trip_seconds", link.round_trip, peer=link.name)
        for service in found.services:
            labels = {"kind": service.kind, "service": service.name}
            reading.counter("overlay_service_connections_total", service.connections, **labels)
            reading.counter("overlay_service_received_bytes_total", service.received, **labels)
            reading.counter("overlay_service_sent_bytes_total", service.sent, **labels)
