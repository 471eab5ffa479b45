"""What a collector has to tell: what counts, what is missing, and who says one thing here and another there."""

from dataclasses import dataclass

from overlay.core.keys import NodeId
from overlay.core.telemetry.quarantine import Quarantined
from overlay.registry import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A batch is in the sums."""

    author: NodeId
    level: int
    name: str
    stream: bytes  # 16
    seq: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Batches that never came: they are missing in the sums, and this says so."""

    author: NodeId
    name: str
    stream: bytes  # 16
    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradicted:
    """An author's audit log says something else of a stream than what came. `reason`: TELEMETRY_WITHHELD or _FORKED."""

    author: NodeId
    name: str
    stream: bytes  # 16
    reason: Reason
    have: int
    anchored: int


TelemetryEvent = Counted | Gap | Contradicted | Quarantined
