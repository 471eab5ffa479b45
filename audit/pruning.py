"""Pruning by a lowest number: of entries below it the contents go, their hashes stay, so every proof stays valid.

    pruned  log (number), below        entries with a smaller seq may have an empty `raw`

Entries that carry keys or name witnesses are kept: later ones are verified by them. Only what enough witnesses have seen may
go; then what is left proves that the hashes are those that were witnessed. The copies of others are theirs.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from audit.chain import KEYED, ChainState
from overlay.core.merkle import HASH_SIZE
from overlay.registry import EntryType

SCHEMA: Final = "CREATE TABLE IF NOT EXISTS pruned (log INTEGER PRIMARY KEY, below INTEGER NOT NULL);"
KEPT: Final = KEYED | {EntryType.WITNESSES}
_KEPT_TYPES: Final = ", ".join(str(int(kind)) for kind in sorted(KEPT))


@dataclass(frozen=True, slots=True)
class Skipped:
    """Entries whose contents are gone."""

    hashes: list[bytes]
    hlc: int


def prune(connection: sqlite3.Connection, number: int, below: int) -> int:
    """Erase the contents of entries; within a transaction. How many it were."""
    done = connection.execute(
        f"UPDATE entries SET raw = x'' WHERE log = ? AND seq < ? AND length(raw) > 0 AND type NOT IN ({_KEPT_TYPES})",  # noqa: S608
        (number, below),
    ).rowcount
    connection.execute(
        "INSERT INTO pruned (log, below) VALUES (?, ?) ON CONFLICT DO UPDATE SET below = max(below, excluded.below)",
        (number, below),
    )
    return done


def pruned_below(connection: sqlite3.Connection, number: int) -> int:
    """Up to where contents of a log may be gone, as recorded; 0 for nonsense."""
    rows = connection.execute("SELECT below FROM pruned WHERE log = ?", (number,)).fetchall()
    return rows[0][0] if rows and isinstance(rows[0][0], int) else 0


def skip(state: ChainState, rows: Iterable[Sequence[Any]], below: int) -> Skipped:
    """The next entries whose contents are gone, as far as they are; their hashes and clocks are what is recorded."""
    hashes: list[bytes] = []
    hlc = state.hlc
    for seq, recorded, kind, found, raw in rows:
        fits = seq == state.size + len(hashes) and 0 < seq < below and raw == b"" and kind not in KEPT
        sound = isinstance(found, bytes) and len(found) == HASH_SIZE and isinstance(recorded, int) and recorded > hlc
        if not fits or not sound:
            break
        hashes.append(found)
        hlc = recorded
    return Skipped(hashes, hlc)
