"""Which entries somebody wants to see: by node, type, time and text; the rest of the condition that SQL cannot say."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from audit.bodies import describe
from audit.entry import Entry
from overlay.core.keys import NodeId
from overlay.core.mesh.chains import HLC_MAX, hlc_of
from overlay.registry import EntryType

APPLICATION: Final = EntryType.APPLICATION.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is left out matches everything.

    `types` holds names as in the registry, lower case, or types of users' entries. `text` stands somewhere in the body as
    JSON shows it, in whatever case. Times are the authors'. Of what matches, the last so many.
    """

    node_id: NodeId | None = None
    log_id: bytes | None = None
    types: frozenset[str] = field(default_factory=frozenset)
    since: datetime | None = None
    until: datetime | None = None
    text: str = ""
    last: int | None = None

    @property
    def needs_bodies(self) -> bool:
        """Whether the columns of the store do not decide it alone."""
        return bool(self.text or self.types - _NUMBERS.keys())

    def where(self) -> tuple[str, list[object]]:
        """The part that columns decide: a condition of SQL over `entries`, and its values."""
        parts, values = ["1"], []
        for condition, value in self._conditions():
            parts.append(condition)
            values.append(value)
        if self.types:
            numbers = sorted({_NUMBERS.get(name, int(EntryType.APPLICATION)) for name in self.types})
            parts.append(f"type IN ({', '.join(map(str, numbers))})")
        return " AND ".join(parts), values

    def _conditions(self) -> Iterator[tuple[str, object]]:
        if self.node_id is not None:
            yield "log IN (SELECT number FROM logs WHERE node_id = ?)", bytes(self.node_id)
        if self.log_id is not None:
            yield "log IN (SELECT number FROM logs WHERE log_id = ?)", self.log_id
        if self.since is not None:
            yield "hlc >= ?", _clock(self.since)
        if self.until is not None:
            yield "hlc < ?", _clock(self.until)

    def matches(self, entry: Entry) -> bool:
        """Whether an entry is one of them, all but `last`."""
        low, high = (None if at is None else _clock(at) for at in (self.since, self.until))
        return (
            self.node_id in (None, entry.node_id)
            and self.log_id in (None, entry.log_id)
            and (low is None or low <= entry.hlc)
            and (high is None or entry.hlc < high)
            and self._matches_body(entry)
        )

    def _matches_body(self, entry: Entry) -> bool:
        kind = entry.body.get(0) if entry.type == EntryType.APPLICATION else None
        if self.types and entry.type_name not in self.types and kind not in self.types:
            return False
        if not self.text:
            return True
        shown = json.dumps(describe(entry.type, entry.body), ensure_ascii=False, separators=(",", ":"))
        return self.text.casefold() in shown.casefold()


def _clock(at: datetime) -> int:
    """As far as a clock of ours, and an integer of SQLite, can say it."""
    return min(hlc_of(at), HLC_MAX)


_NUMBERS: Final = {kind.name.lower(): int(kind) for kind in EntryType}
