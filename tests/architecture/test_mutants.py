"""The list of guards is up to date, and its runner tells a noticed mutant from one that survives or does not run."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.architecture.threat_table import exists
from tests.architecture.tree import ROOT
from tests.mutants import Mutant, Outcome, copy_of, load, try_mutant, try_unpatched

MUTANTS = load()

CODE = "def check(value: int) -> None:\n    if value > 3:\n        raise ValueError\n"
TEST = """\
import pytest
from overlay_toy import check

def test_four_is_refused() -> None:
    with pytest.raises(ValueError):
        check(4)

def test_three_passes() -> None:
    check(3)
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project with one guard."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "overlay_toy.py").write_text(CODE)
    (folder / "test_toy.py").write_text(TEST)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.guard)
def test_a_row_fits_the_code(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.find) == 1, f"{mutant.file} has not exactly one\n{mutant.find}"
    assert mutant.find != mutant.replace
    assert mutant.tests or mutant.scenes
    assert [test for test in mutant.tests if not exists(test)] == []
    assert [scene for scene in mutant.scenes if not exists(f"scene {scene}")] == []


def test_a_mutant_changes_nothing_for_the_next_one(toy: Path) -> None:
    mutant = Mutant("toy", "overlay_toy.py", "if value > 3:", "if value > 4:", ("test_toy.py::test_four_is_refused",))
    with copy_of(toy) as base:
        assert try_unpatched([mutant], base) == []
        assert [try_mutant(mutant, base)[0] for _ in range(2)] == [Outcome.RED] * 2
        assert (base / "overlay_toy.py").read_text() == CODE
        assert try_unpatched([mutant], base) == []


def test_no_guard_is_listed_twice() -> None:
    counts = Counter(mutant.guard for mutant in MUTANTS)
    assert [guard for guard, count in counts.items() if count > 1] == []


@pytest.mark.parametrize(
    ("replace", "test", "outcome"),
    [
        ("if value > 4:", "test_four_is_refused", Outcome.RED),
        ("if value > 4:", "test_three_passes", Outcome.GREEN),
        ("if value >", "test_four_is_refused", Outcome.BROKEN),
        ("if value > 4:", "test_of_another_name", Outcome.BROKEN),
    ],
)
def test_the_runner_tells_who_notices(toy: Path, replace: str, test: str, outcome: Outcome) -> None:
    mutant = Mutant("toy", "overlay_toy.py", "if value > 3:", replace, (f"test_toy.py::{test}",))
    assert try_mutant(mutant, toy)[0] is outcome
    assert (toy / "overlay_toy.py").read_text() == CODE


def test_the_runner_wants_the_unpatched_tests_to_pass(toy: Path) -> None:
    good = Mutant("toy", "overlay_toy.py", "3", "4", ("test_toy.py::test_three_passes",))
    bad = Mutant("toy", "overlay_toy.py", "3", "4", ("test_toy.py::test_of_another_name",))
    assert try_unpatched([good], toy) == []
    assert try_unpatched([good, bad], toy) != []


def test_a_text_that_occurs_twice_is_not_applied(toy: Path) -> None:
    with pytest.raises(ValueError, match="occurs 2 times"):
        try_mutant(Mutant("toy", "overlay_toy.py", "value", "3", ("test_toy.py",)), toy)
