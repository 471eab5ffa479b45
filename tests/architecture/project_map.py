"""Reads docs/map.md; `python -m tests.architecture.project_map` adds a row for each module that is missing there."""

import re
from itertools import groupby
from pathlib import Path

from tests.architecture.tree import ROOT, first_line, modules

PAGE = ROOT / "docs" / "map.md"
ROW = re.compile(r"^\| (?P<question>.+) \| `(?P<path>[^`]+)` \|$")


def rows(text: str) -> list[tuple[str, str]]:
    """Question and path of each row of the tables."""
    found = (ROW.match(line) for line in text.splitlines())
    return [(match["question"], match["path"]) for match in found if match]


def section(path: str) -> str:
    """The folder under whose heading a module stands."""
    return Path(path).parent.as_posix()


def wanted_row(path: str) -> str:
    """A row to begin with: what the module says of itself."""
    return f"| {first_line(ROOT / path).replace('|', '/') or 'TODO'} | `{path}` |"


def missing(text: str) -> list[str]:
    """The modules that have no row."""
    present = {path for _, path in rows(text)}
    return [path for path in modules() if path not in present]


def with_missing(text: str) -> str:
    """The page with a row for each of them, at the end of its folder's table."""
    lines = text.splitlines()
    for folder, paths in groupby(sorted(missing(text), key=section), key=section):
        heading = f"## {folder}"
        if heading not in lines:
            lines += ["", heading, "", "| what you look for | where |", "| --- | --- |"]
        at = lines.index(heading) + 1
        while at < len(lines) and not lines[at].startswith("## "):
            at += 1
        while not lines[at - 1].strip():
            at -= 1
        lines[at:at] = [wanted_row(path) for path in paths]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(with_missing(PAGE.read_text()))
