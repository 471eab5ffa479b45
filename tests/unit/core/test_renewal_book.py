"""What a signer agrees to renew: each certificate once, a retry at any time, and anew only what it has not promised."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core import renewal_book as module
from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificate_request import build_request
from overlay.core.certificates import VerifiedCertificate
from overlay.core.grace import GraceTimes
from overlay.core.join_frames import Renewal
from overlay.core.keys import Ed25519Signer
from overlay.core.renewal import begin_attempt, check_grace
from overlay.core.renewal_book import BOOK_BYTES_MAX, BOOK_MAX, RenewalBook
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import DAY, HOUR, make_member, make_mesh

MESH = make_mesh("renewal")
ALICE = make_member(MESH, "alice", facts=LeafFacts(roles=("worker",)), tpm_like=True)
BOB = make_member(MESH, "bob")
OLD = ALICE.peer.certificate
END = OLD.not_after
AT = OLD.not_before + 16 * HOUR
CSR = build_request(ALICE.signer, "alice")
RENEWAL = Renewal(csr=CSR, serial=OLD.serial, not_before=AT)
SECOND = timedelta(seconds=1)
FIVE_MINUTES = timedelta(minutes=5)
OFFICE = GraceTimes(members=frozenset({OLD.node_id}))


def reason_of(question: object) -> Reason:
    with pytest.raises(Refused) as refusal:
        question()  # type: ignore[operator]
    return refusal.value.reason


def renewal_of_bob() -> Renewal:
    return Renewal(csr=build_request(BOB.signer, "bob"), serial=BOB.peer.certificate.serial, not_before=AT)


def after(old: VerifiedCertificate, begun: datetime) -> VerifiedCertificate:
    """The node's next certificate."""
    return replace(old, serial=old.serial + 1, not_before=begun, not_after=begun + DAY)


def renewing(old: VerifiedCertificate, at: datetime) -> Renewal:
    return Renewal(csr=CSR, serial=old.serial, not_before=at)


def test_a_retry_leaves_the_book_as_it_is() -> None:
    book = RenewalBook().bind(OLD, RENEWAL, AT)
    assert book.bind(OLD, RENEWAL, AT) is book
    assert book.bind(OLD, RENEWAL, AT + 10 * DAY) is book  # the other signers may have been away


def test_another_request_for_a_serial_is_a_second_machine() -> None:
    book = RenewalBook().bind(OLD, RENEWAL, AT)
    another = replace(RENEWAL, csr=build_request(ALICE.signer, "alice-2"))
    assert reason_of(lambda: book.bind(OLD, another, AT, promised=False)) is Reason.CLONED_IDENTITY


def test_another_time_for_a_serial_is_a_second_machine() -> None:
    book = RenewalBook().bind(OLD, RENEWAL, AT)
    moved = replace(RENEWAL, not_before=AT + SECOND)
    assert reason_of(lambda: book.bind(OLD, moved, AT, promised=False)) is Reason.CLONED_IDENTITY


def test_an_attempt_that_led_to_nothing_may_be_begun_anew_when_its_certificate_would_have_ended() -> None:
    book = RenewalBook().bind(OLD, RENEWAL, AT)
    later = AT + DAY
    fresh = renewing(OLD, later)
    assert reason_of(lambda: book.bind(OLD, fresh, later - SECOND, promised=False)) is Reason.CLONED_IDENTITY
    moved = book.bind(OLD, fresh, later, promised=False)
    assert moved.bind(OLD, fresh, later + HOUR, promised=False) is moved
    assert reason_of(lambda: moved.bind(OLD, RENEWAL, later, promised=False)) is Reason.CLONED_IDENTITY


def test_an_attempt_to_which_a_share_was_promised_is_never_begun_anew() -> None:
    """Its certificate may be there: with a second one two machines could go on under one identity."""
    book = RenewalBook().bind(OLD, RENEWAL, AT)
    late = AT + 10 * DAY
    assert reason_of(lambda: book.bind(OLD, renewing(OLD, late), late)) is Reason.CLONED_IDENTITY
    assert reason_of(lambda: book.bind(OLD, renewing(OLD, late), late, promised=True)) is Reason.CLONED_IDENTITY


def test_two_machines_that_begin_anew_are_noticed_as_on_the_first_day() -> None:
    book, late = RenewalBook().bind(OLD, RENEWAL, AT), AT + 2 * DAY
    book = book.bind(OLD, renewing(OLD, late), late, promised=False)
    assert reason_of(lambda: book.bind(OLD, renewing(OLD, late + HOUR), late + HOUR, promised=False)) is Reason.CLONED_IDENTITY


def test_a_copy_from_before_a_renewal_is_a_second_machine_also_to_who_was_not_asked_for_that_one() -> None:
    second = after(OLD, AT)
    book = RenewalBook().bind(second, renewing(second, AT + 16 * HOUR), AT + 16 * HOUR)
    late = AT + 3 * DAY
    assert reason_of(lambda: book.bind(OLD, renewing(OLD, late), late, promised=False)) is Reason.CLONED_IDENTITY
    same = replace(second, serial=second.serial + 1)
    assert reason_of(lambda: book.bind(same, renewing(same, late), late, promised=False)) is Reason.CLONED_IDENTITY


def test_a_node_renews_its_next_certificate_and_needs_no_second_row() -> None:
    book, certificate, at = RenewalBook(), OLD, AT
    for _ in range(5):
        book = book.bind(certificate, renewing(certificate, at), at)
        certificate, at = after(certificate, at), at + 16 * HOUR
    assert len(book.replaced) == 1


def test_the_book_that_refuses_is_still_the_same() -> None:
    book = RenewalBook().bind(OLD, RENEWAL, AT)
    before = book.pack()
    reason_of(lambda: book.bind(OLD, replace(RENEWAL, not_before=AT + SECOND), AT))
    assert book.pack() == before


def test_another_node_has_its_own_row() -> None:
    book = RenewalBook().bind(OLD, RENEWAL, AT).bind(BOB.peer.certificate, renewal_of_bob(), AT)
    assert len(book.replaced) == 2


def test_nobody_is_renewed_from_a_time_to_come() -> None:
    RenewalBook().bind(OLD, RENEWAL, AT - FIVE_MINUTES)
    assert reason_of(lambda: RenewalBook().bind(OLD, RENEWAL, AT - FIVE_MINUTES - SECOND)) is Reason.CLOCK


def test_a_signer_that_was_away_binds_what_others_have_bound_before() -> None:
    RenewalBook().bind(OLD, RENEWAL, AT + 5 * DAY)


def test_a_node_is_forgotten_only_when_it_is_beyond_every_grace() -> None:
    book = RenewalBook().bind(OLD, RENEWAL, AT)
    other, last = BOB.peer.certificate, END + timedelta(days=90)
    kept = book.bind(other, replace(renewal_of_bob(), not_before=last), last + FIVE_MINUTES)
    assert OLD.node_id in kept.replaced
    assert reason_of(lambda: check_grace(OFFICE, OLD, last + 2 * FIVE_MINUTES, 0.0)) is Reason.NO_GRACE
    gone = book.bind(other, replace(renewal_of_bob(), not_before=last), last + 2 * FIVE_MINUTES + SECOND)
    assert OLD.node_id not in gone.replaced


def test_a_certificate_that_lives_longer_than_the_one_after_it_is_remembered_as_long_as_it_could_be_renewed() -> None:
    long, other = replace(OLD, not_after=OLD.not_before + 7 * DAY), BOB.peer.certificate
    short = after(OLD, OLD.not_before + HOUR)
    book = RenewalBook().bind(long, renewing(long, short.not_before), short.not_before)
    book = book.bind(short, renewing(short, AT), AT)
    last = long.not_after + timedelta(days=90)
    assert OLD.node_id in book.bind(other, replace(renewal_of_bob(), not_before=last), last).replaced


def test_a_mesh_with_a_longer_grace_remembers_longer() -> None:
    year, other = GraceTimes(with_file=timedelta(days=365)), BOB.peer.certificate
    book, late = RenewalBook().bind(OLD, RENEWAL, AT, year), END + timedelta(days=200)
    assert OLD.node_id in book.bind(other, replace(renewal_of_bob(), not_before=late), late, year).replaced


def test_a_full_book_takes_no_more_nodes_and_goes_on_with_those_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BOOK_MAX", 1)
    book = RenewalBook().bind(OLD, RENEWAL, AT)
    assert reason_of(lambda: book.bind(BOB.peer.certificate, renewal_of_bob(), AT)) is Reason.TOO_MANY
    assert book.bind(OLD, RENEWAL, AT) is book
    second = after(OLD, AT)
    assert len(book.bind(second, renewing(second, AT + HOUR), AT + HOUR).replaced) == 1


def test_what_another_authority_has_begun_is_free_and_what_is_older_is_not() -> None:
    second = after(OLD, AT)
    book = RenewalBook().bind(second, renewing(second, AT + HOUR), AT + HOUR).without({second.serial})
    late = AT + 2 * HOUR
    assert reason_of(lambda: book.bind(OLD, renewing(OLD, late), late)) is Reason.CLONED_IDENTITY
    again = RenewalBook.unpack(book.pack()).bind(second, renewing(second, late), late)
    assert reason_of(lambda: again.bind(second, renewing(second, AT + HOUR), late)) is Reason.CLONED_IDENTITY


def test_a_book_is_read_as_it_was_written() -> None:
    book = RenewalBook().bind(OLD, RENEWAL, AT).bind(BOB.peer.certificate, renewal_of_bob(), AT)
    again = RenewalBook.unpack(book.pack())
    assert again == book
    assert reason_of(lambda: again.bind(OLD, replace(RENEWAL, not_before=AT + SECOND), AT)) is Reason.CLONED_IDENTITY
    assert RenewalBook.unpack(RenewalBook().pack()) == RenewalBook()


def test_a_full_book_fits_into_its_bytes() -> None:
    row = [bytes(32), bytes(20), 2**40, bytes(32), 2**40, 2**40]
    assert (len(make_map([row, row])) - len(make_map([row]))) * BOOK_MAX + 64 <= BOOK_BYTES_MAX


ROW = [bytes(32), bytes(20), 1, bytes(32), 2, 3]


@pytest.mark.parametrize(
    "rows",
    [
        [ROW, ROW],
        [[bytes([2] * 32), *ROW[1:]], [bytes([1] * 32), *ROW[1:]]],
        [[bytes(31), *ROW[1:]]],
        [[bytes(32), bytes(19), *ROW[2:]]],
        [[*ROW[:3], bytes(31), 2, 3]],
        [ROW[:-1]],
    ],
)
def test_a_book_of_another_form_is_refused(rows: list[object]) -> None:
    assert reason_of(lambda: RenewalBook.unpack(make_map(rows))) is Reason.MALFORMED


@given(st.binary(max_size=200))
def test_any_bytes_are_no_book(data: bytes) -> None:
    assert isinstance(reason_of(lambda: RenewalBook.unpack(data)), Reason)


def test_a_copied_identity_that_renews_too_is_noticed_whoever_comes_first() -> None:
    node = begin_attempt(None, OLD, lambda: CSR, AT)
    thief = begin_attempt(None, OLD, lambda: build_request(ALICE.signer, "alice"), AT + HOUR)
    for first, second in ((node, thief), (thief, node)):
        book = RenewalBook().bind(OLD, first.renewal, AT + HOUR)
        assert reason_of(lambda: book.bind(OLD, second.renewal, AT + HOUR)) is Reason.CLONED_IDENTITY  # noqa: B023


def test_a_file_key_has_the_same_rules() -> None:
    assert isinstance(BOB.signer, Ed25519Signer)
    book = RenewalBook().bind(BOB.peer.certificate, renewal_of_bob(), AT)
    later = replace(renewal_of_bob(), not_before=AT + SECOND)
    assert reason_of(lambda: book.bind(BOB.peer.certificate, later, AT)) is Reason.CLONED_IDENTITY
