"""The live picture of the lab for people: one row per node, then the scenes."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from overlay.app.lab.report import SceneRow, Snapshot, snapshot

MARKS = {"passed": ("held", "green"), "failed": ("BROKEN", "bold red"), "skipped": ("skipped", "yellow")}


def picture(statuses: dict[str, dict[str, Any]], scenes: list[SceneRow], phase: str) -> Group:
    """Everything at this moment."""
    return Group(_nodes(statuses), *([_scenes(scenes)] if scenes else []), Text(phase, style="dim"))


def _nodes(statuses: dict[str, dict[str, Any]]) -> Table:
    table = Table(title=None, header_style="bold", expand=False)
    for column, justify in (
        ("node", "left"), ("id", "left"), ("level", "right"), ("peers", "right"), ("epoch", "right"), ("key age", "right"),
        ("evidence age", "right"), ("entries", "right"), ("heads", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    seen = snapshot(statuses)
    common = _common_head(seen)
    for node in seen.nodes:
        links = statuses[node.name]["links"]
        table.add_row(
            node.name, node.id[:8], str(node.level), str(len(node.peers)), _range([link["epoch"] for link in links]),
            _age([link["epoch_age"] for link in links]), _age([link["evidence_age"] for link in links]), str(node.entries),
            Text("agreed", style="green") if node.head == common else Text("syncing", style="yellow"),
        )
    return table


def _scenes(scenes: list[SceneRow]) -> Table:
    table = Table(header_style="bold")
    for column in ("attack", "must be refused as", "was refused as", "by", "verdict"):
        table.add_column(column)
    for scene in scenes:
        word, style = MARKS[scene.status]
        table.add_row(scene.name, scene.expected, scene.observed or scene.why, scene.by, Text(word, style=style))
    return table


def _common_head(seen: Snapshot) -> str:
    """The head that most nodes have."""
    heads = [node.head for node in seen.nodes]
    return max(heads, key=heads.count, default="")


def _range(numbers: list[int]) -> str:
    if not numbers:
        return "-"
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def _age(seconds: list[float]) -> str:
    return f"{max(seconds):.0f} s" if seconds else "-"
