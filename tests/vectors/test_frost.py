"""RFC 9591, FROST(Ed25519, SHA-512): every intermediate value."""

from collections.abc import Callable
from typing import Any

import pytest

from overlay.core.authority.frost import Nonces, _case, aggregate, nonces_from, sign, verify_share
from overlay.core.authority.group import BASE, Scalar
from overlay.core.authority.sharing import GroupKey, Share, split

unhex = bytes.fromhex
pytestmark = pytest.mark.vectors


@pytest.fixture(scope="module")
def vector(vectors: Callable[[str], Any]) -> dict[str, Any]:
    found: dict[str, Any] = vectors("frost/rfc9591-ed25519-sha512.json")
    return found


def shares_of(vector: dict[str, Any]) -> dict[int, Share]:
    inputs = vector["inputs"]
    secret = Scalar.from_bytes(unhex(inputs["group_secret_key"]))
    rest = [Scalar.from_bytes(unhex(one)) for one in inputs["share_polynomial_coefficients"]]
    secrets = split(secret, 2, 3, rest)
    group = GroupKey(2, (BASE * secret).encode(), {one: (BASE * value).encode() for one, value in secrets.items()})
    return {one: Share(one, 0, value, group) for one, value in secrets.items()}


def nonces_of(vector: dict[str, Any], shares: dict[int, Share]) -> dict[int, Nonces]:
    return {
        one["identifier"]: nonces_from(
            shares[one["identifier"]], unhex(one["hiding_nonce_randomness"]), unhex(one["binding_nonce_randomness"])
        )
        for one in vector["round_one_outputs"]["outputs"]
    }


def test_shares_and_the_group_key(vector: dict[str, Any]) -> None:
    shares = shares_of(vector)
    assert shares[1].group.public == unhex(vector["inputs"]["group_public_key"])
    for one in vector["inputs"]["participant_shares"]:
        assert shares[one["identifier"]].secret.encode() == unhex(one["participant_share"])


def test_round_one(vector: dict[str, Any]) -> None:
    shares = shares_of(vector)
    nonces = nonces_of(vector, shares)
    case = _case(shares[1].group, unhex(vector["inputs"]["message"]), [one.commitment for one in nonces.values()])
    for one in vector["round_one_outputs"]["outputs"]:
        own = nonces[one["identifier"]]
        assert own.commitment.hiding.encode() == unhex(one["hiding_nonce_commitment"])
        assert own.commitment.binding.encode() == unhex(one["binding_nonce_commitment"])
        assert case.factors[one["identifier"]].encode() == unhex(one["binding_factor"])
        hiding, binding = own.take()
        assert (hiding.encode(), binding.encode()) == (unhex(one["hiding_nonce"]), unhex(one["binding_nonce"]))


def test_round_two_and_the_signature(vector: dict[str, Any]) -> None:
    shares, message = shares_of(vector), unhex(vector["inputs"]["message"])
    nonces = nonces_of(vector, shares)
    commitments = [one.commitment for one in nonces.values()]
    signed = {one: sign(shares[one], nonces[one], message, commitments) for one in nonces}
    for one in vector["round_two_outputs"]["outputs"]:
        assert signed[one["identifier"]] == unhex(one["sig_share"])
        assert verify_share(shares[1].group, one["identifier"], signed[one["identifier"]], message, commitments)
    assert aggregate(shares[1].group, message, commitments, signed) == unhex(vector["final_output"]["sig"])
