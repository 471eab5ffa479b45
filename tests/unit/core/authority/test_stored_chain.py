"""The chain on disk: it comes back as it was, and nothing in the file is believed unseen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.authority.recovery import RECOVERY_WAIT
from overlay.core.authority.stored_chain import pack_chain, unpack_chain
from overlay.core.authority.succession import AuthorityChain
from overlay.core.wire import make_map
from overlay.errors import Refused
from tests.unit.core.authority.generations_kit import MESH, Generation, chain_of, founding
from tests.unit.core.authority_kit import NOW

ZERO = founding()
ONE = ZERO.rollover("one")
TWO = ONE.reshared("bcde", 3)
RESCUE = ONE.recovered("rescue")
RIVAL = ZERO.rollover("rival")
UNFORK = ZERO.recovered("unfork")


def grown(*generations: Generation) -> AuthorityChain:
    chain = chain_of(ZERO)
    for generation in generations:
        chain = chain.with_object(generation.raw, NOW).chain
    return chain


CHAINS = {
    "founding": grown(),
    "three": grown(ONE, TWO),
    "waiting": grown(ONE, RESCUE),
    "contested": grown(ONE, RESCUE, ONE.recovered("other")),
    "recovered": grown(ONE, RESCUE).settle(NOW + RECOVERY_WAIT),
    "frozen": grown(ONE, TWO, RIVAL),
    "frozen at its beginning": grown(ONE, founding(type(ZERO.contents.recovery)())),
    "frozen and waiting": grown(ONE, RIVAL, UNFORK),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_comes_back_as_it_was(name: str) -> None:
    chain = CHAINS[name]
    found = unpack_chain(pack_chain(chain), MESH.root)
    assert found == chain
    assert found.to_show == chain.to_show


def order(*rivals: Generation) -> list[bytes]:
    return [rival.raw for rival in sorted(rivals, key=lambda rival: rival.contents.hash)]


FUTURE = 2**40


@pytest.mark.parametrize(
    "stored",
    [
        make_map([], None, [], []),
        make_map([ONE.raw], None, [], []),
        make_map([ZERO.raw, TWO.raw], None, [], []),
        make_map([ZERO.raw, ONE.raw], order(ONE, RIVAL)[::-1], [], []),
        make_map([ZERO.raw, ONE.raw], [ONE.raw, ONE.raw], [], []),
        make_map([ZERO.raw, ONE.raw], order(ONE, UNFORK), [], []),
        make_map([ZERO.raw, ONE.raw], order(ONE, TWO), [], []),
        make_map([ZERO.raw], order(TWO, RESCUE), [], []),
        make_map([ZERO.raw, ONE.raw], None, [[TWO.raw, 1]], []),
        make_map([ZERO.raw, ONE.raw], None, [[RESCUE.raw, FUTURE]], []),
        make_map([ZERO.raw, ONE.raw], None, [], [[1, 1]]),
        make_map([ZERO.raw, ONE.raw, RESCUE.raw], None, [], []),
    ],
)
def test_a_stored_chain_that_cannot_be_is_refused(stored: bytes) -> None:
    with pytest.raises(Refused):
        unpack_chain(stored, MESH.root)


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_refused_or_only_a_time(place: int, bit: int) -> None:
    data = bytearray(pack_chain(CHAINS["three"]))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(Refused):
        unpack_chain(bytes(data), MESH.root)


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        unpack_chain(data, MESH.root)
