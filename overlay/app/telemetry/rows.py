"""What a collector shows and exports: values out of its sums, their authors by name and level, and how well it is fed."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from overlay.core.telemetry.records import Kind, Series
from overlay.core.wire import malformed

OWN_PREFIX: Final = "overlay_telemetry_"  # what a collector says of itself; no author's series is exported under such a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The newest verified value of one series of one author."""

    author: str  # its name; its id where two authors have one name
    node: str
    level: int
    series: Series
    kind: Kind
    value: float
    at: int  # Unix milliseconds
    count: int  # samples so far

    def fields(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "author": self.author, "node": self.node, "level": self.level, "name": self.series.name,
            "labels": dict(self.series.labels), "kind": self.kind.name.lower(), "value": self.value,
            "at": self.at / 1000, "samples": self.count,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRow:
    """One stream, and what of it never came."""

    author: str
    node: str
    level: int
    stream: str  # its name
    batches: int
    missing: int
    dropped: int  # samples that its sender had no room for
    heard: float  # seconds since the last batch

    def fields(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A batch in quarantine."""

    at: datetime
    sender: str
    author: str  # empty where nobody is proven to have signed it
    reason: str
    detail: str
    size: int

    def fields(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {"at": self.at.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that a collector has to say."""

    rows: tuple[Row, ...]
    streams: tuple[StreamRow, ...]
    refused: tuple[tuple[str, str, int], ...]  # sender, reason, how many
    contradicted: tuple[tuple[str, str, int], ...]  # author, reason, how many
    kept: tuple[Kept, ...] = ()

    def own(self) -> Iterable[tuple[str, Kind, dict[str, str], float]]:
        """What the collector says of itself, as series: what one alerts on."""
        for one in self.streams:
            who = {"author": one.author, "level": str(one.level), "stream": one.stream}
            yield f"{OWN_PREFIX}batches_total", Kind.COUNTER, who, one.batches
            yield f"{OWN_PREFIX}missing_batches_total", Kind.COUNTER, who, one.missing
            yield f"{OWN_PREFIX}dropped_samples_total", Kind.COUNTER, who, one.dropped
            yield f"{OWN_PREFIX}silent_seconds", Kind.GAUGE, who, one.heard
        for sender, reason, count in self.refused:
            yield f"{OWN_PREFIX}quarantined_total", Kind.COUNTER, {"sender": sender, "reason": reason}, count
        for author, reason, count in self.contradicted:
            yield f"{OWN_PREFIX}contradicted_total", Kind.COUNTER, {"author": author, "reason": reason}, count

    def exported(self) -> Iterable[tuple[str, Kind, dict[str, str], float]]:
        """(name, kind, labels, value) of all that leaves: verified values under their author and level, then our own."""
        for row in self.rows:
            if not row.series.name.startswith(OWN_PREFIX):
                labels = {**dict(row.series.labels), "author": row.author, "level": str(row.level)}
                yield row.series.name, row.kind, labels, row.value
        yield from self.own()


def report_parts(report: Report) -> Iterable[tuple[str, list[Any]]]:
    """A report in rows that JSON can hold, by kind."""
    yield "row", [one.fields() for one in report.rows]
    yield "stream", [one.fields() for one in report.streams]
    yield "refused", [list(one) for one in report.refused]
    yield "contradicted", [list(one) for one in report.contradicted]
    yield "kept", [one.fields() for one in report.kept]


def read_report(parts: Iterable[tuple[str, Any]]) -> Report:
    """What `report_parts` gave. Raises Refused(MALFORMED)."""
    found: dict[str, list[Any]] = {kind: [] for kind in _READERS}
    for kind, row in parts:
        if kind in found:
            try:
                found[kind].append(_READERS[kind](row))
            except (KeyError, TypeError, ValueError, AttributeError):
                malformed(f"{kind} of a report")
    return Report(
        rows=tuple(found["row"]), streams=tuple(found["stream"]), refused=tuple(found["refused"]),
        contradicted=tuple(found["contradicted"]), kept=tuple(found["kept"]),
    )


def _row(fields: dict[str, Any]) -> Row:
    series = Series(fields["name"], tuple(fields["labels"].items()))
    return Row(
        author=fields["author"], node=fields["node"], level=fields["level"], series=series, kind=Kind[fields["kind"].upper()],
        value=fields["value"], at=round(fields["at"] * 1000), count=fields["samples"],
    )


def _counts(fields: list[Any]) -> tuple[str, str, int]:
    who, reason, count = fields
    return str(who), str(reason), int(count)


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "row": _row,
    "stream": lambda fields: StreamRow(**fields),
    "refused": _counts,
    "contradicted": _counts,
    "kept": lambda fields: Kept(**{**fields, "at": datetime.fromisoformat(fields["at"])}),
}
