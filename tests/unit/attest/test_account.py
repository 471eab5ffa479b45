"""Boot log and measurement list together, against one digest."""

import pytest

from attest.account import TAIL, account
from attest.event_log import parse_boot_log
from attest.ima import Measurement, Position
from attest.replay import digest_of, replay
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.attest.event_log_kit import BOOT, Made, Measured, log, pcr_after

BITMAP = 0x44FF  # PCRs 0 to 7, 10 and 14
LOG = parse_boot_log(log(*BOOT))
ENTRIES = tuple(Measured("/usr/bin/program-").at(number) for number in range(12))
LIST = b"".join(entry.pack() for entry in ENTRIES)


def quoted(events: int = len(BOOT), entries: int = len(ENTRIES)) -> bytes:
    values = {**replay(parse_boot_log(log(*BOOT[:events]))), 10: pcr_after(ENTRIES[:entries])}
    return digest_of(values, BITMAP)


def test_both_logs_together_lead_to_the_quote() -> None:
    found = account(BITMAP, quoted(), LOG, LIST)
    assert (found.surplus, found.position.entries) == (0, 12)
    assert digest_of(found.values, BITMAP) == quoted()


@pytest.mark.parametrize("entries", [0, 1, 7])
def test_what_the_kernel_measured_after_the_quote_does_not_count(entries: int) -> None:
    assert account(BITMAP, quoted(entries=entries), LOG, LIST).position.entries == entries


@pytest.mark.parametrize("late", [1, 2])
def test_what_the_boot_log_got_after_the_quote_does_not_count(late: int) -> None:
    found = account(BITMAP, quoted(events=len(BOOT) - late), LOG, LIST)
    quoted_pcrs = [event for event in BOOT[len(BOOT) - late :] if BITMAP >> event.pcr & 1]
    assert found.surplus == len(quoted_pcrs)


def test_so_much_later_than_the_quote_no_log_is() -> None:
    longer = parse_boot_log(log(*BOOT, *(Made(14, bytes([number])) for number in range(TAIL + 1))))
    with pytest.raises(Refused) as error:
        account(BITMAP, quoted(), longer, LIST)
    assert error.value.reason is Reason.PCR_MISMATCH


def test_a_list_is_followed_from_where_it_was() -> None:
    first = account(BITMAP, quoted(entries=5), LOG, LIST)
    seen: list[Measurement] = []
    second = account(BITMAP, quoted(), LOG, LIST[first.position.offset :], first.position, seen.append)
    assert [one.number for one in seen] == list(range(5, 12))
    assert second.position.entries == 12


def test_a_list_with_something_else_in_it_is_noticed() -> None:
    other = b"".join(entry.pack() for entry in (*ENTRIES[:3], Measured("/tmp/evil"), *ENTRIES[4:]))
    with pytest.raises(Refused) as error:
        account(BITMAP, quoted(), LOG, other)
    assert error.value.reason is Reason.PCR_MISMATCH


def test_without_a_list_the_boot_log_answers_for_all() -> None:
    with pytest.raises(Refused):
        account(BITMAP, quoted(), LOG)
    without = BITMAP & ~(1 << 10)
    found = account(without, digest_of(replay(LOG), without), LOG)
    assert found.position == Position()
