"""Scalars and points: what is refused, and that libsodium's rules do not stand in the way of sums that come to nothing."""

import pytest
from nacl.bindings import crypto_core_ed25519_add

from overlay.core.authority.group import BASE, IDENTITY, Point, Scalar
from overlay.core.keys import Ed25519Signer

ORDER = 2**252 + 27742317777372353535851937790883648493  # RFC 8032, section 5.1
ORDER_2 = b"\xec" + b"\xff" * 30 + b"\x7f"  # y = -1


def test_a_seed_gives_the_scalar_of_its_ed25519_key() -> None:
    for seed in (bytes(32), b"\xff" * 32, bytes(range(32))):
        assert (BASE * Scalar.of_seed(seed)).encode() == Ed25519Signer(seed).public_key


def test_scalars_subtract_and_divide() -> None:
    seven, three = Scalar.of(7), Scalar.of(3)
    assert seven - three == Scalar.of(4)
    assert seven * three.invert() * three == seven
    assert (three - seven) + Scalar.of(4) == Scalar.of(0)
    assert seven != three and seven != 7


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_scalar_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Scalar.from_bytes(bytes(size))


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_only_64_bytes_are_reduced(size: int) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        Scalar.reduce(bytes(size))


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_number_that_is_not_small_is_made_no_scalar(number: int) -> None:
    with pytest.raises(ValueError, match="small public numbers"):
        Scalar.of(number)


def test_nothing_of_a_scalar_shows_and_it_is_no_key_of_a_dictionary() -> None:
    assert repr(Scalar.of(7)) == str(Scalar.of(7)) == "Scalar(...)"
    with pytest.raises(TypeError):
        hash(Scalar.of(7))


def test_a_point_that_nobody_checked_is_refused_when_it_is_multiplied() -> None:
    with pytest.raises(ValueError, match="prime-order group"):
        Point(ORDER_2) * Scalar.of(3)


def test_points_are_compared_hashed_and_shown_by_their_encoding() -> None:
    double = BASE + BASE
    assert {double, BASE * Scalar.of(2)} == {double} and double != BASE and BASE.encode() != BASE
    assert double.encode().hex()[:16] in repr(double)
    assert not double.is_identity and (double - double) == IDENTITY


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
    mixed = crypto_core_ed25519_add(BASE.encode(), b"\xec" + b"\xff" * 30 + b"\x7f")
    with pytest.raises(ValueError, match="prime-order group"):
        Point.from_bytes(mixed)


def test_sums_with_nothing_and_products_with_zero() -> None:
    assert BASE + IDENTITY == BASE and BASE - BASE == IDENTITY
    assert (BASE * Scalar.of(0)).is_identity and (IDENTITY * Scalar.of(5)).is_identity
    assert BASE * Scalar.of(3) == BASE + BASE + BASE
    with pytest.raises(ValueError, match="no inverse"):
        Scalar.of(0).invert()
