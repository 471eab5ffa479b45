"""Who witnesses a log, and how many of them it takes (docs/protocol/audit.md).

With w witnesses of whom f = (w - 1) // 4 may lie, q is the smallest number with 2q - w > f: any two groups of q share more
witnesses than lie, so no two histories of one log both have q.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from overlay.core.keys import MeshId, NodeId
from overlay.core.wire import sha256, u64
from overlay.registry import Label

ALL_UP_TO: Final = 7  # design: up to seven candidates all of them are witnesses
OF_MANY: Final = 5  # and of more these many
WITNESS_ROLE: Final = "witness"
TIMELY_WITHIN: Final = timedelta(minutes=10)  # design: after the end of the endorsement
DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class WitnessSet:
    """The witnesses of one log from some entry on; empty: its author is alone."""

    nodes: tuple[NodeId, ...] = ()  # in the order of their ids

    @property
    def tolerated(self) -> int:
        """f: how many of them may lie."""
        return max(len(self.nodes) - 1, 0) // 4

    @property
    def needed(self) -> int:
        """q: how many have to cosign; 0 for no witnesses."""
        return (len(self.nodes) + self.tolerated) // 2 + 1 if self.nodes else 0

    def reached_at(self, times: Mapping[NodeId, int]) -> int | None:
        """The q-th smallest time at which one of them cosigned: when that was witnessed; None if too few did."""
        found = sorted(at for node, at in times.items() if node in self.nodes)
        return found[self.needed - 1] if self.nodes and len(found) >= self.needed else None

    def sentence(self, cosigned: int) -> str:
        """For people: how many have cosigned."""
        if not self.nodes:
            return "no witnesses"
        liars = "liar" if self.tolerated == 1 else "liars"
        return f"{cosigned} of {len(self.nodes)}, tolerates {self.tolerated} {liars}"


def choose(
    mesh_id: MeshId, author: NodeId, members: Mapping[NodeId, Sequence[str]], day: int
) -> WitnessSet:
    """The witnesses of an author's logs.

    Args:
        members: who could be one, with its roles; the author itself is left out.
        day: since 1970.
    """
    others = {node: roles for node, roles in members.items() if node != author}
    candidates = [node for node, roles in others.items() if WITNESS_ROLE in roles] or list(others)
    if len(candidates) > ALL_UP_TO:
        candidates.sort(key=lambda node: _rank(mesh_id, author, node, day), reverse=True)
        candidates = candidates[:OF_MANY]
    return WitnessSet(tuple(sorted(candidates)))


def witness_set(nodes: Iterable[bytes]) -> WitnessSet:
    """As an entry names them: each once, in whatever order."""
    return WitnessSet(tuple(sorted({NodeId(node) for node in nodes})))


def is_timely(witnessed_at: int | None, not_after: datetime) -> bool:
    """Whether an entry under an endorsement that ends then was witnessed in time, in Unix seconds."""
    return witnessed_at is not None and witnessed_at <= int((not_after + TIMELY_WITHIN).timestamp())


def day_of(at: datetime) -> int:
    """Since 1970, in UTC."""
    return int(at.timestamp()) // DAY


def _rank(mesh_id: MeshId, author: NodeId, witness: NodeId, day: int) -> bytes:
    """As if drawn by lot anew each day. There is no beacon yet: docs/decisions/0017."""
    return sha256(Label.WITNESS, mesh_id, sha256(u64(day)), author, witness)
