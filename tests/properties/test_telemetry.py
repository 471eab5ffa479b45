"""Nothing unverified is ever in a sum, whatever comes in whatever order. Values are powers of two: a sum says what is in it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.telemetry.batch import parse_batch
from overlay.core.telemetry.events import Counted
from overlay.core.telemetry.records import Kind, pack_record
from overlay.registry import Reason
from tests.unit.core.authority_kit import Member, make_member
from tests.unit.core.telemetry.telemetry_kit import ALICE, BOB, LOAD, MESH, World, cut, forged, sender, with_records

MALLORY = make_member(MESH, "mallory")  # a member below the level
BATCHES = 12
LIE = pack_record(LOAD.pack(), Kind.GAUGE, 2.0**40, 0)


def genuine(member: Member, level: int) -> list[bytes]:
    """Batches of two records each: 1, 2 | 4, 8 | 16, 32 | ..."""
    one = sender(member, stream=bytes([level]) * 16)
    return [cut(one, 4.0**number, 2 * 4.0**number) for number in range(BATCHES)]


GOOD = {ALICE.node_id: genuine(ALICE, 1), BOB.node_id: genuine(BOB, 2), MALLORY.node_id: genuine(MALLORY, 3)}
MEMBERS = {member.node_id: member for member in (ALICE, BOB, MALLORY)}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(list(GOOD)),
        st.integers(0, BATCHES - 1),
        st.sampled_from(["true", "true", "true", "edited", "bent", "lying", "foreign", "wait", "revoke"]),
        st.integers(0, 2**16),
    ),
    max_size=60,
)


def changed(raw: bytes, how: str, at: int, author: Member) -> bytes:
    """What somebody on the way, or another member, makes of it."""
    if how == "edited":
        records = list(parse_batch(raw).records)
        records[at % len(records)] = LIE
        return with_records(raw, records)
    if how == "bent":
        bent = bytearray(raw)
        bent[at % len(raw)] ^= 1 + at % 255
        return bytes(bent)
    if how == "lying":
        return forged([LIE], MALLORY, author=author.node_id)
    if how == "foreign":
        return forged([LIE], MALLORY, stream=bytes([at % 256]) * 16)
    return raw


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_a_sum_holds_whole_genuine_batches_of_members_that_count_and_each_once(
    steps: list[tuple[bytes, int, str, int]],
) -> None:
    world = World(ALICE, BOB, MALLORY, level=1)
    world.known.levels[MALLORY.node_id] = 0
    at_revocation: float | None = None
    counted: dict[tuple[bytes, int], int] = {}
    for who, number, how, at in steps:
        if how == "wait":
            events = world.wait(at % 15)
        elif how == "revoke":
            at_revocation = world.totals().get((BOB.node_id, "load"), 0.0) if at_revocation is None else at_revocation
            world.known.refused[BOB.node_id] = Reason.REVOKED
            continue
        else:
            events = world.give(changed(GOOD[who][number], how, at, MEMBERS[who]), MEMBERS[who])
        for event in events:
            if isinstance(event, Counted):
                counted[event.author, event.seq] = counted.get((event.author, event.seq), 0) + 1
    for who, _ in world.totals():
        numbers = [seq for author, seq in counted if author == who]
        assert world.totals()[who, "load"] == sum(3 * 4.0**seq for seq in numbers)
    assert set(counted.values()) <= {1}
    assert (MALLORY.node_id, "load") not in world.totals()
    if at_revocation is not None:
        assert world.totals().get((BOB.node_id, "load"), 0.0) == at_revocation
