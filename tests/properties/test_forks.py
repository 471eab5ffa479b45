"""No honest history yields a fork proof: whatever links, disks, crashes, restores and partitions do to honest nodes."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.scenario import Scenario

few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DURING = 30.0


@few
@given(
    seed=st.integers(0, 2**32), nodes=st.integers(3, 7), breaks=st.integers(0, 60), crashes=st.integers(0, 20),
    restores=st.integers(0, 3), parted=st.booleans(), commit=st.integers(1, 9),
)
def test_no_honest_history_ever_yields_a_fork_proof(
    seed: int, nodes: int, breaks: int, crashes: int, restores: int, parted: bool, commit: int
) -> None:
    with Scenario(seed, nodes=nodes, degree=4).told() as scenario:
        if parted:
            scenario.part_in_halves()
        scenario.trouble(breaks=breaks, crashes=crashes, restores=restores, during=DURING)
        scenario.write(20 * commit, commit=commit, during=DURING)
        scenario.heal()
        scenario.all_is_complete(within=120)
        scenario.nobody_is_blamed()
        scenario.no_two_statements_contradict()
