"""What entries say, and how people read it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import bodies
from audit.bodies import FORMS, application, describe, make_body, read_application, read_body
from audit.work_bodies import work_refused
from overlay.core.keys import NodeId
from overlay.core.telemetry.anchor import Anchored, anchor_body
from overlay.core.wire import decode, encode
from overlay.errors import Refused, UsageError
from overlay.registry import EntryType, ForkKind, Reason
from tests.unit.audit.audit_kit import some_log

PEER = NodeId(b"\1" * 32)

EXAMPLES = {
    EntryType.LIFECYCLE: bodies.lifecycle("started", version="0.1.0"),
    EntryType.ADMISSION: bodies.admission(PEER, b"\2" * 32, level=2, evidence=2),
    EntryType.REFUSAL: bodies.refusal(None, Reason.BAD_GATE, minute=29_539_440, count=3),
    EntryType.DRIFT: bodies.drift(PEER, Reason.PCR_MISMATCH, detail="PCR 14"),
    EntryType.FORK: bodies.fork(PEER, ForkKind.ENTRIES, bytes(32), detail="two entries number 3 in log 0a"),
    EntryType.WITNESSES: bodies.witnesses((PEER,)),
    EntryType.ENROLMENT: bodies.enrolment(PEER, "bob", ("witness",)),
    EntryType.ISSUANCE: bodies.issuance(PEER, 2**158, b"\3" * 32, 1_772_366_400),
    EntryType.ORDER: bodies.order(PEER, 4, 7, b"\6" * 32),
    EntryType.REVOCATION: bodies.revocation(3, b"\7" * 32, [PEER]),
    EntryType.POLICY: bodies.policy(2, b"\4" * 32),
    EntryType.AUTHORITY: bodies.authority(0, b"\5" * 32),
    EntryType.WORK: work_refused(PEER, Reason.SCHEDULER_ROLE, "bob has not the role", workload=b"\7" * 32, run=1),
    EntryType.TELEMETRY: anchor_body([Anchored("host", bytes(16), 60, b"\x08" * 32, 0)]),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_body_is_of_its_form_and_can_be_shown(kind: EntryType) -> None:
    body = decode(encode(EXAMPLES[kind]), limit=4096)
    assert [key for key, value in read_body(kind, body).items() if value is not None]
    shown = describe(kind, body)
    assert "unreadable" not in shown
    json.dumps(shown)


def test_there_is_an_example_of_each_form() -> None:
    assert EXAMPLES.keys() | {EntryType.LOG_OPEN, EntryType.ENDORSEMENT} == FORMS.keys()


def test_people_see_names_and_not_numbers() -> None:
    shown = describe(EntryType.DRIFT, EXAMPLES[EntryType.DRIFT])
    assert shown == {"peer": str(PEER), "reason": "pcr_mismatch", "detail": "PCR 14"}


def test_an_opening_can_be_shown() -> None:
    entry = some_log(1).entries[0]
    assert describe(entry.type, entry.body)["k"] == 0


def test_a_field_that_the_form_does_not_have_is_our_mistake() -> None:
    with pytest.raises(TypeError, match="colour"):
        make_body(EntryType.LIFECYCLE, event="started", colour="red")


def test_a_body_of_another_form_is_shown_as_unreadable() -> None:
    assert describe(EntryType.POLICY, {0: 1, 1: b"\xff"}) == {"unreadable": {"0": 1, "1": "ff"}}
    assert describe(200, {0: 9}) == {"unreadable": {"0": 9}}
    assert describe(EntryType.APPLICATION, {0: "kind", 1: b"{"}) == {"unreadable": {"0": "kind", "1": "7b"}}


# --- what users append ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 1, 0.5, "text", [1, [2]], {"door": "7b", "count": 3}, {"ä": ["ö"]}, True, ""])
def test_a_users_value_comes_back(value: Any) -> None:
    body = decode(encode(application("door.opened", value)), limit=4096)
    assert read_application(body) == ("door.opened", value)
    assert describe(EntryType.APPLICATION, body) == {"type": "door.opened", "value": value}


def test_keys_are_sorted() -> None:
    assert application("t", {"b": 1, "a": 2})[1] == b'{"a":2,"b":1}'


@pytest.mark.parametrize("value", [
    float("nan"), float("inf"), b"bytes", {1, 2}, object(), "\ud800", {"a": 1, 2: 3}, {2: 1, 10: 2},
])  # fmt: skip
def test_what_json_cannot_hold_is_the_users_mistake(value: Any) -> None:
    with pytest.raises(UsageError):
        application("t", value)


@pytest.mark.parametrize("kind", ["", "x" * 129])
def test_a_type_has_1_to_128_bytes(kind: str) -> None:
    with pytest.raises(UsageError):
        application(kind, None)


def test_a_value_inside_itself_is_the_users_mistake() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(UsageError):
        application("t", value)


@pytest.mark.parametrize("body", [
    {0: "kind"}, {0: "kind", 1: b"1", 2: 3}, {0: 1, 1: b"1"}, {0: "kind", 1: "1"},
    {0: "kind", 1: b"NaN"}, {0: "kind", 1: b"\xff"},
    {0: "kind", 1: b"[" * 50_000}, {0: "kind", 1: b"1 2"}, {0: "x" * 129, 1: b"1"}, {0: "kind", 1: b'"\\ud800"'},
    {0: "kind", 1: b'{"a":1,"a":2}'}, {0: "kind", 1: b'{"b":1,"a":2}'},
])  # fmt: skip
def test_what_is_no_application_entry_is_refused(body: dict[int, Any]) -> None:
    with pytest.raises(Refused):
        read_application(body)
    assert "unreadable" in describe(EntryType.APPLICATION, body)


VALUES = st.recursive(
    st.integers(0, 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=10) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers(0, 9), inner, max_size=3), max_leaves=8,
)  # fmt: skip


@given(st.integers(0, 255), st.dictionaries(st.integers(0, 9), VALUES, max_size=9))
def test_any_body_can_be_shown(kind: int, body: dict[int, Any]) -> None:
    json.dumps(describe(kind, body), ensure_ascii=False).encode()


@given(st.binary(max_size=60))
def test_any_users_value_can_be_shown(data: bytes) -> None:
    json.dumps(describe(EntryType.APPLICATION, {0: "kind", 1: data}), ensure_ascii=False).encode()
