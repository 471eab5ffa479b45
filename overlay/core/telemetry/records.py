"""Samples, and the bytes that stand for them in a batch (docs/protocol/telemetry.md).

    record = f64 value || u32 age || u8 kind || series         big-endian; age: milliseconds before the time of its batch
    series = {0:1, 1:name, 2:[label, value, label, value, ...]}   labels in rising order, each once

Each record stands alone: no table has to have come before it, so one that is lost takes no others with it. Names are those of
Prometheus' data model. Counters and gauges are all there is: what else a source has, histograms for one, comes as counters.
"""

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, unique
from itertools import pairwise
from typing import Final

from overlay.core.wire import Array, Text, make_map, malformed, open_map
from overlay.errors import Refused, UsageError

NAME_MAX: Final = 128  # bytes, our guess: twice the longest name of node_exporter
LABELS_MAX: Final = 16  # our guess
LABEL_VALUE_MAX: Final = 256  # bytes, our guess
SERIES_BYTES_MAX: Final = 1024  # our guess: all parts of usual length, and room
AGE_MAX: Final = 2**32 - 1
RESERVED: Final = frozenset({"author", "level"})  # what the collector says of a series, its author may not

_HEAD: Final = struct.Struct(">dIB")
RECORD_MAX: Final = _HEAD.size + SERIES_BYTES_MAX
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")  # Prometheus, "Metric names and labels"
_LABEL: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")  # the same; two underscores are Prometheus' own
_FORM: Final = (Text(NAME_MAX), Array(Text(LABEL_VALUE_MAX), 2 * LABELS_MAX))


@unique
class Kind(IntEnum):
    """What the values of a series are."""

    COUNTER = 1  # a total since some start; it falls only when that start moves
    GAUGE = 2


_KINDS: Final = {int(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Series:
    """What is measured: a name, and labels in rising order."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, name: str, labels: Mapping[str, str] | None = None) -> "Series":
        """Raises UsageError for a name or label that no series can have."""
        series = cls(name, tuple(sorted((labels or {}).items())))
        try:
            cls.unpack(series.pack())
        except (Refused, TypeError, UnicodeEncodeError) as error:
            detail = error.detail if isinstance(error, Refused) else "not text"
            raise UsageError(f"no series can be called {name!r} with these labels: {detail}") from None
        return series

    def pack(self) -> bytes:
        """Its bytes: {0:1, 1:name, 2:[label, value, ...]}."""
        return make_map(self.name, [text for pair in self.labels for text in pair])

    @classmethod
    def unpack(cls, data: bytes) -> "Series":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        name, texts = open_map(data, *_FORM, limit=SERIES_BYTES_MAX)
        if not _NAME.fullmatch(name):
            malformed("the name of a series")
        if len(texts) % 2:
            malformed("a label without a value")
        names = texts[::2]
        if any(first >= second for first, second in pairwise(names)):
            malformed("labels out of order, or twice")
        if any(not _LABEL.fullmatch(label) or label in RESERVED for label in names):
            malformed("the name of a label")
        return cls(name, tuple(zip(names, texts[1::2], strict=True)))


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a series at one time."""

    series: Series
    kind: Kind
    value: float
    at: float  # Unix seconds


def pack_record(series: bytes, kind: Kind, value: float, age: int) -> bytes:
    """A record. `series`: packed. `age`: milliseconds, cut to what a record holds. Raises UsageError for NaN or infinity."""
    if not math.isfinite(value):
        raise UsageError(f"a sample is a finite number, and not {value}")
    return _HEAD.pack(value, min(max(age, 0), AGE_MAX), kind) + series


def split_record(record: bytes) -> tuple[bytes, Kind, float, int]:
    """(packed series, kind, value, age); the series may still be of any form. Raises Refused(MALFORMED)."""
    if not _HEAD.size < len(record) <= RECORD_MAX:
        malformed("a record of another size")
    value, age, number = _HEAD.unpack_from(record)
    kind = _KINDS.get(number)
    if kind is None or value - value != 0.0:  # NaN and both infinities
        malformed("a record's kind or value")
    return record[_HEAD.size :], kind, value, age
