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
from overlay.core.authority.group import BASE, IDENTITY, Point, Scalar
from overlay.core.authority.sharing import GroupKey, Share, evaluate, evaluate_commitment, lagrange, split
from overlay.core.authority.sharing import commit_to as commit_to_polynomial
from overlay.core.keys import verify_ed25519
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.session_kit import SeededChance

MESSAGE = b"what all of them have derived by themselves"
ORDER = 2**252 + 27742317777372353535851937790883648493  # RFC 8032, section 5.1


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


def test_commitments_pack_and_what_is_no_element_is_refused() -> None:
    _, commitment = commit(dealt(2, 3)[2], SeededChance(4))
    assert Commitment.unpack(commitment.pack()) == commitment
    small_order = bytes(32)  # y = 0, a point of order 4
    damaged = commitment.pack().replace(commitment.hiding.encode(), small_order)
    assert reason(lambda: Commitment.unpack(damaged)) is Reason.BAD_SHARE


# --- the group ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [ORDER, ORDER + 1, 2**256 - 1])
def test_a_scalar_that_is_not_reduced_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="below the order"):
        Scalar.from_bytes(value.to_bytes(32, "little"))
    assert Scalar.from_bytes((ORDER - 1).to_bytes(32, "little")) + Scalar.of(1) == Scalar.of(0)


@pytest.mark.parametrize(
    "data",
    [
        bytes(31), IDENTITY.encode(), bytes(32), b"\xec" + b"\xff" * 30 + b"\x7f",  # order 4, order 2
        b"\xee" + b"\xff" * 30 + b"\x7f",  # 1 + p: not canonical
        b"\x02" + bytes(31),  # not on the curve
    ],
)
def test_a_point_outside_the_group_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="prime-order group"):
        Point.from_bytes(data)


def test_a_point_of_the_curve_and_not_of_the_group_is_refused() -> None:
    from nacl.bindings import crypto_core_ed25519_add

    mixed = crypto_core_ed25519_add(BASE.encode(), b"\xec" + b"\xff" * 30 + b"\x7f")
    with pytest.raises(ValueError, match="prime-order group"):
        Point.from_bytes(mixed)


def test_sums_with_nothing_and_products_with_zero() -> None:
    assert BASE + IDENTITY == BASE and BASE - BASE == IDENTITY
    assert (BASE * Scalar.of(0)).is_identity and (IDENTITY * Scalar.of(5)).is_identity
    assert BASE * Scalar.of(3) == BASE + BASE + BASE
    with pytest.raises(ValueError, match="no inverse"):
        Scalar.of(0).invert()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32))
def test_a_commitment_says_what_each_share_must_be(threshold: int, seed: int) -> None:
    chance = SeededChance(seed)
    coefficients = [scalar(chance) for _ in range(threshold)]
    points = commit_to_polynomial(coefficients)
    for identifier in range(1, 8):
        assert evaluate_commitment(points, identifier) == BASE * evaluate(coefficients, identifier)


@pytest.mark.parametrize(("identifier", "everyone"), [(1, (2, 3)), (0, (0, 1)), (1, (1, 1, 2))])
def test_identifiers_that_cannot_be_interpolated_are_refused(identifier: int, everyone: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="identifiers"):
        lagrange(identifier, everyone)


def test_a_share_that_is_not_the_groups_is_refused_and_packs_only_where_its_name_says_so() -> None:
    shares = dealt(2, 3)
    with pytest.raises(ValueError, match="not the one that the group knows"):
        Share(1, 0, shares[2].secret, shares[1].group)
    assert Share.unpack(shares[1].pack_with_secret()) == shares[1]
    assert GroupKey.unpack(shares[1].group.pack()) == shares[1].group
    stranger = shares[1].group.pack().replace(shares[1].group.shares[2], bytes(32))
    assert reason(lambda: GroupKey.unpack(stranger)) is Reason.MALFORMED


def test_the_random_half_of_a_nonce_is_hedged_with_the_secret() -> None:
    one, other = dealt(2, 3, seed=1)[1], dealt(2, 3, seed=2)[1]
    fixed = bytes(32)
    assert frost.nonces_from(one, fixed, fixed).commitment != frost.nonces_from(other, fixed, fixed).commitment
