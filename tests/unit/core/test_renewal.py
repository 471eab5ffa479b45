"""Renewing: when, how long after the end, and what a node asks for."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificate_request import build_request
from overlay.core.certificates import VerifiedCertificate, verify_leaf
from overlay.core.grace import GraceTimes
from overlay.core.join_frames import Renewal
from overlay.core.renewal import (
    MERGED_WITHIN,
    Attempt,
    RenewalApproval,
    begin_attempt,
    check_grace,
    check_renewal,
    due_at,
)
from overlay.core.renewal_book import USUAL, RenewalBook
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import DAY, HOUR, NOW, P256Signer, make_member, make_mesh, seed

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


def reason_of(question: object) -> Reason:
    with pytest.raises(Refused) as refusal:
        question()  # type: ignore[operator]
    return refusal.value.reason


def test_a_certificate_is_renewed_at_two_thirds_of_its_life() -> None:
    assert due_at(NOW, NOW + DAY) == NOW + 16 * HOUR
    assert due_at(NOW, NOW + 3 * DAY) == NOW + 2 * DAY


# --- grace ------------------------------------------------------------------------------------------------------------


def of_level(level: int) -> VerifiedCertificate:
    return replace(OLD, facts=replace(OLD.facts, level=level))


OFFICE = GraceTimes(members=frozenset({OLD.node_id}))


@pytest.mark.parametrize(
    ("grace", "level", "length"),
    [
        (USUAL, 0, timedelta(0)),
        (USUAL, 1, timedelta(hours=72)),
        (USUAL, 2, timedelta(days=30)),
        (USUAL, 4, timedelta(days=30)),
        (OFFICE, 1, timedelta(days=90)),
        (OFFICE, 4, timedelta(days=90)),
    ],
)
def test_grace_lasts_as_long_as_the_key_and_the_office_deserve(grace: GraceTimes, level: int, length: timedelta) -> None:
    old, last = of_level(level), END + length + FIVE_MINUTES
    check_grace(grace, old, last, 0.0)
    assert reason_of(lambda: check_grace(grace, old, last + SECOND, 0.0)) is Reason.NO_GRACE


def test_before_the_end_nobody_asks_for_merged_trust_sets() -> None:
    check_grace(USUAL, OLD, END, None)
    check_grace(USUAL, OLD, END + FIVE_MINUTES, None)


@pytest.mark.parametrize("age", [None, MERGED_WITHIN + 1, -1.0])
def test_after_the_end_the_signers_must_have_merged_their_trust_sets_lately(age: float | None) -> None:
    after = END + HOUR
    check_grace(USUAL, OLD, after, MERGED_WITHIN)
    assert reason_of(lambda: check_grace(USUAL, OLD, after, age)) is Reason.NO_GRACE


# --- what a signer would sign -----------------------------------------------------------------------------------------


def check(renewal: Renewal = RENEWAL, old: VerifiedCertificate = OLD) -> RenewalApproval:
    return check_renewal(renewal, old, facts=OLD.facts, grace=USUAL, merged_age=None, at=AT)


def test_a_renewal_leads_to_the_same_bytes_at_every_signer_and_every_time() -> None:
    again = check_renewal(RENEWAL, OLD, facts=OLD.facts, grace=USUAL, merged_age=1.0, at=END + HOUR)
    assert check().to_be_signed(MESH.root.issuer) == again.to_be_signed(MESH.root.issuer)


def test_the_new_certificate_is_the_old_one_with_another_life() -> None:
    approval = check()
    leaf = MESH.authority.issue(
        approval.request, name=approval.name, facts=approval.facts, not_before=approval.not_before,
        not_after=approval.not_before + DAY,
    )
    assert approval.to_be_signed(MESH.root.issuer) in leaf
    new = verify_leaf(leaf, (), MESH.root, AT)
    assert (new.node_id, new.name, new.facts) == (OLD.node_id, OLD.name, OLD.facts)
    assert new.serial != OLD.serial == approval.replaces


def test_a_node_renews_only_itself() -> None:
    other = replace(RENEWAL, csr=build_request(BOB.signer, "alice"))
    assert reason_of(lambda: check(other)) is Reason.WRONG_AUTHOR


def test_the_certificate_that_was_shown_is_the_one_to_be_replaced() -> None:
    assert reason_of(lambda: check(replace(RENEWAL, serial=BOB.peer.certificate.serial))) is Reason.NOT_ALLOWED


def test_a_new_certificate_begins_after_the_old_one() -> None:
    assert reason_of(lambda: check(replace(RENEWAL, not_before=OLD.not_before))) is Reason.NOT_ALLOWED
    check(replace(RENEWAL, not_before=OLD.not_before + SECOND))


def test_a_request_that_its_key_has_not_signed_is_refused() -> None:
    assert reason_of(lambda: check(replace(RENEWAL, csr=CSR[:-1] + bytes([CSR[-1] ^ 1])))) is Reason.BAD_CERTIFICATE


def test_who_is_out_of_grace_is_not_renewed() -> None:
    late = END + timedelta(days=4)
    refused = reason_of(
        lambda: check_renewal(RENEWAL, OLD, facts=OLD.facts, grace=USUAL, merged_age=0.0, at=late)
    )
    assert refused is Reason.NO_GRACE
    check_renewal(RENEWAL, of_level(2), facts=OLD.facts, grace=USUAL, merged_age=0.0, at=late)


# --- the node's part --------------------------------------------------------------------------------------------------


def test_an_attempt_is_kept_until_it_has_succeeded() -> None:
    first = begin_attempt(None, OLD, lambda: CSR, AT)
    kept = Attempt.unpack(first.pack())
    again = begin_attempt(kept, OLD, lambda: build_request(P256Signer(seed("other")), "alice"), AT + HOUR)
    assert again == first
    assert again.renewal == RENEWAL


def test_the_next_certificate_gets_an_attempt_of_its_own() -> None:
    kept = begin_attempt(None, BOB.peer.certificate, lambda: b"old", AT)
    assert begin_attempt(kept, OLD, lambda: CSR, AT + SECOND / 2).renewal == RENEWAL


def test_a_node_that_was_cut_off_in_the_middle_of_a_renewal_for_a_week_comes_back() -> None:
    """What its first attempt leads to has ended by then: it begins anew, and only who has promised its share keeps to it."""
    attempt = begin_attempt(None, OLD, lambda: CSR, AT)
    book = RenewalBook().bind(OLD, attempt.renewal, AT)
    stored = Attempt.unpack(attempt.pack())
    assert begin_attempt(stored, OLD, lambda: b"never made", AT + DAY + FIVE_MINUTES - SECOND) == attempt
    assert begin_attempt(stored, OLD, lambda: CSR, AT + DAY + FIVE_MINUTES) != attempt
    later = AT + 7 * DAY
    fresh = begin_attempt(stored, OLD, lambda: CSR, later)
    assert fresh.not_before == later
    check_renewal(fresh.renewal, of_level(2), facts=of_level(2).facts, grace=USUAL, merged_age=0.0, at=later)
    book.bind(OLD, fresh.renewal, later, promised=False)
    assert reason_of(lambda: book.bind(OLD, fresh.renewal, later, promised=True)) is Reason.CLONED_IDENTITY


@given(st.binary(max_size=200))
def test_any_bytes_are_no_attempt(data: bytes) -> None:
    assert isinstance(reason_of(lambda: Attempt.unpack(data)), Reason)
