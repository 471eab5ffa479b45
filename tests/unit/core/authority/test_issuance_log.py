"""A certificate that too few signers have written down is told of: once, after ten minutes, and whatever others write."""

from overlay.core.authority.issuance_log import ISSUED_MAX, LOGGED_WITHIN, IssuanceLog, Issued, Unlogged
from overlay.core.keys import NodeId

ONE, TWO, THREE, DAVE = (NodeId(bytes([number]) * 32) for number in range(1, 5))
SIGNERS = frozenset({ONE, TWO, THREE})
CARD = Issued(b"s" * 20, b"c" * 32)
SHOWN = {CARD: (DAVE, "dave")}


def log(*authors: NodeId, issued: Issued = CARD) -> IssuanceLog:
    found = IssuanceLog()
    found.shown(SHOWN, 0.0)
    for author in authors:
        found.entry(author, issued)
    return found


def test_a_certificate_that_too_few_have_logged_is_told_of_after_ten_minutes_and_once() -> None:
    found = log(ONE)
    assert found.deadline == LOGGED_WITHIN == 600.0
    assert found.tick(SIGNERS, 2, 599.9) == []
    assert found.tick(SIGNERS, 2, 600.0) == [Unlogged(CARD, DAVE, "dave", 1, 2)]
    assert found.tick(SIGNERS, 2, 700.0) == []


def test_a_certificate_in_enough_logs_is_good_however_late_they_come() -> None:
    found = log()
    found.entry(THREE, CARD)
    found.entry(ONE, CARD)
    found.shown(SHOWN, 500.0)
    assert found.tick(SIGNERS, 2, 600.0) == []


def test_what_others_than_signers_write_does_not_count() -> None:
    assert log(DAVE, NodeId(b"9" * 32), ONE).tick(SIGNERS, 2, 600.0)


def test_what_one_signer_writes_twice_counts_once() -> None:
    assert log(ONE, ONE).tick(SIGNERS, 2, 600.0)


def test_an_entry_about_another_content_under_the_same_serial_does_not_count() -> None:
    assert log(ONE, TWO, issued=Issued(CARD.serial, b"d" * 32)).tick(SIGNERS, 2, 600.0)


def test_a_certificate_that_comes_back_has_its_time_anew() -> None:
    found = log()
    found.shown({}, 100.0)
    found.shown(SHOWN, 200.0)
    assert found.tick(SIGNERS, 2, 700.0) == []
    assert found.tick(SIGNERS, 2, 800.0)


def test_of_very_many_the_newest_are_kept() -> None:
    found = log(ONE, TWO)
    for number in range(ISSUED_MAX):
        found.entry(ONE, Issued(number.to_bytes(20, "big"), bytes(32)))
    assert found.logs(CARD, SIGNERS) == 0
    assert found.logs(Issued((ISSUED_MAX - 1).to_bytes(20, "big"), bytes(32)), SIGNERS) == 1
