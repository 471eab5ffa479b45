"""Small worlds: whatever breaks, honest logs come to be complete everywhere, forks are exposed, and honest nodes never are."""

from copy import deepcopy

import pytest

from tests.simulation.scenario import Scenario


@pytest.mark.parametrize("seed", range(4))
def test_all_logs_are_complete_everywhere_after_a_partition_has_healed(seed: int) -> None:
    with Scenario(seed, nodes=12, degree=4).told() as scenario:
        scenario.settle_down()
        scenario.part_in_halves()
        scenario.write(600, commit=10)
        scenario.heal()
        scenario.all_is_complete(within=60)
        scenario.nobody_is_blamed()


@pytest.mark.parametrize("seed", range(4))
def test_links_that_break_and_nodes_that_crash_lose_nothing_and_make_nobody_suspect(seed: int) -> None:
    with Scenario(seed, nodes=10, degree=4).told() as scenario:
        scenario.trouble(breaks=120, crashes=15, restores=3, during=60)
        scenario.write(300, commit=5, during=60)
        scenario.heal()
        scenario.all_is_complete(within=120)
        scenario.nobody_is_blamed()


@pytest.mark.parametrize("seed", range(4))
def test_every_fork_whose_branches_reached_honest_nodes_is_exposed_everywhere(seed: int) -> None:
    with Scenario(seed, nodes=14, degree=4).told() as scenario:
        scenario.settle_down()
        forkers = scenario.fork(2)
        scenario.trouble(breaks=40, crashes=4, restores=1, during=30)
        scenario.write(300, commit=5, during=30)
        scenario.heal()
        scenario.exposed_everywhere(forkers, within=90)
        scenario.all_is_complete(within=60)
        scenario.nobody_is_blamed(but=forkers)


def test_a_folder_that_was_put_back_by_hand_forks_and_is_exposed() -> None:
    """Without witnesses to ask it goes on where the old copy ends. So the promises above are not empty."""
    with Scenario(3, nodes=6, degree=4).told() as scenario:
        scenario.settle_down()
        node, old = scenario.nodes[0], deepcopy(scenario.nodes[0].disk)
        node.write(5)
        scenario.world.run(5)
        node.lies = True
        node.put_back(old)
        scenario.exposed_everywhere([node.node_id], within=30)
        scenario.nobody_is_blamed(but=[node.node_id])


def test_a_run_follows_from_its_seed_and_a_failing_one_prints_it() -> None:
    def play() -> dict[str, int]:
        scenario = Scenario(7, nodes=6, degree=3)
        scenario.write(60, commit=3, during=5)
        scenario.world.run(20)
        return {frame.name: size for frame, size in scenario.world.sent.items()}

    assert play() == play()
    with pytest.raises(AssertionError) as failed, Scenario(7, nodes=3, degree=2).told():
        raise AssertionError
    assert failed.value.__notes__ == ["seed 7, at 0.000 s of the simulation"]
