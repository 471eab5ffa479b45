"""How many logs each node has begun lately: more than three within a day are an alarm (docs/protocol/audit.md)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from audit.entry import Entry
from overlay.core.keys import NodeId

OPENINGS_MAX: Final = 3  # design
A_DAY: Final = timedelta(days=1)


class Openings:
    """The openings of a day, by what their authors' clocks said."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = list(entries)

    def begun(self, opening: Entry, at: datetime) -> int | None:
        """Another log has begun; how many of that node, if they are too many."""
        self._entries = [*(one for one in self._entries if one.at > at - A_DAY), opening]
        return self.many(at).get(opening.node_id)

    def many(self, at: datetime) -> Mapping[NodeId, int]:
        """Who has begun too many within a day, and how many."""
        counts = Counter(one.node_id for one in self._entries if one.at > at - A_DAY)
        return {node_id: count for node_id, count in sorted(counts.items()) if count > OPENINGS_MAX}


def words(name: str, count: int) -> str:
    """For people."""
    return f"{name} has begun {count} logs within a day: it cannot confirm that its copy is the newest one"
