"""COCKTAIL-DKG: the published vectors of COCKTAIL(Ed25519, SHA-512), with all that stands in them between beginning and end.

They hold no ephemeral secret, so a share is sealed once more under the key that its receiver computes, which is the same one.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from overlay.core.authority import cocktail
from overlay.core.authority.cocktail import Contribution, Setup
from overlay.core.authority.cocktail_primitives import SealKey, add_points, add_scalars, sha512, sign, signature_nonce, verify
from overlay.core.authority.group import BASE, Point, Scalar
from overlay.core.authority.sharing import GroupKey, evaluate, evaluate_commitment, lagrange
from overlay.errors import Refused
from overlay.registry import Reason

pytestmark = pytest.mark.vectors

FILE = "frost/cocktail-dkg-ed25519-sha512.json"
CASES = ("2 of 3", "3 of 5", "7 of 14", "2 of 3 with payloads")


@dataclass(frozen=True, slots=True)
class Case:
    """One vector, read."""

    raw: dict[str, Any]
    setup: Setup
    secrets: tuple[Scalar, ...]
    contributions: tuple[Contribution, ...]
    payloads: tuple[bytes, ...]

    @property
    def count(self) -> int:
        return len(self.secrets)

    def key(self, sender: int, receiver: int) -> SealKey:
        """As the receiver computes it."""
        ephemeral, static = self.contributions[sender - 1].ephemeral, self.setup.static_keys[sender - 1]
        return SealKey.of_receiver(self.setup.context, self.secrets[receiver - 1], ephemeral, static)

    def share(self, sender: int, receiver: int) -> Scalar:
        """s_sender,receiver."""
        return self.key(sender, receiver).open(self.contributions[sender - 1].ciphertexts[receiver - 1])[0]


def points(texts: Sequence[str]) -> tuple[Point, ...]:
    return tuple(Point.from_bytes(bytes.fromhex(text)) for text in texts)


def contribution(row: dict[str, Any]) -> Contribution:
    (ephemeral,) = points([row["ephemeral_public_key"]])
    sealed = tuple(bytes.fromhex(text) for text in row["encrypted_shares"])
    return Contribution(points(row["vss_commitment"]), bytes.fromhex(row["pop"]), ephemeral, sealed)


@pytest.fixture(params=range(len(CASES)), ids=CASES)
def case(request: pytest.FixtureRequest, vectors: Callable[[str], Any]) -> Case:
    raw = vectors(FILE)["vectors"][request.param]
    keys = points(raw["config"]["static_public_keys"])
    setup = Setup.of(raw["t"], keys, bytes.fromhex(raw["session_tag"]))
    secrets = tuple(Scalar.from_bytes(bytes.fromhex(text)) for text in raw["config"]["static_secret_keys"])
    payloads = tuple(bytes.fromhex(text) for text in raw.get("payloads", []))
    return Case(raw, setup, secrets, tuple(contribution(row) for row in raw["round1"]), payloads)


def interpolate(shares: dict[int, Scalar], place: Scalar) -> Scalar:
    """f(place) of the polynomial through these."""
    terms = []
    for identifier, value in shares.items():
        factor = Scalar.of(1)
        for other in shares:
            if other != identifier:
                factor = factor * (place - Scalar.of(other)) * (Scalar.of(identifier) - Scalar.of(other)).invert()
        terms.append(factor * value)
    return add_scalars(terms)


def test_the_context_binds_session_suite_and_members(case: Case) -> None:
    assert case.setup.context.hex() == case.raw["context"]
    assert len(case.setup.static_keys) == case.raw["n"] == case.count
    for secret, public in zip(case.secrets, case.setup.static_keys, strict=True):
        assert (BASE * secret).encode() == public.encode()


def test_the_proof_of_possession_and_each_step_of_it(case: Case) -> None:
    for index, (row, made) in enumerate(zip(case.raw["round1"], case.contributions, strict=True), 1):
        steps = row["pop_intermediate"]
        message = made.proven(case.setup.context)
        assert message.hex() == steps["message"]
        received = {receiver: case.share(index, receiver) for receiver in range(1, case.count + 1)}
        secret = interpolate(received, Scalar.of(0))
        assert bytes.fromhex(steps["nonce_input"]) == b"COCKTAIL-DKG-Ed25519-SHA512-NONCE" + secret.encode() + message
        nonce = signature_nonce(secret, message)
        assert nonce.encode().hex() == steps["nonce"]
        assert (BASE * nonce).encode().hex() == steps["nonce_commitment"]
        assert Scalar.reduce(sha512(bytes.fromhex(steps["challenge_input"]))).encode().hex() == steps["challenge"]
        assert sign(secret, message) == made.proof
        verify(made.commitment[0], message, made.proof)


def test_every_share_opens_fits_and_is_sealed_to_the_same_bytes(case: Case) -> None:
    for sender, made in enumerate(case.contributions, 1):
        for receiver in range(1, case.count + 1):
            key = case.key(sender, receiver)
            share, payload = key.open(made.ciphertexts[receiver - 1])
            assert payload == (case.payloads[sender - 1] if case.payloads else b"")
            assert key.seal(share, payload) == made.ciphertexts[receiver - 1]
            assert (BASE * share).encode() == evaluate_commitment(made.commitment, receiver).encode()
            checked = cocktail.open_share(
                case.setup, made, sender=sender, receiver=receiver, static=case.secrets[receiver - 1]
            )
            assert checked.encode() == share.encode()


def test_the_polynomials_are_those_of_the_commitments(case: Case) -> None:
    for sender, made in enumerate(case.contributions, 1):
        some = {index: case.share(sender, index) for index in range(1, case.setup.threshold + 1)}
        assert (BASE * interpolate(some, Scalar.of(0))).encode() == made.commitment[0].encode()
        for receiver in range(case.setup.threshold + 1, case.count + 1):
            assert interpolate(some, Scalar.of(receiver)).encode() == case.share(sender, receiver).encode()


def test_round_two(case: Case) -> None:
    group = cocktail.combine(case.setup, case.contributions)
    assert group.threshold == case.raw["t"]
    assert group.public.hex() == case.raw["group_public_key"]
    for row in case.raw["round2"]:
        index = row["participant_id"]
        secret = add_scalars([case.share(sender, index) for sender in range(1, case.count + 1)])
        assert secret.encode().hex() == row["secret_share"]
        assert group.shares[index].hex() == row["verification_share"]


def test_round_three(case: Case) -> None:
    transcript = cocktail.transcript(case.setup, case.contributions, bytes.fromhex(case.raw["extension"]))
    assert sha512(transcript).hex() == case.raw["round3"]["transcript_hash"]
    for row in case.raw["round3"]["signatures"]:
        index, signature = row["signer_id"] - 1, bytes.fromhex(row["signature"])
        verify(case.setup.static_keys[index], transcript, signature)
        assert sign(case.secrets[index], transcript) == signature


def test_the_extension_is_the_hash_of_the_payloads(case: Case) -> None:
    wanted = b""
    if case.payloads:
        framed = b"".join(struct.pack("<Q", len(payload)) + payload for payload in case.payloads)
        wanted = sha512(struct.pack("<Q", case.count) + framed)
    assert case.raw["extension"] == wanted.hex()


def test_recovery_opens_the_same_ciphertexts(case: Case) -> None:
    if "recovery" not in case.raw:
        pytest.skip("this vector has no recovery")
    recovery = case.raw["recovery"]
    index = recovery["participant_id"]
    assert recovery["ciphertexts"] == [row["encrypted_shares"][index - 1] for row in case.raw["round1"]]
    shares = [
        case.key(sender, index).open(bytes.fromhex(sealed))[0] for sender, sealed in enumerate(recovery["ciphertexts"], 1)
    ]
    total = add_scalars(shares)
    assert total.encode().hex() == recovery["recovered_secret_share"]
    assert (BASE * total).encode().hex() == recovery["recovered_verification_share"]


def test_a_contribution_reads_back_as_it_was_written(case: Case) -> None:
    for made in case.contributions:
        if case.payloads:
            with pytest.raises(Refused) as refused:
                Contribution.parse(made.encode(), case.setup.threshold, case.count)  # we send no payloads and take none
            assert refused.value.reason is Reason.MALFORMED
        else:
            assert Contribution.parse(made.encode(), case.setup.threshold, case.count).encode() == made.encode()


def test_any_t_of_them_hold_the_key(case: Case) -> None:
    secrets = {row["participant_id"]: Scalar.from_bytes(bytes.fromhex(row["secret_share"])) for row in case.raw["round2"]}
    some = sorted(secrets)[-case.setup.threshold :]
    key = add_scalars([lagrange(index, some) * secrets[index] for index in some])
    assert (BASE * key).encode().hex() == case.raw["group_public_key"]


def test_what_we_contribute_ourselves_goes_through_the_same_checks(case: Case) -> None:
    coefficients = [Scalar.reduce(sha512(b"a", bytes([number]))) for number in range(case.setup.threshold)]
    ephemeral = Scalar.reduce(sha512(b"e"))
    made = cocktail.contribute(case.setup, case.secrets[0], coefficients, ephemeral)
    for receiver, secret in enumerate(case.secrets, 1):
        share = cocktail.open_share(case.setup, made, sender=1, receiver=receiver, static=secret)
        assert share.encode() == evaluate(coefficients, receiver).encode()
    group: GroupKey = cocktail.combine(case.setup, [made])
    assert group.public == add_points([BASE * coefficients[0]]).encode()
