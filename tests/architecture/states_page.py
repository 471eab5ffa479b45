"""Draws docs/protocol/states.md from the tables that the machines obey: `python -m tests.architecture.states_page`."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from overlay.core import session_states, stream_states
from tests.architecture.tree import ROOT

PAGE = ROOT / "docs" / "protocol" / "states.md"
HEAD = """\
# States

Which states a link and a stream have, and every move between them. A pair that is missing is refused. What the frames and steps
mean: [admission](admission.md), [records](records.md), [streams](streams.md).

Drawn from `overlay/core/session_states.py` and `overlay/core/stream_states.py` by `python -m tests.architecture.states_page`; a
test compares them.
"""

Table = Mapping[tuple[Enum, Enum], Enum]


def page() -> str:
    """The whole page."""
    link = section("Links", "`CLOSE` leads from every state to CLOSED.", session_states.TRANSITIONS, {"CLOSE"})
    stream = section(
        "Streams", "`RESET` and `GOT_RESET` lead from every state to CLOSED.", stream_states.TRANSITIONS, {"RESET", "GOT_RESET"}
    )
    return "\n".join((HEAD, link, stream))


def section(title: str, note: str, table: Table, everywhere: set[str]) -> str:
    """A diagram of the moves, and a table of the steps that change nothing."""
    moves = [(old.name, step.name, new.name) for (old, step), new in table.items() if step.name not in everywhere]
    arrows = sorted({f"    {old} --> {new}: {step}" for old, step, new in moves if old != new})
    stays: dict[str, list[str]] = {}
    for old, step, new in sorted(moves):
        if old == new:
            stays.setdefault(old, []).append(step)
    lines = [f"## {title}", "", note, "", "```mermaid", "stateDiagram-v2", *arrows, "```", ""]
    if stays:
        lines += ["What changes nothing:", "", "| state | steps |", "| --- | --- |"]
        lines += [f"| {state} | {', '.join(steps)} |" for state, steps in stays.items()] + [""]
    return "\n".join(lines)


def main(path: Path = PAGE) -> None:
    """Write it."""
    path.write_text(page())


if __name__ == "__main__":
    main()
