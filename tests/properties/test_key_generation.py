"""Key generation, resharing and repair under any wire: whoever finishes has what all others who finish have."""

import random
from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.authority.frost import aggregate, commit, sign
from overlay.core.authority.run_events import Failed, Finished
from overlay.core.authority.runs import ROUND_TIMEOUT
from overlay.core.authority.sharing import GroupKey, Share
from overlay.core.keys import NodeId, verify_ed25519
from overlay.net.system import SystemChance
from overlay.registry import RoundKind
from tests.unit.core.authority.runs_kit import (
    Sent,
    Wire,
    check_shares,
    generated,
    ids,
    key_generation,
    plan,
    repair_plan,
    repairing,
    resharing,
)

SMALL = settings(max_examples=25, deadline=None)
FEW = settings(max_examples=60, deadline=None)


@st.composite
def sizes(draw: st.DrawFn, largest: int = 7) -> tuple[int, int]:
    """n and t."""
    count = draw(st.integers(2, largest))
    return count, draw(st.integers(2, count))


def any_order(seed: int) -> random.Random:
    return random.Random(seed)


def shares_of(wire: Wire) -> list[Share]:
    """Of all who have finished."""
    results = [machine.result for machine in wire.machines.values()]
    return [result.share for result in results if result is not None and result.share is not None]


def signs(shares: Sequence[Share], group: GroupKey, public: bytes) -> None:
    """Both the first t and the last t sign under this key."""
    ordered = sorted(shares, key=lambda share: share.identifier)
    for some in (ordered[: group.threshold], ordered[-group.threshold :]):
        made = {share.identifier: commit(share, SystemChance()) for share in some}
        commitments = [commitment for _, commitment in made.values()]
        parts = {share.identifier: sign(share, made[share.identifier][0], b"message", commitments) for share in some}
        verify_ed25519(public, aggregate(group, b"message", commitments, parts), b"message")


def agree(wire: Wire, members: Sequence[NodeId]) -> None:
    """All who have finished believe the same, and that only with everyone's certificate."""
    results = [machine.result for machine in wire.machines.values() if machine.result is not None]
    assert len({(result.group.pack(), result.transcript_hash) for result in results}) <= 1
    for result in results:
        assert [statement.author for statement in result.certificates] == list(members)
    if results and len(shares_of(wire)) >= results[0].group.threshold:
        check_shares(shares_of(wire), results[0].group)


def settle(wire: Wire) -> None:
    """Time goes on until every run is over."""
    for step in range(1, 8):
        wire.tick_all(step * ROUND_TIMEOUT)
        wire.run()
    for member, events in wire.events.items():
        ends = [event for event in events if isinstance(event, Finished | Failed)]
        assert len(ends) == 1, (member, events)
        assert wire.machines[member].deadline == float("inf")


@SMALL
@given(size=sizes(), seed=st.integers(0, 2**32))
def test_in_any_order_all_members_make_the_same_key_and_sign_with_it(size: tuple[int, int], seed: int) -> None:
    wire = key_generation(*size, seed=seed % 1000)
    wire.run(pick=any_order(seed).randrange)
    assert all(events == [Finished()] for events in wire.events.values())
    agree(wire, ids(size[0]))
    group = shares_of(wire)[0].group
    assert len(shares_of(wire)) == size[0]
    signs(shares_of(wire), group, group.public)


def disturb(draw: st.DataObject, wire: Wire, limit: int) -> None:
    """One message, whichever, is dropped, changed, doubled, held back or told to somebody else; the rest in any order."""
    number = draw.draw(st.integers(0, limit), label="which message")
    what = draw.draw(st.sampled_from(("drop", "change", "double", "late", "for another")), label="what becomes of it")
    place = draw.draw(st.integers(0, 10_000), label="where it is changed")
    late: list[Sent] = []
    seen = [0]

    def change(sent: Sent) -> list[Sent]:
        seen[0] += 1
        if seen[0] - 1 != number:
            return [sent]
        if what == "drop":
            return []
        if what == "late":
            late.append(sent)
            return []
        if what == "double":
            return [sent, sent]
        if what == "for another":
            others = [member for member in wire.machines if member != sent[1]]
            return [(sent[0], others[place % len(others)], *sent[2:])]
        body = bytearray(sent[3])
        body[place % len(body)] ^= 1 + place % 255
        return [(*sent[:3], bytes(body))]

    wire.run(pick=any_order(draw.draw(st.integers(0, 2**32), label="order")).randrange, change=change)
    wire.queue += late
    wire.run()


@FEW
@given(draw=st.data(), size=sizes(4))
def test_whatever_happens_to_one_message_nobody_believes_in_another_key(draw: st.DataObject, size: tuple[int, int]) -> None:
    wire = key_generation(*size)
    disturb(draw, wire, 5 * size[0] * (size[0] - 1))
    settle(wire)
    agree(wire, ids(size[0]))


@FEW
@given(draw=st.data(), size=sizes(4), moment=st.integers(0, 80))
def test_wherever_a_member_is_gone_the_others_agree(draw: st.DataObject, size: tuple[int, int], moment: int) -> None:
    wire = key_generation(*size)
    chance = any_order(draw.draw(st.integers(0, 2**32), label="order"))
    for _ in range(moment):
        if wire.queue:
            wire.deliver(wire.queue.pop(chance.randrange(len(wire.queue))))
    gone = ids(size[0])[draw.draw(st.integers(0, size[0] - 1), label="who")]
    wire.remove(gone)
    del wire.events[gone]
    wire.run(pick=chance.randrange)
    settle(wire)
    agree(wire, ids(size[0]))


def reshare_and_sign(shares: Mapping[NodeId, Share], new: tuple[NodeId, ...], threshold: int, seed: int) -> dict[NodeId, Share]:
    """To others, in any order; they sign under the key as it was."""
    old = next(iter(shares.values()))
    dealers = tuple(sorted(shares))[-max(old.group.threshold, len(shares) - seed % 2) :]
    wire = resharing(shares, plan(shares, new, threshold, dealers=dealers))
    wire.run(pick=any_order(seed).randrange)
    assert all(events == [Finished()] for events in wire.events.values())
    found = {member: machine.result.share for member, machine in wire.machines.items() if machine.result.share is not None}
    assert set(found) == set(new)
    group = found[new[0]].group
    assert (group.public, found[new[0]].generation) == (old.group.public, old.generation + 1)
    signs(list(found.values()), group, old.group.public)
    return found


@SMALL
@given(size=sizes(6), second=sizes(6), start=st.integers(0, 8), seed=st.integers(0, 2**32))
def test_the_key_signs_after_refresh_resharing_and_repair(
    size: tuple[int, int], second: tuple[int, int], start: int, seed: int
) -> None:
    shares = generated(*size)
    shares = reshare_and_sign(shares, ids(size[0]), size[1], seed)  # a refresh
    new = ids(second[0], start)
    shares = reshare_and_sign(shares, new, second[1], seed)
    if second[1] < second[0]:
        lost = new[seed % second[0]]
        wire = repairing(shares, repair_plan(shares, lost, new))
        wire.run(pick=any_order(seed).randrange)
        assert wire.machines[lost].result == shares[lost]
        shares[lost] = wire.machines[lost].result
        signs(list(shares.values()), shares[lost].group, shares[lost].group.public)


@FEW
@given(draw=st.data(), size=sizes(4), second=sizes(4), start=st.integers(0, 5))
def test_whatever_happens_to_one_message_of_a_resharing_all_who_finish_agree(
    draw: st.DataObject, size: tuple[int, int], second: tuple[int, int], start: int
) -> None:
    shares = generated(*size)
    wire = resharing(shares, plan(shares, ids(second[0], start), second[1]))
    disturb(draw, wire, 4 * len(wire.machines) ** 2)
    settle(wire)
    results = [machine.result for machine in wire.machines.values() if machine.result is not None]
    assert len({(result.group.pack(), result.transcript_hash) for result in results}) <= 1
    assert all(result.group.public == shares[ids(1)[0]].group.public for result in results)
    assert all({each.author for each in result.certificates} == set(ids(second[0], start)) for result in results)


@FEW
@given(draw=st.data(), size=sizes(4))
def test_whatever_happens_to_one_message_of_a_repair_the_share_is_right_or_there_is_none(
    draw: st.DataObject, size: tuple[int, int]
) -> None:
    count, threshold = size[0] + 1, size[1]
    shares, members = generated(count, threshold), ids(count)
    wire = repairing(shares, repair_plan(shares, members[0], members))
    disturb(draw, wire, 3 * count * count)
    settle(wire)
    assert wire.machines[members[0]].result in (None, shares[members[0]])


@FEW
@given(
    body=st.binary(max_size=200), kind=st.sampled_from(RoundKind), sender=st.integers(0, 5),
    when=st.floats(0, 1000, allow_nan=False),
)  # fmt: skip
def test_no_bytes_raise(body: bytes, kind: RoundKind, sender: int, when: float) -> None:
    shares = generated(4, 3)
    wires = (
        key_generation(4, 3),
        resharing(shares, plan(shares, ids(4), 3)),
        repairing(shares, repair_plan(shares, ids(4)[0], ids(4))),
    )
    for wire in wires:
        for machine in wire.machines.values():
            machine.receive(ids(6)[sender], kind, body, when)
            machine.tick(when)
