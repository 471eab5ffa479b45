"""Who witnesses a log: all of few, five of many, and enough of them that two groups share an honest one."""

from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest

from audit.quorum import ALL_UP_TO, OF_MANY, WitnessSet, choose, day_of, is_timely, witness_set
from overlay.core.keys import MeshId, NodeId

MESH = MeshId(bytes(32))
NODES = [NodeId(bytes([number]) * 32) for number in range(1, 21)]
AUTHOR = NODES[0]


def members(count: int, **roles: tuple[str, ...]) -> dict[NodeId, tuple[str, ...]]:
    return {node: roles.get(f"n{index}", ("worker",)) for index, node in enumerate(NODES[: count + 1])}


def test_the_table_of_quorums() -> None:
    assert [WitnessSet(tuple(NODES[:w])).needed for w in range(8)] == [0, 1, 2, 2, 3, 4, 4, 5]
    assert [WitnessSet(tuple(NODES[:w])).tolerated for w in range(8)] == [0, 0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("w", range(1, 8))
def test_two_quorums_share_more_witnesses_than_lie(w: int) -> None:
    one = WitnessSet(tuple(NODES[:w]))
    groups = list(combinations(one.nodes, one.needed))
    assert min(len(set(first) & set(second)) for first in groups for second in groups) > one.tolerated


def test_all_of_few_members_are_witnesses_and_the_author_is_none() -> None:
    assert choose(MESH, AUTHOR, members(0), 1) == WitnessSet()
    assert choose(MESH, AUTHOR, members(ALL_UP_TO), 1).nodes == tuple(NODES[1 : ALL_UP_TO + 1])


def test_of_many_five_are_chosen_for_each_author_and_day() -> None:
    many = members(15)
    assert {len(choose(MESH, AUTHOR, many, day).nodes) for day in range(20)} == {OF_MANY}
    assert choose(MESH, AUTHOR, many, 1) == choose(MESH, AUTHOR, dict(reversed(many.items())), 1)
    assert len({choose(MESH, AUTHOR, many, day) for day in range(20)}) > 10
    assert len({choose(MESH, author, many, 1) for author in NODES[:10]}) > 5
    assert choose(MESH, AUTHOR, many, 1) != choose(MeshId(bytes([1]) * 32), AUTHOR, many, 1)


def test_where_somebody_has_the_role_only_those_are_witnesses() -> None:
    assert choose(MESH, AUTHOR, members(9, n0=("witness",), n3=("witness",), n4=("signer", "witness")), 1).nodes == (
        NODES[3], NODES[4],
    )  # fmt: skip


def test_it_is_witnessed_when_the_last_one_needed_has_cosigned() -> None:
    one = WitnessSet(tuple(NODES[:3]))
    assert one.reached_at({}) is None
    assert one.reached_at({NODES[0]: 10}) is None
    assert one.reached_at({NODES[0]: 10, NODES[7]: 5}) is None
    assert one.reached_at({NODES[0]: 10, NODES[7]: 5, NODES[2]: 12}) == 12
    assert one.reached_at({NODES[0]: 10, NODES[1]: 99, NODES[2]: 12}) == 12
    assert WitnessSet().reached_at({NODES[0]: 1}) is None


def test_a_set_is_read_without_doubles_and_in_order() -> None:
    assert witness_set([NODES[2], NODES[1], NODES[2]]).nodes == (NODES[1], NODES[2])


def test_what_people_read() -> None:
    assert WitnessSet(tuple(NODES[:2])).sentence(2) == "2 of 2, tolerates 0 liars"
    assert WitnessSet(tuple(NODES[:5])).sentence(4) == "4 of 5, tolerates 1 liar"
    assert WitnessSet().sentence(0) == "no witnesses"


def test_timely_is_up_to_ten_minutes_after_the_end_of_the_endorsement() -> None:
    end = datetime(2026, 3, 1, tzinfo=UTC)
    last = int((end + timedelta(minutes=10)).timestamp())
    assert is_timely(last, end) and not is_timely(last + 1, end) and not is_timely(None, end)
    assert day_of(end) == last // 86_400
