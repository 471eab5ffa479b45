"""The record of a roll-over: each step checks what came, records of two nodes become one, and what comes next follows."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.authority.objects import to_be_signed
from overlay.core.authority.rollover import Proposal, Rollover, RolloverStep
from overlay.core.authority.rollover_actions import ROLLOVER_WITHIN, Action, durable_step, next_action
from overlay.core.authority.stored_rollover import pack_rollover, unpack_rollover
from overlay.core.keys import Ed25519Signer, IdentityKey, NodeId
from overlay.core.wire import Anything, Maybe, make_map, open_map, sha256
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority.generations_kit import MESH, THIEF, chain_of, checkpoints, founding, keys, node, nodes
from tests.unit.core.authority.rollover_kit import BEFORE, NEW, OLD_KEY, ONE, PROPOSAL, THRESHOLD
from tests.unit.core.authority_kit import HOUR, NOW, seed

KEY = Ed25519Signer(seed("new"))
CLOSING = tuple(checkpoints(ONE.contents))
ROOT = PROPOSAL.next_root(KEY.public_key)
ME = NodeId.of_key(node("a").spki)  # an old signer
MEMBER = NodeId.of_key(node("d").spki)


def signature(record: Rollover, key: object) -> bytes:
    made: bytes = key.sign(to_be_signed(MESH.mesh_id, record.payload))  # type: ignore[attr-defined]
    return made


STEPS: list[Callable[[Rollover], Rollover]] = [
    lambda record: record.with_key(KEY.public_key, bytes(32)),
    lambda record: record.with_root(KEY.sign(ROOT.root_to_be_signed)),
    lambda record: record.with_cross(OLD_KEY.sign(ROOT.cross_to_be_signed), CLOSING),
    lambda record: record.with_member(2, signature(record, nodes(NEW)[2])),
    lambda record: record.with_own(0, signature(record, nodes(NEW)[0])),
    lambda record: record.with_member(1, signature(record, nodes(NEW)[1])),
    lambda record: record.with_new_root(signature(record, KEY)),
    lambda record: record.with_binding(),
    lambda record: record.with_old_root(signature(record, OLD_KEY)),
]
RECORDS = [Rollover(proposal=PROPOSAL)]
for take in STEPS:
    RECORDS.append(take(RECORDS[-1]))
START, KEYED, ROOTED, CROSSED, _, PROMISED, SIGNED, NEW_SIGNED, BOUND, COMPLETE = RECORDS
PUBLISHED = BEFORE.with_object(COMPLETE.object or b"", NOW).chain


def test_each_step_leaves_its_mark_and_the_complete_object_is_the_next_of_the_chain() -> None:
    steps = [record.step for record in RECORDS]
    assert steps == sorted(steps)
    assert set(steps) == set(RolloverStep) - {RolloverStep.PUBLISHED, RolloverStep.OLD_SHARE_ERASED}
    assert [record.object for record in RECORDS[:-1]] == [None] * 9
    assert PUBLISHED.newest.hash == COMPLETE.contents.hash if COMPLETE.contents else False
    assert PUBLISHED.newest_root.public_key == KEY.public_key


def test_no_step_comes_before_the_one_before_it() -> None:
    for place, take in enumerate(STEPS):
        for wrong in [*RECORDS[:place], *RECORDS[place + 1 :]]:
            if wrong.step is RECORDS[place].step or (take is STEPS[-1] and wrong is NEW_SIGNED):
                continue
            with pytest.raises(ValueError, match="after"):
                take(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: KEYED.with_root(THIEF.sign(ROOT.root_to_be_signed)),
        lambda: ROOTED.with_cross(THIEF.sign(ROOT.cross_to_be_signed), CLOSING),
        lambda: ROOTED.with_cross(OLD_KEY.sign(ROOT.cross_to_be_signed), ()),
        lambda: CROSSED.with_member(0, signature(CROSSED, THIEF)),
        lambda: CROSSED.with_member(1, signature(CROSSED, nodes(NEW)[0])),
        lambda: CROSSED.with_member(3, signature(CROSSED, THIEF)),
        lambda: SIGNED.with_new_root(signature(SIGNED, OLD_KEY)),
        lambda: BOUND.with_old_root(signature(SIGNED, KEY)),
    ],
)
def test_a_signature_that_is_not_that_of_the_step_is_refused(wrong: Callable[[], Rollover]) -> None:
    with pytest.raises(Refused) as caught:
        wrong()
    assert caught.value.reason in (Reason.BAD_CERTIFICATE, Reason.BAD_AUTHORITY_OBJECT)


def test_members_that_no_object_may_have_cannot_be_proposed() -> None:
    with pytest.raises(Refused):
        Proposal.of(ONE.contents, keys(nodes("abcd")), 2, NOW)
    with pytest.raises(ValueError, match="key"):
        PROPOSAL.next_root(bytes(32))


# --- what comes next ------------------------------------------------------------------------------------------------

NEXT = [
    Action.GENERATE_KEY, Action.SIGN_ROOT, Action.SIGN_CROSS, Action.SIGN_AS_MEMBER, Action.SIGN_AS_MEMBER,
    Action.SIGN_AS_MEMBER, Action.SIGN_WITH_NEW_ROOT, Action.BIND, Action.SIGN_WITH_OLD_ROOT, Action.PUBLISH,
]  # fmt: skip
LATE = NOW + ROLLOVER_WITHIN


def test_after_each_step_the_next_one_follows() -> None:
    assert [next_action(record, BEFORE, NOW, has_old_share=True) for record in RECORDS] == NEXT
    assert next_action(COMPLETE, PUBLISHED, LATE, has_old_share=True) is Action.ERASE_OLD_SHARE
    assert next_action(COMPLETE, PUBLISHED, LATE, has_old_share=False) is Action.DONE
    assert durable_step(COMPLETE, PUBLISHED, has_old_share=False) is RolloverStep.OLD_SHARE_ERASED


def test_the_old_share_stays_while_the_complete_object_is_not_in_our_own_chain() -> None:
    for record in RECORDS:
        assert next_action(record, BEFORE, LATE, has_old_share=True) is not Action.ERASE_OLD_SHARE


def test_who_has_promised_nothing_gives_up_after_a_day_and_who_has_keeps_the_share() -> None:
    late = [next_action(record, BEFORE, LATE, has_old_share=True) for record in RECORDS]
    assert late[:5] == [Action.GIVE_UP] * 5
    assert late[5:7] == [Action.PARK] * 2
    assert late[7:] == NEXT[7:]
    just = LATE - timedelta(seconds=1)
    assert [next_action(record, BEFORE, just, has_old_share=True) for record in RECORDS] == NEXT


def test_when_somebody_gave_up_nobody_goes_on_until_all_have_signed() -> None:
    told = [record.give_up() for record in RECORDS]
    after = [next_action(record, BEFORE, NOW, has_old_share=True) for record in told]
    assert after == [Action.GIVE_UP] * 5 + [Action.PARK] * 2 + NEXT[7:]


def test_when_another_object_has_the_place_everyone_gives_up() -> None:
    other = BEFORE.with_object(ONE.reshared("bcd").raw, NOW).chain
    assert {next_action(record, other, NOW, has_old_share=True) for record in RECORDS} == {Action.GIVE_UP}


def test_on_a_frozen_chain_nothing_goes_on() -> None:
    frozen = BEFORE.with_object(founding().rollover("rival").raw, NOW).chain
    assert frozen.frozen_at == 1
    after = [next_action(record, frozen, NOW, has_old_share=True) for record in RECORDS]
    assert after == [Action.GIVE_UP] * 5 + [Action.PARK] * 5


def test_a_node_that_had_gone_another_way_with_the_same_key_still_keeps_its_share() -> None:
    elsewhere = replace(PROMISED, contents=None, members_signed={})
    assert next_action(elsewhere, PUBLISHED, LATE, has_old_share=False) is Action.DONE
    assert next_action(elsewhere, BEFORE, LATE, has_old_share=True) is Action.PARK


# --- two records ----------------------------------------------------------------------------------------------------


def test_signatures_of_two_records_come_together() -> None:
    other = CROSSED.with_member(1, signature(CROSSED, nodes(NEW)[1]))
    assert PROMISED.merged(other, MEMBER).members_signed.keys() == {0, 1, 2}
    assert SIGNED.merged(COMPLETE, MEMBER).step is RolloverStep.OLD_ROOT_SIGNED


def test_of_two_forms_of_the_object_the_further_one_wins_and_else_all_choose_the_same() -> None:
    other = ROOTED.with_cross(OLD_KEY.sign(ROOT.cross_to_be_signed), CLOSING[1:])
    assert other.merged(SIGNED, MEMBER).contents == SIGNED.contents
    assert SIGNED.merged(other, MEMBER).contents == SIGNED.contents
    assert CROSSED.merged(other, MEMBER) == other.merged(CROSSED, MEMBER)
    assert ROOTED.merged(CROSSED, MEMBER) == CROSSED


def test_a_node_stays_bound_and_promised_and_takes_neither_from_others() -> None:
    further = ROOTED.with_cross(OLD_KEY.sign(ROOT.cross_to_be_signed), CLOSING[1:])
    for take_again in STEPS[3:]:
        further = take_again(further)
    assert further.step > BOUND.step
    assert BOUND.merged(further, ME).contents == BOUND.contents
    changed = PROMISED.merged(replace(further, promised=False), MEMBER)
    assert (changed.contents, changed.promised, changed.bound) == (further.contents, True, False)
    taken = START.merged(BOUND, ME)
    assert (taken.public_key, taken.promised, taken.bound) == (KEY.public_key, False, False)
    assert not CROSSED.merged(BOUND, MEMBER).bound


def test_a_member_does_not_take_over_a_key_of_which_it_has_no_share() -> None:
    assert START.merged(KEYED, MEMBER) == START
    assert START.lacks_share_of(KEYED)
    assert not KEYED.lacks_share_of(COMPLETE)
    other = START.with_key(THIEF.public_key, bytes(32))
    assert KEYED.merged(other, MEMBER) == KEYED
    assert other.lacks_share_of(KEYED)


def test_giving_up_spreads_but_not_to_those_for_whom_it_is_too_late() -> None:
    assert START.merged(START.give_up(), MEMBER).given_up
    assert PROMISED.merged(KEYED.give_up(), MEMBER).given_up
    assert START.merged(KEYED.give_up(), ME).given_up
    assert not NEW_SIGNED.merged(START.give_up(), MEMBER).given_up
    assert KEYED.give_up().merged(CROSSED, MEMBER).given_up


def test_the_record_of_another_proposal_says_nothing() -> None:
    other = Rollover(proposal=Proposal.of(ONE.contents, keys(nodes(NEW)), THRESHOLD, NOW + HOUR), given_up=True)
    assert START.merged(other, MEMBER) == START
    assert not START.lacks_share_of(other)


# --- on disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [*RECORDS, START.give_up(), PROMISED.give_up()])
def test_a_record_comes_back_as_it_was(record: Rollover) -> None:
    assert unpack_rollover(pack_rollover(record), BEFORE) == record
    assert unpack_rollover(pack_rollover(record), PUBLISHED) == record


def test_a_record_from_another_object_is_refused() -> None:
    with pytest.raises(Refused):
        unpack_rollover(pack_rollover(COMPLETE), chain_of(founding()))




KINDS = [Maybe(Anything())] * 12
FIELDS = open_map(pack_rollover(COMPLETE), *KINDS, limit=2**16)


@pytest.mark.parametrize("place", range(12))
def test_a_record_whose_parts_do_not_fit_is_refused(place: int) -> None:
    others = [
        bytes(32), [[IdentityKey.parse(THIEF.spki).spki], 1], 2**40, [THIEF.public_key, bytes(32)], MESH.root.der,
        [MESH.root.der, []], FIELDS[6][:2], bytes(64), 2, bytes(64), 2, 2,
    ]  # fmt: skip
    with pytest.raises(Refused):
        unpack_rollover(make_map(*FIELDS[:place], others[place], *FIELDS[place + 1 :]), BEFORE)


def test_a_record_in_another_form_is_refused() -> None:
    signed = FIELDS[6]
    for value in (signed[::-1], [*signed, signed[2]]):
        with pytest.raises(Refused, match=r"form|step"):
            unpack_rollover(make_map(*FIELDS[:6], value, *FIELDS[7:]), BEFORE)


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_one_flipped_bit_is_refused_or_gives_what_the_bytes_say(place: int, bit: int) -> None:
    data = bytearray(pack_rollover(COMPLETE))
    data[place % len(data)] ^= 1 << bit
    try:
        found = unpack_rollover(bytes(data), BEFORE)
    except Refused:
        return
    assert pack_rollover(found) == bytes(data)  # a mark of its own, which no signature covers
    assert replace(found, promised=True, bound=True, given_up=False) == COMPLETE


def test_proposals_of_one_second_are_one() -> None:
    assert Proposal.of(ONE.contents, keys(nodes(NEW)[::-1]), THRESHOLD, NOW + timedelta(microseconds=9)) == PROPOSAL
    assert sha256(pack_rollover(START)) == sha256(pack_rollover(Rollover(proposal=PROPOSAL)))
