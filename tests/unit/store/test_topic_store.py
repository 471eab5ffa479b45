"""A file of publications that cannot be read is damage with a name, and not a bug of ours."""

import sqlite3
from pathlib import Path

import pytest

from overlay.errors import StateDamaged
from overlay.store.topics import TopicStore


def test_a_file_that_cannot_be_read_is_damaged(tmp_path: Path) -> None:
    store = TopicStore.open(tmp_path / "topics.sqlite3")
    with sqlite3.connect(tmp_path / "topics.sqlite3") as other:
        other.execute("DROP TABLE items")
        other.execute("DROP TABLE chains")
    other.close()
    for read in (lambda: store.range(bytes(16), 0, 1), lambda: store.of_topic("news"), store.states):
        with pytest.raises(StateDamaged, match=r"topics\.sqlite3 cannot be read") as caught:
            read()
        assert "move the file away" in caught.value.hint
    store.close()
