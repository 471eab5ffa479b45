"""Workloads, placements and results as bytes: what is read is what was written, and nothing else can be read."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.keys import NodeId
from overlay.core.wire import make_map
from overlay.core.work.cose_sign import parse_sign
from overlay.core.work.envelopes import (
    ASSIGNMENT_MAX,
    Assignment,
    SignedPlacement,
    SignedResult,
    SignedWorkload,
)
from overlay.core.work.placement import LIFE_MAX, Placement
from overlay.core.work.result import WorkResult
from overlay.core.work.signing import countersign_workload, sign_workload
from overlay.core.work.workload import Allowed, File, RunLimits, Workload
from overlay.errors import Refused, UsageError
from overlay.registry import Reason, WorkState
from tests.unit.core.authority_kit import DAY, HOUR, NOW
from tests.unit.core.session_kit import local
from tests.unit.core.work.work_kit import (
    MESH,
    MINUTE,
    OTHER_WORKER,
    SCHEDULER,
    SECOND,
    SUBMITTER,
    WORKER,
    assign,
    make_result,
    make_workload,
    put,
    report,
    sign,
    sign_both,
)


def reason_of(read: Callable[[bytes], object], raw: bytes) -> Reason:
    with pytest.raises(Refused) as caught:
        read(raw)
    return caught.value.reason


# --- there and back -------------------------------------------------------------------------------------------------

FULL = make_workload(
    limits=RunLimits(seconds=1, memory=2**30, processes=1, output=0, network=True), level=3, runs=9,
    schedulers=Allowed(names=("sched",)), workers=Allowed(nodes=tuple(sorted((WORKER.node_id, OTHER_WORKER.node_id)))),
    second=SECOND.node_id, environment=(("A", "1"), ("B", "")), arguments=("--", "two\nlines"),
)  # fmt: skip


@pytest.mark.parametrize("workload", [make_workload(), FULL, make_workload(inputs=(), outputs=(), arguments=())])
def test_a_workload_is_read_as_it_was_written(workload: Workload) -> None:
    assert Workload.unpack(workload.pack()) == workload


@pytest.mark.parametrize("signed", [sign(), sign_both(), sign(make_workload(second=SECOND.node_id))])
def test_a_signed_workload_is_read_as_it_was_written(signed: SignedWorkload) -> None:
    found = SignedWorkload.unpack(signed.pack())
    assert found == signed and found.hash == signed.hash


def test_an_assignment_is_read_as_it_was_written_and_names_the_workload_by_its_bytes() -> None:
    given_out = assign(sign_both())
    found = Assignment.unpack(given_out.pack())
    assert found == given_out
    assert found.placement.says.workload == found.workload.hash == sign_both().hash


def test_a_result_is_read_as_it_was_written() -> None:
    result = report(put())
    found = SignedResult.unpack(result.pack())
    assert found == result and found.says == make_result(put())


def test_half_signed_work_of_two_is_not_complete() -> None:
    half = sign(make_workload(second=SECOND.node_id))
    assert not half.is_complete and sign_both().is_complete and sign().is_complete


# --- sizes ----------------------------------------------------------------------------------------------------------

READERS = pytest.mark.parametrize(
    "read", [Assignment.unpack, SignedWorkload.unpack, SignedPlacement.unpack, SignedResult.unpack, Workload.unpack,
             Placement.unpack, WorkResult.unpack],
)  # fmt: skip


@READERS
def test_a_workload_of_ten_megabytes_is_refused_before_it_is_read(read: Callable[[bytes], object]) -> None:
    huge = cbor2.dumps({0: 1, 1: bytes(10_000_000)})
    assert reason_of(read, huge) is Reason.TOO_LARGE
    assert reason_of(read, b"\x9f" * 10_000_000) is Reason.TOO_LARGE  # that cannot even be decoded


@READERS
@given(data=st.binary(max_size=300))
@settings(max_examples=100)
def test_any_bytes_are_refused_at_most(read: Callable[[bytes], object], data: bytes) -> None:
    with suppress(Refused):
        read(data)


@given(place=st.integers(min_value=0), bit=st.integers(0, 7), cut=st.integers(0, 40))
def test_a_damaged_assignment_is_refused_or_another_one(place: int, bit: int, cut: int) -> None:
    raw = bytearray(RAW)
    raw[place % len(raw)] ^= 1 << bit
    with suppress(Refused):
        assert Assignment.unpack(bytes(raw)).pack() == bytes(raw)  # whatever is read has this one encoding
    with pytest.raises(Refused):
        Assignment.unpack(RAW[: len(RAW) - 1 - cut])


RAW = assign(sign_both()).pack()


def test_an_assignment_has_room_for_the_largest_workload() -> None:
    texts = tuple("x" * 4000 for _ in range(15))
    assert len(assign(sign_both(make_workload(second=SECOND.node_id, arguments=texts))).pack()) < ASSIGNMENT_MAX


def test_a_workload_with_too_much_in_it_cannot_be_signed() -> None:
    with pytest.raises(UsageError, match="too large"):
        sign(make_workload(arguments=tuple("x" * 4000 for _ in range(17))))


# --- form -----------------------------------------------------------------------------------------------------------


def test_deep_nesting_is_refused() -> None:
    deep: Any = 1
    for _ in range(20):
        deep = [deep]
    assert reason_of(Assignment.unpack, cbor2.dumps({0: 1, 1: deep, 2: b"x"})) is Reason.MALFORMED


def test_a_key_that_is_there_twice_is_refused() -> None:
    twice = b"\xa3\x00\x01" + b"\x01\x41x" * 2
    assert reason_of(Assignment.unpack, twice) is Reason.MALFORMED


def test_another_encoding_of_the_same_workload_is_refused() -> None:
    payload = make_workload().pack()
    longer = payload.replace(b"\x00\x01", b"\x00\x18\x01", 1)  # {0: 1} with the 1 in two bytes
    assert longer != payload and reason_of(Workload.unpack, longer) is Reason.MALFORMED


BAD_NAMES = [
    "", ".", "..", "../evil", "a/b", "/etc/passwd", "a\\b", "nul\0", "line\nbreak", "bell\a", "\u202etxt", "ｅ", ".hidden",
    "-rf", "a b", "stdout", "STDERR", "x" * 101, "c:d", "\x7f",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_path_trick_in_the_name_of_an_input_is_refused(name: str) -> None:
    assert reason_of(Workload.unpack, make_workload(inputs=(File(name, bytes(32), 1),)).pack()) is Reason.MALFORMED


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_path_trick_in_the_name_of_an_output_is_refused(name: str) -> None:
    assert reason_of(Workload.unpack, make_workload(outputs=(name,)).pack()) is Reason.MALFORMED
    if name != "stdout":
        raw = make_result(put(), files=(File(name, bytes(32), 1),)).pack()
        assert reason_of(WorkResult.unpack, raw) is Reason.MALFORMED


@given(st.text(max_size=20))
def test_a_name_that_is_let_through_is_one_plain_word(name: str) -> None:
    with suppress(Refused):
        [found] = Workload.unpack(make_workload(outputs=(name,)).pack()).outputs
        assert found == name and name.isascii() and name.isprintable() and not set(name) & set("/\\ :\0") and name[0] != "."


WRONG: list[dict[str, Any]] = [
    {"name": "Job"}, {"name": ""}, {"name": "a/b"},
    {"id": bytes(15)}, {"not_after": NOW}, {"not_after": NOW + DAY + MINUTE}, {"runs": 0}, {"runs": 2_000_000}, {"level": 6},
    {"arguments": ("nul\0",)}, {"environment": (("A", "nul\0"),)}, {"environment": (("A=B", ""),)},
    {"environment": (("", ""),)},
    {"environment": (("B", ""), ("A", ""))}, {"environment": (("A", ""), ("A", ""))},
    {"inputs": (File("b", bytes(32), 1), File("a", bytes(32), 1))},
    {"inputs": (File("a", bytes(32), 1), File("a", bytes(32), 1))},
    {"outputs": ("b", "a")}, {"outputs": ("a", "a")}, {"outputs": ("A", "a")}, {"outputs": ("table.csv",)},
    {"second": SUBMITTER.node_id}, {"limits": RunLimits(seconds=0)}, {"limits": RunLimits(processes=0)},
    {"limits": RunLimits(memory=4096)}, {"limits": RunLimits(seconds=10**9)},
    {"schedulers": Allowed(names=("Bad",))}, {"workers": Allowed(names=("b", "a"))},
    {"workers": Allowed(nodes=(NodeId(b"b" * 32), NodeId(b"a" * 32)))},
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG)
def test_a_workload_that_means_nothing_is_refused_and_cannot_be_signed(change: dict[str, Any]) -> None:
    workload = make_workload(**change)
    assert reason_of(Workload.unpack, workload.pack()) is Reason.MALFORMED
    with pytest.raises(UsageError, match="cannot be a workload"):
        sign(workload)


def test_a_list_of_nobody_is_refused() -> None:
    fields = cbor2.loads(FULL.pack())
    fields[14] = [[], []]
    assert reason_of(Workload.unpack, cbor2.dumps(fields)) is Reason.MALFORMED


def test_an_artifact_of_an_unknown_type_is_refused() -> None:
    fields = cbor2.loads(FULL.pack())
    fields[6][2] = 99
    assert reason_of(Workload.unpack, cbor2.dumps(fields)) is Reason.MALFORMED


@pytest.mark.parametrize("change", [{"run": 0}, {"life": timedelta()}, {"life": LIFE_MAX + MINUTE}, {"nonce": b"short"}])
def test_a_placement_that_means_nothing_cannot_be_signed(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="cannot be a placement"):
        put(**change)


def test_a_placement_of_run_zero_is_refused() -> None:
    bad = replace(put().says, run=0)
    assert reason_of(Placement.unpack, bad.pack()) is Reason.MALFORMED


def test_a_placement_that_lives_for_a_day_is_refused() -> None:
    bad = replace(put().says, not_after=NOW + DAY)
    assert reason_of(Placement.unpack, bad.pack()) is Reason.MALFORMED


@pytest.mark.parametrize(
    "change",
    [
        {"run": 0}, {"number": None}, {"reason": Reason.REVOKED}, {"state": WorkState.STOPPED}, {"ended": NOW - MINUTE},
        {"state": WorkState.STOPPED, "number": None}, {"state": WorkState.TIMED_OUT, "number": 1},
        {"files": (File("b", bytes(32), 1), File("a", bytes(32), 1))},
    ],
)  # fmt: skip
def test_a_result_that_means_nothing_is_refused(change: dict[str, Any]) -> None:
    assert reason_of(WorkResult.unpack, make_result(put(), **change).pack()) is Reason.MALFORMED


@pytest.mark.parametrize(("field", "value"), [(5, 99), (7, 250)])
def test_a_result_of_an_unknown_state_or_reason_is_refused(field: int, value: int) -> None:
    raw = make_result(put(), state=WorkState.STOPPED, number=None, reason=Reason.SCHEDULER_REVOKED).pack()
    fields = cbor2.loads(raw)
    fields[field] = value
    assert reason_of(WorkResult.unpack, cbor2.dumps(fields)) is Reason.MALFORMED


# --- COSE_Sign ------------------------------------------------------------------------------------------------------


def parts() -> list[Any]:
    return list(cbor2.loads(sign_both().raw[2:]))


def with_parts(*values: Any) -> bytes:
    return b"\xd8\x62" + cbor2.dumps(list(values))


@pytest.mark.parametrize(
    "change",
    [
        lambda p: with_parts(*p[:3]),
        lambda p: with_parts(b"\xa0", *p[1:]),
        lambda p: with_parts(p[0], {1: 2}, *p[2:]),
        lambda p: with_parts(*p[:2], "text", p[3]),
        lambda p: with_parts(*p[:3], []),
        lambda p: with_parts(*p[:3], [*p[3], p[3][0]]),
        lambda p: with_parts(*p[:3], [p[3][0][:2], p[3][1]]),
        lambda p: with_parts(*p[:3], [[b"\xa0", *p[3][0][1:]], p[3][1]]),
        lambda p: with_parts(*p[:3], [[p[3][0][0], {1: 1}, p[3][0][2]], p[3][1]]),
        lambda p: with_parts(*p[:3], [[*p[3][0][:2], b"short"], p[3][1]]),
        lambda p: b"\xd2" + cbor2.dumps(p),
        cbor2.dumps,
    ],
)
def test_a_cose_sign_of_another_form_is_refused(change: Callable[[list[Any]], bytes]) -> None:
    credentials = sign_both().credentials
    assert parse_sign(with_parts(*parts()), limit=10_000, most=2).signatures
    assert reason_of(lambda raw: SignedWorkload.read(raw, credentials), change(parts())) is Reason.MALFORMED


def test_what_does_not_begin_as_a_cose_sign_is_none() -> None:
    assert reason_of(lambda raw: parse_sign(raw, limit=10_000, most=2), sign().raw) is Reason.MALFORMED


def test_one_signature_around_a_workload_that_asks_for_two_is_refused() -> None:
    one, both = sign(), sign_both()
    as_one = with_parts(b"", {}, cbor2.loads(one.raw[1:])[2], parts()[3])
    assert reason_of(lambda raw: SignedWorkload.read(raw, both.credentials), as_one) is Reason.MALFORMED


def test_signatures_and_credentials_are_as_many() -> None:
    both = sign_both()
    data = make_map(both.raw, [[one.endorsement, one.leaf, []] for one in both.credentials[:1]])
    assert reason_of(SignedWorkload.unpack, data) is Reason.MALFORMED
    assert reason_of(SignedPlacement.unpack, make_map(put().raw, [])) is Reason.MALFORMED


# --- signing --------------------------------------------------------------------------------------------------------


def test_nobody_signs_in_the_name_of_another() -> None:
    with pytest.raises(UsageError, match="originator"):
        sign(by=SCHEDULER)
    with pytest.raises(UsageError, match="as its worker"):
        report(put(), by=SCHEDULER)


def test_a_workload_that_outlives_the_keys_that_sign_it_is_not_signed() -> None:
    late = make_workload(not_before=NOW + HOUR, not_after=NOW + DAY)
    with pytest.raises(UsageError, match="the keys that sign it"):
        sign(late)


def test_only_the_second_signer_that_is_named_countersigns_and_once() -> None:
    half = sign(make_workload(second=SECOND.node_id))
    for signed, by in ((half, SCHEDULER), (sign(), SECOND)):
        with pytest.raises(UsageError, match="does not name this node"):
            countersign_workload(signed, own=local(by), mesh_id=MESH.mesh_id)
    with pytest.raises(UsageError, match="both signatures"):
        countersign_workload(sign_both(), own=local(SECOND), mesh_id=MESH.mesh_id)


def test_half_signed_work_cannot_be_placed_nor_a_run_that_it_does_not_have() -> None:
    with pytest.raises(UsageError, match="second signature"):
        put(sign(make_workload(second=SECOND.node_id)))
    with pytest.raises(UsageError, match="1 times"):
        put(sign(), run=2)


def test_times_with_fractions_cannot_be_signed() -> None:
    with pytest.raises(UsageError, match="whole seconds"):
        sign_workload(
            make_workload(not_before=NOW + timedelta(microseconds=1)), own=local(SUBMITTER), mesh_id=MESH.mesh_id
        )
