"""Threshold signatures: any t sign, fewer do not, whoever lies is named, and nonces serve once."""

import copy
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.authority import frost
from overlay.core.authority.frost import Commitment, Nonces, aggregate, bad_shares, commit, sign, verify_share
from overlay.core.authority.group import BASE, IDENTITY, Scalar
from overlay.core.authority.sharing import GroupKey, Share, split
from overlay.core.keys import verify_ed25519
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.session_kit import SeededChance

MESSAGE = b"what all of them have derived by themselves"


def scalar(chance: SeededChance) -> Scalar:
    return Scalar.reduce(chance.token(64))


def dealt(threshold: int, members: int, seed: int = 1) -> dict[int, Share]:
    chance = SeededChance(seed)
    secret = scalar(chance)
    parts = split(secret, threshold, members, [scalar(chance) for _ in range(threshold - 1)])
    group = GroupKey(threshold, (BASE * secret).encode(), {one: (BASE * part).encode() for one, part in parts.items()})
    return {one: Share(one, 0, part, group) for one, part in parts.items()}


def round_one(shares: dict[int, Share], signers: Sequence[int], seed: int = 2) -> tuple[dict[int, Nonces], list[Commitment]]:
    nonces = {one: commit(shares[one], SeededChance(seed + one))[0] for one in sorted(signers)}
    return nonces, [one.commitment for one in nonces.values()]


def signed(shares: dict[int, Share], signers: Sequence[int]) -> tuple[list[Commitment], dict[int, bytes]]:
    nonces, commitments = round_one(shares, signers)
    return commitments, {one: sign(shares[one], nonces[one], MESSAGE, commitments) for one in nonces}


def reason(call: Callable[[], object]) -> Reason:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.reason


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_t_of_n_make_one_plain_ed25519_signature(data: st.DataObject) -> None:
    members = data.draw(st.integers(1, 7))
    threshold = data.draw(st.integers(1, members))
    signers = data.draw(st.lists(st.integers(1, members), min_size=threshold, unique=True))
    shares = dealt(threshold, members)
    commitments, parts = signed(shares, signers)
    signature = aggregate(shares[1].group, MESSAGE, commitments, parts)
    verify_ed25519(shares[1].group.public, signature, MESSAGE)


def test_fewer_than_t_are_refused_by_signers_and_by_whoever_puts_together() -> None:
    shares = dealt(3, 5)
    nonces, commitments = round_one(shares, (1, 2))
    assert reason(lambda: sign(shares[1], nonces[1], MESSAGE, commitments)) is Reason.NOT_ENOUGH_SIGNERS
    assert reason(lambda: aggregate(shares[1].group, MESSAGE, commitments, {})) is Reason.NOT_ENOUGH_SIGNERS


def test_a_good_signature_of_fewer_than_the_group_wants_is_refused() -> None:
    shares = dealt(2, 3)
    commitments, parts = signed(shares, (1, 2))
    strict = replace(shares[1].group, threshold=3)
    assert reason(lambda: aggregate(strict, MESSAGE, commitments, parts)) is Reason.NOT_ENOUGH_SIGNERS


def test_nonces_sign_once_and_are_gone_whatever_happened() -> None:
    shares = dealt(2, 3)
    nonces, commitments = round_one(shares, (1, 2))
    sign(shares[1], nonces[1], MESSAGE, commitments)
    with pytest.raises(ValueError, match="used up"):
        sign(shares[1], nonces[1], b"another message", commitments)
    assert reason(lambda: sign(shares[2], nonces[2], MESSAGE, commitments[:1])) is Reason.NOT_ENOUGH_SIGNERS
    with pytest.raises(ValueError, match="used up"):
        nonces[2].take()
    erased, _ = commit(shares[1], SeededChance(5))
    erased.erase()
    with pytest.raises(ValueError, match="used up"):
        erased.take()


def test_no_copy_of_nonces_or_of_a_secret_can_be_made_or_seen() -> None:
    share = dealt(2, 3)[1]
    nonces, _ = commit(share, SeededChance(1))
    for copier in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            copier(nonces)
    with pytest.raises(TypeError):
        pickle.dumps(share.secret)
    shown = repr(share) + repr(nonces) + repr(share.secret) + str([nonces, share])
    assert share.secret.encode().hex() not in shown and repr(share.secret.encode()) not in shown
    hiding, _binding = nonces.take()
    assert hiding.encode().hex() not in shown


def test_a_signer_signs_only_where_its_commitment_stands_as_it_has_shown_it() -> None:
    shares = dealt(2, 3)
    nonces, commitments = round_one(shares, (1, 2))
    other = commit(shares[1], SeededChance(77))[1]
    assert reason(lambda: sign(shares[1], nonces[1], MESSAGE, [other, commitments[1]])) is Reason.BAD_SHARE
    nonces, commitments = round_one(shares, (1, 2))
    with_third = [commitments[1], commit(shares[3], SeededChance(9))[1]]
    assert reason(lambda: sign(shares[1], nonces[1], MESSAGE, with_third)) is Reason.BAD_SHARE


@pytest.mark.parametrize(
    "change",
    [
        lambda listed: listed[::-1],
        lambda listed: [listed[0], listed[0]],
        lambda listed: [listed[0], replace(listed[1], identifier=9)],
        lambda listed: [listed[0], replace(listed[1], hiding=IDENTITY)],
    ],
    ids=["unsorted", "one twice", "a stranger", "a commitment to nothing"],
)
def test_a_list_of_commitments_that_is_not_in_order_is_refused(change: Callable[[list[Commitment]], list[Commitment]]) -> None:
    shares = dealt(2, 3)
    nonces, commitments = round_one(shares, (1, 2))
    assert reason(lambda: sign(shares[1], nonces[1], MESSAGE, change(commitments))) is Reason.BAD_SHARE


@given(st.integers(0, 2), st.integers(0, 255))
@settings(max_examples=40, deadline=None)
def test_whoever_sends_a_bad_share_is_named(liar: int, bit: int) -> None:
    shares = dealt(3, 5)
    commitments, parts = signed(shares, (1, 3, 4))
    name = (1, 3, 4)[liar]
    wrong = int.from_bytes(parts[name], "little") ^ (1 << bit)
    parts[name] = wrong.to_bytes(32, "little")
    group = shares[1].group
    assert bad_shares(group, MESSAGE, commitments, parts) == (name,)
    assert not verify_share(group, name, parts[name], MESSAGE, commitments)
    assert reason(lambda: aggregate(group, MESSAGE, commitments, parts)) is Reason.BAD_SHARE


def test_a_missing_share_is_named_too_and_one_for_another_message_is_bad() -> None:
    shares = dealt(2, 3)
    commitments, parts = signed(shares, (1, 2))
    assert bad_shares(shares[1].group, MESSAGE, commitments, {1: parts[1]}) == (2,)
    assert bad_shares(shares[1].group, b"another", commitments, parts) == (1, 2)


def test_whoever_checks_shares_refuses_a_list_of_commitments_too_and_a_member_outside_it_has_no_good_share() -> None:
    shares = dealt(2, 3)
    group = shares[1].group
    commitments, parts = signed(shares, (1, 2))
    assert not verify_share(group, 3, parts[1], MESSAGE, commitments)
    stranger = [commitments[0], replace(commitments[1], identifier=9)]
    assert reason(lambda: verify_share(group, 9, parts[2], MESSAGE, stranger)) is Reason.BAD_SHARE
    assert reason(lambda: bad_shares(group, MESSAGE, commitments[::-1], parts)) is Reason.BAD_SHARE
    assert reason(lambda: aggregate(group, MESSAGE, commitments[::-1], parts)) is Reason.BAD_SHARE
    assert reason(lambda: verify_share(group, 1, parts[1], MESSAGE, commitments[:1])) is Reason.NOT_ENOUGH_SIGNERS


def test_fewer_than_t_make_nothing_by_saying_that_fewer_are_needed() -> None:
    shares = dealt(3, 5)
    group = replace(shares[1].group, threshold=2)
    shares = {one: replace(share, group=group) for one, share in shares.items()}
    commitments, parts = signed(shares, (1, 2))
    assert reason(lambda: aggregate(group, MESSAGE, commitments, parts)) is Reason.BAD_SHARE


def test_nonces_of_another_member_do_not_sign() -> None:
    shares = dealt(2, 3)
    nonces, commitments = round_one(shares, (1, 2))
    assert reason(lambda: sign(shares[2], nonces[1], MESSAGE, commitments)) is Reason.BAD_SHARE


def test_binding_factors_depend_on_message_and_on_every_commitment() -> None:
    """Else signatures in parallel could be turned into one more (Drijvers and others, 2019)."""
    shares = dealt(2, 3)
    _, commitments = round_one(shares, (1, 2))
    _, others = round_one(shares, (1, 2), seed=50)
    group = shares[1].group
    factor = frost._case(group, MESSAGE, commitments).factors[1]
    assert frost._case(group, MESSAGE, commitments).factors[1] == factor
    assert frost._case(group, b"another", commitments).factors[1] != factor
    assert frost._case(group, MESSAGE, [commitments[0], others[1]]).factors[1] != factor
    assert frost._case(group, MESSAGE, commitments).factors[2] != factor


def test_commitments_pack_and_what_is_no_element_is_refused() -> None:
    _, commitment = commit(dealt(2, 3)[2], SeededChance(4))
    assert Commitment.unpack(commitment.pack()) == commitment
    small_order = bytes(32)  # y = 0, a point of order 4
    damaged = commitment.pack().replace(commitment.hiding.encode(), small_order)
    assert reason(lambda: Commitment.unpack(damaged)) is Reason.BAD_SHARE


def test_the_random_half_of_a_nonce_is_hedged_with_the_secret() -> None:
    one, other = dealt(2, 3, seed=1)[1], dealt(2, 3, seed=2)[1]
    fixed = bytes(32)
    assert frost.nonces_from(one, fixed, fixed).commitment != frost.nonces_from(other, fixed, fixed).commitment
