"""A fresh state folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from overlay.store.state import StateFolder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    with StateFolder.create(tmp_path / "state") as made:
        yield made
