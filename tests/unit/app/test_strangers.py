"""What strangers leave in a log, whatever they try: two entries a minute."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from overlay.app.chronicle import OTHERS, summed
from overlay.registry import Reason


def test_the_most_frequent_reason_stands_alone_and_all_others_together() -> None:
    counts = Counter({Reason.BAD_GATE: 900, Reason.MALFORMED: 30, Reason.BUSY: 5})
    assert summed(counts) == [(Reason.BAD_GATE, 900), (OTHERS, 35)]
    assert summed(Counter({Reason.BUSY: 2})) == [(Reason.BUSY, 2)]
    assert summed(Counter()) == []


@given(st.dictionaries(st.sampled_from(list(Reason)), st.integers(1, 10**9)))
def test_no_more_than_two_entries_and_nobody_is_forgotten(counts: dict[Reason, int]) -> None:
    found = summed(Counter(counts))
    assert len(found) <= 2
    assert sum(count for _, count in found) == sum(counts.values())
