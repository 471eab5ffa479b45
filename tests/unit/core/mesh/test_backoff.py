"""Decorrelated jitter between a quarter of a second and a minute."""

from hypothesis import given
from hypothesis import strategies as st

from overlay.core.mesh.backoff import Backoff


def test_the_first_dial_comes_soon() -> None:
    assert Backoff().wait == 0.25


def test_the_wait_grows_at_most_threefold_up_to_a_minute() -> None:
    waits = [Backoff()]
    for _ in range(8):
        waits.append(waits[-1].failed(0.999999))
    assert [round(one.wait, 2) for one in waits] == [0.25, 0.75, 2.25, 6.75, 20.25, 60.0, 60.0, 60.0, 60.0]


def test_a_lucky_number_brings_it_back_to_the_least() -> None:
    assert Backoff(60.0).failed(0.0) == Backoff()


@given(st.lists(st.floats(0.0, 1.0, exclude_max=True), max_size=50))
def test_it_stays_between_its_bounds(fractions: list[float]) -> None:
    backoff = Backoff()
    for fraction in fractions:
        backoff = backoff.failed(fraction)
        assert 0.25 <= backoff.wait <= 60.0
