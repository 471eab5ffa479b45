"""Boot event logs: what is read, and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest import event_log
from attest.event_log import EV_NO_ACTION, parse_boot_log
from attest.structures import ALG_SHA256
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.attest.event_log_kit import BOOT, SHA1, SHA384, Made, head, locality, log, u16, u32

GOOD = log(*BOOT)


def refused(data: bytes) -> str:
    with pytest.raises(Refused) as error:
        parse_boot_log(data)
    assert error.value.reason is Reason.BAD_EVIDENCE
    return error.value.detail


def test_a_log_is_its_events_in_order() -> None:
    found = parse_boot_log(GOOD)
    assert [(one.pcr, one.data, one.digest) for one in found.events] == [(one.pcr, one.data, one.sha256) for one in BOOT]
    assert [one.number for one in found.events] == list(range(1, len(BOOT) + 1))
    assert found.locality == 0
    assert [one.type_name for one in found.events[:3]] == ["EV_EFI_ACTION", "EV_EFI_ACTION", "EV_SEPARATOR"]


@pytest.mark.parametrize("banks", [(ALG_SHA256,), (SHA1, ALG_SHA256, SHA384), (SHA384, ALG_SHA256)])
def test_other_banks_are_stepped_over(banks: tuple[int, ...]) -> None:
    assert [one.digest for one in parse_boot_log(log(*BOOT, banks=banks)).events] == [one.sha256 for one in BOOT]


def test_an_event_of_a_type_that_nobody_knows_counts_by_its_digest() -> None:
    (event,) = parse_boot_log(log(Made(5, b"?", 0x12345678))).events
    assert (event.type_name, event.is_extended) == ("0x12345678", True)


@pytest.mark.parametrize("number", [0, 3, 4])
def test_the_locality_of_the_start_is_read(number: int) -> None:
    assert parse_boot_log(log(locality(number), *BOOT)).locality == number


@pytest.mark.parametrize(
    "events",
    [
        (locality(1),), (locality(3), locality(3)), (*BOOT, locality(3)),
        (Made(1, b"StartupLocality\0\x03", EV_NO_ACTION),), (Made(0, b"StartupLocality\0\x03\x00", EV_NO_ACTION),),
        (Made(0, b"StartupLocality\0", EV_NO_ACTION),),
    ],
)
def test_a_locality_where_none_can_be_is_refused(events: tuple[Made, ...]) -> None:
    assert "locality" in refused(log(*events))


def test_a_note_of_no_pcr_is_a_note() -> None:
    (event,) = parse_boot_log(log(Made(0xFFFFFFFF, b"a note", EV_NO_ACTION))).events
    assert not event.is_extended


def test_a_log_without_events_is_a_log() -> None:
    assert parse_boot_log(head()).events == ()


@pytest.mark.parametrize("size", range(len(GOOD)))
def test_a_log_that_is_cut_short_is_refused_or_ends_between_two_events(size: int) -> None:
    ends = {len(head())}
    for event in BOOT:
        ends.add(max(ends) + len(event.pack()))
    if size in ends:
        parse_boot_log(GOOD[:size])
    else:
        refused(GOOD[:size])


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "cut short"),
        (u32(1) + GOOD[4:], "specification event"),
        (GOOD[:4] + u32(8) + GOOD[8:], "specification event"),
        (head(signature=b"Spec ID Event02\0"), "no known specification"),
        (head((SHA1,)) + b"", "no SHA-256"),
        (head((ALG_SHA256, ALG_SHA256)), "no SHA-256"),
        (head(()), "0 banks"),
        (log(Made(24, b"x")), "PCR 24"),
        (log(Made(0xFFFFFFFF, b"x")), "PCR 4294967295"),
        (head() + u32(0) + u32(5) + u32(1) + u16(ALG_SHA256) + bytes(32) + u32(0), "1 digests where there are 2"),
        (head() + u32(0) + u32(5) + u32(2) + (u16(ALG_SHA256) + bytes(32)) * 2 + u32(0), "algorithm 0x000b"),
        (head() + u32(0) + u32(5) + u32(2) + u16(SHA384) + bytes(48), "algorithm 0x000c"),
        (head() + u32(0) + u32(5) + u32(10_000_000) + bytes(100), "10000000 digests"),
    ],
)
def test_what_is_no_log_is_refused(data: bytes, detail: str) -> None:
    assert detail in refused(data)


def test_the_head_ends_where_it_says() -> None:
    content = b"Spec ID Event03\0" + u32(0) + bytes([0, 2, 0, 2]) + u32(1) + u16(ALG_SHA256) + u16(32) + b"\0" + b"more"
    assert "left over" in refused(u32(0) + u32(EV_NO_ACTION) + bytes(20) + u32(len(content)) + content)


def test_an_event_that_claims_a_hundred_megabytes_is_refused_before_they_are_read() -> None:
    start = Made(4, b"x").pack()[: -len(b"x") - 4]
    assert "104857600 bytes of data" in refused(head() + start + u32(100 * 1024 * 1024))


def test_a_log_of_a_hundred_megabytes_is_refused_unread() -> None:
    assert "at most" in refused(bytes(event_log.LOG_MAX + 1))


def test_a_log_of_more_events_than_any_machine_makes_is_refused() -> None:
    one = Made(4, b"").pack()
    assert "more than 4096 events" in refused(head() + one * (event_log.EVENTS_MAX + 1))
    assert len(parse_boot_log(head() + one * event_log.EVENTS_MAX).events) == event_log.EVENTS_MAX


@given(st.binary(max_size=300))
def test_nothing_but_refused_comes_out(data: bytes) -> None:
    for content in (data, head() + data, GOOD[: len(data)] + data):
        try:
            parse_boot_log(content)
        except Refused as error:
            assert error.reason is Reason.BAD_EVIDENCE


def test_types_prove_nothing() -> None:
    """An event with a spoofed type has the digest that it has."""
    honest, spoofed = Made(4, b"shim"), Made(4, b"shim", 0x0000000D)
    assert parse_boot_log(log(honest)).events[0].digest == parse_boot_log(log(spoofed)).events[0].digest == sha256(b"shim")
