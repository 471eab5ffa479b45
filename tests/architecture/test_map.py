"""docs/map.md is true: each path exists, and each module stands in it once."""

from collections import Counter

from tests.architecture.project_map import PAGE, missing, rows, wanted_row
from tests.architecture.tree import ROOT


def test_every_path_of_the_map_exists() -> None:
    assert [path for _, path in rows(PAGE.read_text()) if not (ROOT / path).exists()] == []


def test_every_module_stands_in_the_map() -> None:
    wanted = "\n".join(wanted_row(path) for path in missing(PAGE.read_text()))
    assert wanted == "", f"`python -m tests.architecture.project_map` adds these; make questions of them:\n{wanted}"


def test_nothing_stands_in_the_map_twice() -> None:
    counts = Counter(path for _, path in rows(PAGE.read_text()))
    assert [path for path, count in counts.items() if count > 1] == []
