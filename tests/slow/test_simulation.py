"""A large world: a hundred nodes, parted in halves for ten thousand entries. What is measured is printed."""

import time

import pytest

from tests.simulation.scenario import Scenario

pytestmark = pytest.mark.slow
NODES = 100
LINKS = 8  # of each node, about: none has a link to all others
ENTRIES = 10_000
LASTS = 120.0  # seconds of one core: nothing here waits
SHARE = 1.3  # of the bytes of the entries that came


def test_a_hundred_nodes_parted_for_ten_thousand_entries_are_complete_again() -> None:
    began = time.process_time()
    with Scenario(1, nodes=NODES, degree=LINKS).told() as scenario:
        scenario.settle_down()
        scenario.part_in_halves()
        scenario.write(ENTRIES, commit=25)
        scenario.world.run(5)
        traffic, held = scenario.traffic(), scenario.held()
        scenario.heal()
        scenario.all_is_complete(within=60)
        share = (scenario.traffic() - traffic) / (scenario.held() - held)
        took = time.process_time() - began
        print(f"{share:.2f} x the bytes of the entries, {took:.0f} s")
        scenario.nobody_is_blamed()
    assert share <= SHARE
    assert took <= LASTS


@pytest.mark.parametrize("seed", range(100, 120))
def test_many_worlds_of_trouble(seed: int) -> None:
    with Scenario(seed, nodes=16, degree=4).told() as scenario:
        scenario.settle_down()
        forkers = scenario.fork(2)
        scenario.part_in_halves()
        scenario.trouble(breaks=100, crashes=12, restores=3, during=60)
        scenario.write(600, commit=5, during=60)
        scenario.heal()
        scenario.exposed_everywhere(forkers, within=120)
        scenario.all_is_complete(within=120)
        scenario.nobody_is_blamed(but=forkers)
