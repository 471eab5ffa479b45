"""Measurement lists of Linux: followed from quote to quote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest import ima
from attest.ima import Measurement, Position, follow, read_all
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.attest.event_log_kit import Measured, pcr_after, u32

ENTRIES = tuple(Measured("/usr/bin/program-").at(number) for number in range(20))
LIST = b"".join(entry.pack() for entry in ENTRIES)
ALL = [
    Measured("boot_aggregate"), Measured("/bin/sh", template=b"ima-sig"), Measured("/etc/shadow", template=b"ima"),
    Measured("/var/log/x", violation=True), Measured("/lib/x", template=b"ima-ngv2", name_prefix=b"verity:sha256:"),
    Measured("/opt/x", template=b"ima-sigv2", name_prefix=b"ima:sha256:"), Measured("/own", template=b"of-a-vendor"),
]  # fmt: skip


def test_an_entry_says_what_ran() -> None:
    (found,) = read_all(ENTRIES[3].pack())
    assert found == Measurement(0, "ima-ng", "sha256", sha256(u32(3)), "/usr/bin/program-3", ENTRIES[3].extended)


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.path)
def test_each_template_is_extended_as_the_kernel_does(entry: Measured) -> None:
    (found,) = read_all(entry.pack())
    assert (found.extended, found.violation) == (entry.extended, entry.violation)
    if entry.template != b"of-a-vendor":
        assert found.path == entry.path
        assert found.algorithm == ("sha1" if entry.template == b"ima" else "sha256")


def test_a_list_is_followed_to_the_quote_and_the_rest_does_not_count() -> None:
    seen: list[Measurement] = []
    found = follow(LIST, Position(), pcr_after(ENTRIES[:12]).__eq__, seen.append)
    assert (found.entries, found.value) == (12, pcr_after(ENTRIES[:12]))
    assert [one.path for one in seen] == [entry.path for entry in ENTRIES[:12]]
    assert LIST[found.offset :] == b"".join(entry.pack() for entry in ENTRIES[12:])


def test_a_verifier_reads_on_from_where_it_was() -> None:
    first = follow(LIST, Position(), pcr_after(ENTRIES[:5]).__eq__)
    seen: list[Measurement] = []
    second = follow(LIST[first.offset :], first, pcr_after(ENTRIES).__eq__, seen.append)
    assert second == Position(len(LIST), 20, pcr_after(ENTRIES))
    assert [one.number for one in seen] == list(range(5, 20))
    assert follow(b"", second, pcr_after(ENTRIES).__eq__) == second


def test_an_entry_that_is_half_there_is_read_the_next_time() -> None:
    cut = len(LIST) - 3
    first = follow(LIST[:cut], Position(), pcr_after(ENTRIES[:19]).__eq__)
    assert follow(LIST[first.offset :], first, pcr_after(ENTRIES).__eq__).entries == 20


@pytest.mark.parametrize("missing", range(20))
def test_an_entry_left_out_is_noticed(missing: int) -> None:
    data = b"".join(entry.pack() for number, entry in enumerate(ENTRIES) if number != missing)
    with pytest.raises(Refused) as error:
        follow(data, Position(), pcr_after(ENTRIES).__eq__)
    assert error.value.reason is Reason.PCR_MISMATCH


def test_nothing_is_told_of_a_list_that_does_not_lead_to_the_quote() -> None:
    seen: list[Measurement] = []
    with pytest.raises(Refused):
        follow(LIST, Position(), lambda _value: False, seen.append)
    assert seen == []


def test_a_path_that_somebody_edits_is_noticed() -> None:
    data = LIST.replace(b"program-7\0", b"program-X\0")
    assert len(data) == len(LIST)
    with pytest.raises(Refused, match="not what its digest says"):
        follow(data, Position(), pcr_after(ENTRIES).__eq__)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (Measured("x", pcr=11).pack(), "of PCR 11"),
        (u32(10) + bytes(20) + u32(16), "template name of 16 bytes"),
        (u32(10) + bytes(20) + u32(10_000_000), "template name of 10000000 bytes"),
        (u32(10) + bytes(20) + u32(6) + b"ima-ng" + u32(100 * 1024 * 1024), "104857600 bytes"),
        (u32(10) + bytes(20) + u32(3) + b"ima" + bytes(20) + u32(256), "255 bytes"),
        (u32(10) + bytes(20) + u32(6) + b"ima-ng" + u32(6) + u32(3) + b"ab", "cut short"),
        (u32(10) + bytes(20) + u32(6) + b"ima-ng" + u32(6) + u32(2) + b"ab", "1 fields"),
    ],
)
def test_what_is_no_list_is_refused(data: bytes, detail: str) -> None:
    with pytest.raises(Refused, match=detail) as error:
        read_all(data)
    assert error.value.reason is Reason.BAD_EVIDENCE


def test_a_list_of_a_hundred_megabytes_is_refused_unread() -> None:
    with pytest.raises(Refused, match="at most"):
        read_all(bytes(ima.PART_MAX + 1))
    with pytest.raises(Refused, match="at most"):
        follow(bytes(ima.PART_MAX + 1), Position(), lambda _value: True)


@given(st.binary(max_size=200))
def test_nothing_but_refused_comes_out(data: bytes) -> None:
    for content in (data, ENTRIES[0].pack() + data, u32(10) + bytes(20) + u32(6) + b"ima-ng" + data):
        try:
            read_all(content)
        except Refused as error:
            assert error.reason is Reason.BAD_EVIDENCE
