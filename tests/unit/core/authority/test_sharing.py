"""Shared secrets: what fits together, and what is refused."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.authority import sharing
from overlay.core.authority.group import BASE, POINT_SIZE, Scalar
from overlay.core.authority.sharing import GroupKey, Share, commit_to, evaluate, evaluate_commitment, lagrange, split
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority.test_frost import dealt, scalar
from tests.unit.core.session_kit import SeededChance


def reconstruct(parts: dict[int, Scalar]) -> Scalar:
    """For tests alone: the package never puts a secret together."""
    total = Scalar.of(0)
    for identifier, part in parts.items():
        total = total + lagrange(identifier, parts) * part
    return total


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_t_parts_give_the_secret_and_t_minus_1_do_not(data: st.DataObject) -> None:
    members = data.draw(st.integers(1, 9))
    threshold = data.draw(st.integers(1, members))
    chosen = data.draw(st.lists(st.integers(1, members), min_size=threshold, unique=True))
    chance = SeededChance(data.draw(st.integers(0, 2**32)))
    secret = scalar(chance)
    parts = split(secret, threshold, members, [scalar(chance) for _ in range(threshold - 1)])
    assert reconstruct({one: parts[one] for one in chosen}) == secret
    if threshold > 1:
        assert reconstruct({one: parts[one] for one in chosen[: threshold - 1]}) != secret


@pytest.mark.parametrize("identifier", [*range(20), sharing.MEMBERS_MAX, 2**32])
def test_a_commitment_is_evaluated_as_the_polynomial_is(identifier: int) -> None:
    chance = SeededChance(3)
    coefficients = [scalar(chance) for _ in range(4)]
    assert evaluate_commitment(commit_to(coefficients), identifier) == BASE * evaluate(coefficients, identifier)


@pytest.mark.parametrize(("threshold", "members", "rest"), [(0, 3, 0), (4, 3, 3), (2, 3, 0), (2, 3, 2)])
def test_a_split_that_does_not_fit_its_threshold_is_refused(threshold: int, members: int, rest: int) -> None:
    with pytest.raises(ValueError, match="a threshold"):
        split(Scalar.of(5), threshold, members, [Scalar.of(1)] * rest)


@pytest.mark.parametrize(
    ("threshold", "identifiers"), [(0, (1, 2)), (3, (1, 2)), (1, (0, 1)), (1, (1, 3)), (1, ())]
)
def test_a_group_whose_members_are_not_1_to_n_is_refused(threshold: int, identifiers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="identifiers go from 1 to n"):
        GroupKey(threshold, BASE.encode(), dict.fromkeys(identifiers, BASE.encode()))


def reason(data: bytes, kind: type[GroupKey] | type[Share]) -> Reason:
    with pytest.raises(Refused) as caught:
        kind.unpack(data)
    return caught.value.reason


def test_a_packed_group_that_does_not_fit_is_refused() -> None:
    group = dealt(2, 3)[1].group
    listed = list(group.shares.values())
    assert reason(make_map(4, group.public, listed), GroupKey) is Reason.MALFORMED
    assert reason(make_map(2, bytes(POINT_SIZE), listed), GroupKey) is Reason.MALFORMED
    assert reason(make_map(1, group.public, [group.public] * (sharing.MEMBERS_MAX + 1)), GroupKey) is Reason.MALFORMED
    assert reason(bytes(20_000), GroupKey) is Reason.TOO_LARGE


def test_a_packed_share_that_is_not_the_groups_is_refused() -> None:
    share, other = (dealt(2, 3)[one] for one in (1, 2))
    packed = share.pack_with_secret()
    wrong = packed.replace(share.secret.encode(), other.secret.encode())
    assert reason(wrong, Share) is Reason.MALFORMED
    assert reason(packed.replace(share.secret.encode(), b"\xff" * 32), Share) is Reason.MALFORMED
    assert reason(make_map(1, 0, share.secret.encode(), make_map(1)), Share) is Reason.MALFORMED
    with pytest.raises(ValueError, match="not the one that the group knows"):
        replace(share, identifier=4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32))
def test_a_commitment_says_what_each_share_must_be(threshold: int, seed: int) -> None:
    chance = SeededChance(seed)
    coefficients = [scalar(chance) for _ in range(threshold)]
    points = commit_to(coefficients)
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
    assert reason(stranger, GroupKey) is Reason.MALFORMED
