"""Every script in `scripts/` does what it says."""

from pathlib import Path

import pytest

from tests.cli.script_kit import play

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_does_what_it_says(script: Path, tmp_path: Path) -> None:
    differences = list(play(script.read_text(), tmp_path))
    assert not differences, "\n".join(differences)
