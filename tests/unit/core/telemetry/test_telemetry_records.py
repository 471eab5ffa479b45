"""Samples as bytes: what a series can be called, and what is refused when it is read."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.telemetry.records import (
    LABEL_VALUE_MAX,
    LABELS_MAX,
    NAME_MAX,
    RECORD_MAX,
    RESERVED,
    Kind,
    Series,
    pack_record,
    split_record,
)
from overlay.core.wire import make_map
from overlay.errors import Refused, UsageError
from overlay.registry import Reason

NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,30}", fullmatch=True)
LABEL_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True).filter(lambda one: one not in RESERVED)
LABELS = st.dictionaries(LABEL_NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=5)
TOO_MANY = range(2 * LABELS_MAX + 2)


@given(NAMES, LABELS)
def test_a_series_is_read_as_it_was_written(name: str, labels: dict[str, str]) -> None:
    series = Series.of(name, labels)
    assert Series.unpack(series.pack()) == series


@given(st.sampled_from(Kind), st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 2**32 - 1))
def test_a_record_is_read_as_it_was_written(kind: Kind, value: float, age: int) -> None:
    packed = Series.of("load").pack()
    assert split_record(pack_record(packed, kind, value, age)) == (packed, kind, value, age)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_sample(value: float) -> None:
    with pytest.raises(UsageError, match="finite"):
        pack_record(b"", Kind.GAUGE, value, 0)
    with pytest.raises(Refused, match="value"):
        split_record(struct.pack(">dIB", value, 0, 1) + Series.of("load").pack())


@pytest.mark.parametrize(
    "record",
    [b"", bytes(13), struct.pack(">dIB", 1.0, 0, 9) + b"x", bytes(RECORD_MAX + 1)],
    ids=["none", "short", "kind", "long"],
)
def test_a_record_of_another_form_is_refused(record: bytes) -> None:
    with pytest.raises(Refused) as caught:
        split_record(record)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("name", ["", "1load", "lo ad", "load\n", "löad", "a" * (NAME_MAX + 1)])
def test_a_name_that_no_series_can_have(name: str) -> None:
    with pytest.raises(UsageError, match="no series can be called"):
        Series.of(name)
    with pytest.raises(Refused):
        Series.unpack(make_map(name, []))


@pytest.mark.parametrize("label", ["", "__name__", "author", "level", "a-b", "a\n"])
def test_a_label_that_no_series_can_have(label: str) -> None:
    with pytest.raises(UsageError, match="no series can be called"):
        Series.of("load", {label: "x"})
    with pytest.raises(Refused):
        Series.unpack(make_map("load", [label, "x"]))


@pytest.mark.parametrize(
    "texts",
    [["a"], ["b", "1", "a", "1"], ["a", "1", "a", "2"], ["a", "x" * (LABEL_VALUE_MAX + 1)], [f"l{n:02}" for n in TOO_MANY]],
    ids=["half", "order", "twice", "long", "many"],
)  # fmt: skip
def test_labels_have_one_form(texts: list[str]) -> None:
    with pytest.raises(Refused):
        Series.unpack(make_map("load", texts))


def test_a_label_that_is_not_text_is_an_error_of_who_uses_it() -> None:
    with pytest.raises(UsageError):
        Series.of("load", {"a": "\ud800"})
