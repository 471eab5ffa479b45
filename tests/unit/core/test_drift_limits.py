"""Which nodes are limited to level 1, for what others' logs say of them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core import drift_limits
from overlay.core.drift_limits import DriftLimits
from overlay.core.keys import NodeId
from overlay.registry import Reason
from tests.unit.core.authority_kit import seed

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SIGNER, FIRST, SECOND, LOW, BAD, OTHER = (NodeId(seed(name)) for name in ("signer", "one", "two", "low", "bad", "other"))
WORTH = {SIGNER: 2, FIRST: 1, SECOND: 1, LOW: 0}


def limits() -> DriftLimits:
    return DriftLimits(lambda node: WORTH.get(node, 0))


def say(found: DriftLimits, reporter: NodeId, minute: float, reason: Reason | None = Reason.PCR_MISMATCH) -> None:
    found.heard(reporter, BAD, reason, NOW + timedelta(minutes=minute), NOW + timedelta(hours=1))


def test_nobody_is_limited_without_a_word_against_it() -> None:
    found = limits()
    say(found, SIGNER, 0, None)
    assert found.limit(BAD) == 5
    assert found.limited == ()


def test_one_signer_limits_a_node() -> None:
    found = limits()
    say(found, SIGNER, 0)
    assert found.limit(BAD) == 1
    assert found.against(BAD) == {SIGNER: Reason.PCR_MISMATCH}
    assert (found.limited, found.limit(OTHER)) == ((BAD,), 5)


def test_one_node_of_level_three_does_not_and_two_do() -> None:
    found = limits()
    say(found, FIRST, 0)
    assert found.limit(BAD) == 5
    say(found, FIRST, 1)
    assert found.limit(BAD) == 5
    say(found, SECOND, 2)
    assert found.limit(BAD) == 1


def test_nodes_of_lower_levels_say_nothing_however_many_they_are() -> None:
    found = limits()
    for number in range(50):
        found.heard(NodeId(seed(str(number))), BAD, Reason.PCR_MISMATCH, NOW, NOW)
    say(found, LOW, 0)
    say(found, FIRST, 0)
    assert found.limit(BAD) == 5


def test_a_node_that_is_let_in_again_takes_its_word_back() -> None:
    found = limits()
    say(found, SIGNER, 0)
    say(found, SIGNER, 1, None)
    assert found.limit(BAD) == 5


def test_newer_good_words_worth_two_end_the_limit() -> None:
    found = limits()
    say(found, SIGNER, 5)
    say(found, FIRST, 6, None)
    assert found.limit(BAD) == 1
    say(found, SECOND, 4, None)
    assert found.limit(BAD) == 1
    say(found, SECOND, 7, None)
    assert found.limit(BAD) == 5


def test_good_words_of_nodes_that_say_nothing_end_no_limit() -> None:
    found = limits()
    say(found, SIGNER, 0)
    say(found, LOW, 1, None)
    assert found.limit(BAD) == 1


def test_words_count_by_their_time_and_not_by_when_they_come() -> None:
    found = limits()
    say(found, SIGNER, 5, None)
    say(found, SIGNER, 4)
    assert found.limit(BAD) == 5


def test_a_clock_that_is_ahead_gains_nothing() -> None:
    found = limits()
    found.heard(SIGNER, BAD, Reason.PCR_MISMATCH, NOW + timedelta(days=300), NOW)
    found.heard(FIRST, BAD, None, NOW + timedelta(seconds=1), NOW + timedelta(seconds=1))
    found.heard(SECOND, BAD, None, NOW + timedelta(seconds=2), NOW + timedelta(seconds=2))
    assert found.limit(BAD) == 5


@pytest.mark.parametrize("reason", [Reason.LEASE_EXPIRED, Reason.REVOKED, Reason.EVIDENCE_NOT_ACCEPTED, Reason.LEVEL_TOO_LOW])
def test_what_is_no_drift_limits_nobody(reason: Reason) -> None:
    found = limits()
    say(found, SIGNER, 0, reason)
    assert found.limit(BAD) == 5


def test_a_word_is_worth_what_its_author_is_now() -> None:
    worth = {SIGNER: 2}
    found = DriftLimits(lambda node: worth.get(node, 0))
    say(found, SIGNER, 0)
    worth[SIGNER] = 0
    assert found.limit(BAD) == 5


def test_of_too_many_words_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_limits, "WORDS_MAX", 2)
    found = limits()
    say(found, SIGNER, 0)
    for node in (OTHER, LOW):
        found.heard(SIGNER, node, Reason.PCR_MISMATCH, NOW, NOW)
    assert found.limited == tuple(sorted((OTHER, LOW)))
    assert found.limit(BAD) == 5


WORDS = st.tuples(st.sampled_from([SIGNER, FIRST, SECOND, LOW]), st.sampled_from([Reason.PCR_MISMATCH, None]))


@given(st.lists(WORDS, max_size=8), st.randoms())
def test_the_order_in_which_words_come_changes_nothing(words: list[tuple[NodeId, Reason | None]], shuffled: object) -> None:
    timed = [(minute, reporter, reason) for minute, (reporter, reason) in enumerate(words)]
    in_order, mixed = limits(), limits()
    for minute, reporter, reason in timed:
        say(in_order, reporter, minute, reason)
    shuffled.shuffle(timed)  # type: ignore[attr-defined]
    for minute, reporter, reason in timed:
        say(mixed, reporter, minute, reason)
    assert mixed.against(BAD) == in_order.against(BAD)
