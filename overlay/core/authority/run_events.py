"""What a run of key generation, resharing or repair tells its driver."""

from dataclasses import dataclass

from overlay.core.authority.statements import Equivocation
from overlay.core.keys import NodeId
from overlay.registry import Reason


@dataclass(frozen=True, slots=True)
class Finished:
    """The run is done on this node: its `result` is there. `missing` are those without whom it went on."""

    missing: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The run is over, nothing came of it and its secrets are gone.

    `reporter` is None if this node saw it itself or holds the proof; otherwise it is the member that says so, and whom it
    names is its word only.
    """

    reason: Reason
    named: tuple[NodeId, ...]
    detail: str = ""
    reporter: NodeId | None = None
    proof: Equivocation | None = None


@dataclass(frozen=True, slots=True)
class FailedElsewhere:
    """This node had finished when a member said that its run failed: what came of it must not be taken into use."""

    reporter: NodeId
    reason: Reason


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that has no place in this run; nothing has changed."""

    sender: NodeId
    reason: Reason


Event = Finished | Failed | FailedElsewhere | Ignored
