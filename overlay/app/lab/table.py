"""The live picture of the lab for people: one row per machine, one per attack, and what the columns mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from overlay.app.lab.report import SceneRow, Snapshot, snapshot

MARKS: Final = {"passed": ("refused", "green"), "failed": ("FAILED", "bold red"), "skipped": ("skipped", "yellow")}
WIDE: Final = 114  # columns of a terminal where what the attacks do has room, too
NUMBERS: Final = ("level", "peers", "epoch", "key age", "evidence age", "entries")
LEGEND: Final = (
    "level: 2 vouched for by a TPM, 1 by its own word · epoch: fresh keys so far\n"
    "evidence age: since it last proved what it runs · heads: are all logs the same"
)


@dataclass(frozen=True, slots=True)
class Attack:
    """A scene as people see it before it has ended."""

    name: str
    about: str


def picture(
    statuses: dict[str, dict[str, Any]], attacks: Sequence[Attack], rows: Sequence[SceneRow], phase: str, *, width: int
) -> Group:
    """Everything at this moment; what matters least is last, where a low terminal cuts it off."""
    blank = Text()
    parts: list[RenderableType] = [Text(phase, style="bold"), blank, _machines(statuses), blank]
    if attacks:
        parts += [_attacks(attacks, rows, wide=width >= WIDE), blank]
    return Group(*parts, Text(LEGEND, style="dim"))


def _machines(statuses: dict[str, dict[str, Any]]) -> Table:
    table = _table("machine", "id", *NUMBERS, "heads")
    seen = snapshot(statuses)
    common = _common_head(seen)
    for node in seen.nodes:
        links = [link for link in statuses[node.name]["links"] if link["name"] in statuses]
        table.add_row(
            node.name, node.id[:8], str(node.level), str(len(node.peers)), _range([link["epoch"] for link in links]),
            _age([link["epoch_age"] for link in links]), _age([link["evidence_age"] for link in links]), str(node.entries),
            Text("agree", style="green") if node.head == common else Text("syncing", style="yellow"),
        )
    return table


def _attacks(attacks: Sequence[Attack], rows: Sequence[SceneRow], *, wide: bool) -> Table:
    """A row for each from the start, so that nothing jumps."""
    table = _table("attack", *(["what it does"] if wide else []), "outcome", "reason", "seen by")
    ended = {row.name: row for row in rows}
    for attack in attacks:
        row = ended.get(attack.name)
        about = [attack.about] if wide else []
        table.add_row(attack.name, *about, *(_outcome(row) if row else (Text("…", style="dim"), "", "")))
    return table


def _outcome(row: SceneRow) -> tuple[Text, str, str]:
    word, style = MARKS[row.status]
    return Text(word, style=style), row.observed if row.status == "passed" else row.why, row.by


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in NUMBERS else "left", no_wrap=True)
    return table


def _common_head(seen: Snapshot) -> str:
    """The head that most machines have."""
    heads = [node.head for node in seen.nodes]
    return max(heads, key=heads.count, default="")


def _range(numbers: list[int]) -> str:
    if not numbers:
        return "-"
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def _age(seconds: list[float]) -> str:
    return f"{max(seconds):.0f} s" if seconds else "-"
