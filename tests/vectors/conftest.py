"""Where test vectors lie: the published ones in `../shared/vectors`; what needs them skips where they are absent."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / ".." / "shared" / "vectors"
OURS = Path(__file__).parent / "ours"

Load = Callable[[str], Any]


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "vectors: needs the published test vectors")


@pytest.fixture(scope="session")
def vectors() -> Load:
    """Reads a file of published vectors, given relative to their folder."""
    known: dict[str, Any] = {}

    def load(name: str) -> Any:
        path = VECTORS / name
        if not path.is_file():
            pytest.skip(f"the test vectors {name} are not beside this checkout")
        if name not in known:
            known[name] = json.loads(path.read_text())
        return known[name]

    return load


@pytest.fixture(scope="session")
def vector_file() -> Callable[[str], Path]:
    """The path of a published vector that is no JSON, given relative to their folder."""

    def find(name: str) -> Path:
        path = VECTORS / name
        if not path.is_file():
            pytest.skip(f"the test vectors {name} are not beside this checkout")
        return path

    return find


@pytest.fixture(scope="session")
def ours() -> Load:
    """Reads a file of our own vectors."""
    return lambda name: json.loads((OURS / name).read_text())
