"""What the lab says at its end: one JSON object, alone on standard output (docs/guide/lab.md)."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from overlay.core.wire import sha256
from overlay.registry import SUITE_NAME

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node: `level` is the lowest that a peer gives it, `entries` counts all logs but proven liars', `head` names them."""

    name: str
    id: str
    level: int
    peers: list[str]
    entries: int
    head: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRow:
    """One link, by the end that has seen less of it."""

    a: str
    b: str
    epochs: int
    rounds: int
    suite: str = SUITE_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRow:
    """One scene: the reason that had to be in a victim's log, the one that was, and who said it."""

    name: str
    expected: str
    observed: str
    by: str
    status: Status
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The mesh at one moment, taken when two polls agreed on all heads, or after the last try."""

    nodes: list[NodeRow]
    links: list[LinkRow]
    heads_equal: bool

    @property
    def complete(self) -> bool:
        """Every pair is linked and all heads agree."""
        count = len(self.nodes)
        return self.heads_equal and len(self.links) == count * (count - 1) // 2


NOTHING: Final = Snapshot(nodes=[], links=[], heads_equal=False)  # of a mesh that did not come up, or does not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything; `why` the lab gave up early is for people, and no part of the JSON."""

    ok: bool
    version: str
    evidence: str
    network: str
    degraded: list[str]
    seconds: float
    before: Snapshot
    scenes: list[SceneRow] = field(default_factory=list)
    after: Snapshot
    why: str = ""

    def fields(self) -> dict[str, Any]:
        """Ready for JSON, in the order of the guide."""
        before = asdict(self.before)
        return {
            "ok": self.ok, "version": self.version, "evidence": self.evidence, "network": self.network,
            "degraded": self.degraded, "seconds": round(self.seconds, 1), **before,
            "scenes": [asdict(scene) for scene in self.scenes], "after": asdict(self.after),
        }


def snapshot(statuses: dict[str, dict[str, Any]]) -> Snapshot:
    """A snapshot from the `status` of every node, by name."""
    heads = {name: _head(status) for name, status in statuses.items()}
    levels: dict[str, list[int]] = {name: [] for name in statuses}
    ends: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, status in statuses.items():
        for link in status["links"]:
            if link["name"] not in statuses:
                continue
            levels[link["name"]].append(link["level"])
            first, second = sorted((name, link["name"]))
            ends.setdefault((first, second), []).append(link)
    nodes = [
        NodeRow(
            name=name, id=status["node"], level=min(levels[name], default=0),
            peers=sorted(link["name"] for link in status["links"] if link["name"] in statuses),
            entries=sum(chain["size"] for chain in _compared(status)), head=heads[name],
        )
        for name, status in statuses.items()
    ]
    links = [
        LinkRow(a=pair[0], b=pair[1], epochs=min(one["epoch"] for one in both), rounds=min(one["rounds"] for one in both))
        for pair, both in sorted(ends.items())
        if len(both) == 2
    ]
    return Snapshot(nodes=nodes, links=links, heads_equal=len(set(heads.values())) == 1)


def _compared(status: dict[str, Any]) -> list[dict[str, Any]]:
    """The logs that have to be the same everywhere: of who has told two stories, proven, copies may differ."""
    exposed = status.get("exposed", ())
    return [chain for chain in status["chains"] if chain.get("node") not in exposed]


def _head(status: dict[str, Any]) -> str:
    """One name for all heads that a node holds."""
    rows = sorted((chain["log"], chain["size"], chain["root"]) for chain in _compared(status))
    return sha256(repr(rows).encode()).hex()[:32]
