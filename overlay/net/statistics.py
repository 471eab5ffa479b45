"""A node's figures at one moment, frozen: status, table, metrics and tests read these."""

from dataclasses import asdict, dataclass
from typing import Any

from overlay.registry import SUITE_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatistics:
    """One open link. Ages in seconds; `rounds` counts good evidence after admission."""

    name: str
    node: str
    level: int
    opener: bool
    address: str
    epoch: int
    epoch_age: float
    rounds: int
    evidence_age: float
    lease_left: float
    round_trip: float | None  # seconds, of the last pings; None before the first
    clock_ahead: float | None  # seconds by which the peer's clock is ahead of ours
    suite: str = SUITE_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainStatistics:
    """One audit log as this node holds it."""

    node: str
    log: str
    size: int
    root: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatistics:
    """One forwarded service: `exposed` to members, or `forwarded` from one to a local address."""

    kind: str
    name: str
    place: str  # where the service is, or where we listen for it
    open: int  # connections now
    connections: int  # ever carried
    refused: int  # callers that may not
    failed: int  # nobody took the connection
    broken: int  # did not end in order
    received: int  # bytes from the mesh
    sent: int  # bytes into the mesh


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatistics:
    """The node as a whole. `warnings` are for people: what someone should know or do."""

    name: str
    node: str
    mesh_name: str
    mesh: str
    level: int
    evidence: str
    port: int
    roles: tuple[str, ...]
    certificate_ends: str
    endorsement_ends: str
    links: tuple[LinkStatistics, ...]
    chains: tuple[ChainStatistics, ...]
    services: tuple[ServiceStatistics, ...] = ()
    exposed: tuple[str, ...] = ()  # nodes that have told two stories, proven: copies of their logs may differ
    refused: int
    warnings: tuple[str, ...]

    def fields(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)
