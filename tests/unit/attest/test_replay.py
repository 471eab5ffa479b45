"""From events to PCRs, and to what was quoted: every change of a log shows."""

import pytest

from attest.event_log import EV_NO_ACTION, parse_boot_log
from attest.replay import ONES, digest_of, initial, meet, replay, separators_missing
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.attest.event_log_kit import BOOT, Made, locality, log, separator

BITMAP = 0x41FF  # PCRs 0 to 8 and 14
LOG = parse_boot_log(log(*BOOT))
QUOTED = digest_of(replay(LOG), BITMAP)


def mismatch(*events: Made, quoted: bytes = QUOTED) -> None:
    with pytest.raises(Refused) as error:
        meet(parse_boot_log(log(*events)), BITMAP, quoted)
    assert error.value.reason is Reason.PCR_MISMATCH


def test_a_pcr_is_the_hash_of_what_it_was_and_of_what_came() -> None:
    first = sha256(bytes(32) + sha256(b"firmware 1"))
    assert replay(LOG)[0] == sha256(first + sha256(bytes(4)))
    assert replay(LOG)[23] == bytes(32)
    assert replay(LOG)[17] == ONES


def test_a_log_meets_the_quote_of_its_machine() -> None:
    found = meet(LOG, BITMAP, QUOTED)
    assert (found.surplus, len(found.events)) == (0, len(BOOT))
    assert found.values == replay(LOG)


def test_events_after_the_quote_do_not_count() -> None:
    found = meet(parse_boot_log(log(*BOOT, Made(4, b"later"), Made(8, b"still later"))), BITMAP, QUOTED)
    assert (found.surplus, len(found.events)) == (2, len(BOOT))
    assert found.values[4] == replay(LOG)[4]


def test_events_of_pcrs_that_were_not_quoted_are_not_believed() -> None:
    found = meet(parse_boot_log(log(Made(12, b"anything"), *BOOT)), BITMAP, QUOTED)
    assert b"anything" not in [event.data for event in found.events]


@pytest.mark.parametrize("missing", range(len(BOOT)))
def test_an_event_left_out_is_noticed(missing: int) -> None:
    mismatch(*BOOT[:missing], *BOOT[missing + 1 :])


def test_events_of_one_pcr_in_another_order_are_noticed() -> None:
    shim, grub = BOOT.index(Made(4, b"shim")), BOOT.index(Made(4, b"grub"))
    other = list(BOOT)
    other[shim], other[grub] = other[grub], other[shim]
    mismatch(*other)


def test_an_event_put_in_is_noticed() -> None:
    mismatch(Made(0, b"something else"), *BOOT)


def test_an_event_with_another_digest_is_noticed_and_with_other_data_it_is_not() -> None:
    mismatch(Made(0, b"firmware 1", digest=sha256(b"firmware 2")), *BOOT[1:])
    lying = parse_boot_log(log(Made(0, b"firmware 2", digest=sha256(b"firmware 1")), *BOOT[1:]))
    assert meet(lying, BITMAP, QUOTED).surplus == 0


def test_an_event_hidden_as_a_note_is_noticed() -> None:
    mismatch(Made(0, b"firmware 1", EV_NO_ACTION, sha256(b"firmware 1")), *BOOT[1:])


def test_another_locality_at_the_start_is_another_pcr_0() -> None:
    with_locality = parse_boot_log(log(locality(3), *BOOT))
    assert replay(with_locality)[0] == sha256(sha256(bytes(31) + b"\x03" + sha256(b"firmware 1")) + sha256(bytes(4)))
    mismatch(locality(3), *BOOT)


def test_an_empty_log_meets_a_tpm_that_was_just_started() -> None:
    empty = parse_boot_log(log())
    assert meet(empty, BITMAP, digest_of(initial(0), BITMAP)).events == ()
    mismatch()


def test_a_dynamic_pcr_begins_with_its_launch() -> None:
    launched = parse_boot_log(log(Made(17, b"a kernel")))
    assert replay(launched)[17] == sha256(bytes(32) + sha256(b"a kernel"))
    assert replay(launched)[18] == ONES


def test_pcrs_that_another_log_accounts_for_are_given() -> None:
    values = {10: sha256(b"ima")}
    quoted = digest_of({**replay(LOG), **values}, BITMAP | 1 << 10)
    assert meet(LOG, BITMAP | 1 << 10, quoted, values).surplus == 0
    with pytest.raises(Refused):
        meet(LOG, BITMAP | 1 << 10, quoted)


def test_a_firmware_that_does_not_close_its_pcrs_is_seen() -> None:
    assert separators_missing(LOG.events) == ()
    open_end = tuple(event for event in BOOT if event != separator(7))
    assert separators_missing(parse_boot_log(log(*open_end)).events) == (7,)
    error = (*open_end, separator(7, b"\x01\0\0\0"))  # the firmware's word for an error
    assert separators_missing(parse_boot_log(log(*error)).events) == (7,)
