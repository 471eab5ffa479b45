"""COCKTAIL-DKG for COCKTAIL(Ed25519, SHA-512), c2sp.org/cocktail-dkg: the computations of its rounds, without messages or time.

They are what the published vectors show; where those differ from the text stands in `cocktail_primitives.py`.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from overlay.core.authority.cocktail_primitives import (
    CIPHERTEXT_SIZE,
    SIGNATURE_SIZE,
    SealKey,
    add_points,
    join,
    read_point,
    sha512,
    sign,
    verify,
)  # fmt: skip
from overlay.core.authority.group import BASE, POINT_SIZE, Point, Scalar
from overlay.core.authority.sharing import GroupKey, commit_to, evaluate, evaluate_commitment
from overlay.errors import Refused
from overlay.registry import Reason

CIPHERSUITE: Final = b"COCKTAIL(Ed25519, SHA-512)"  # "Ciphersuite Definitions"
_CONTEXT: Final = b"COCKTAIL-DKG-CONTEXT"  # "Setup"


@dataclass(frozen=True, slots=True)
class Setup:
    """What all members agree on beforehand: index i, from 1, is the place of P_i in `static_keys`."""

    threshold: int
    static_keys: tuple[Point, ...]
    context: bytes

    @classmethod
    def of(cls, threshold: int, static_keys: Sequence[Point], session_id: bytes) -> "Setup":
        """With the recommended context ("Setup").

        Raises:
            Refused: MALFORMED for two equal keys, or a threshold that n members cannot have.
        """
        keys = tuple(static_keys)
        if not 1 <= threshold <= len(keys) or len(set(keys)) != len(keys):
            raise Refused(Reason.MALFORMED, "threshold, or two members with one static key")
        context = sha512(
            _CONTEXT, struct.pack(">Q", len(session_id)), session_id, struct.pack(">Q", len(CIPHERSUITE)), CIPHERSUITE,
            struct.pack("<I", len(keys)), *[key.encode() for key in keys],
        )  # fmt: skip
        return cls(threshold, keys, context)


@dataclass(frozen=True, slots=True)
class Contribution:
    """msg_1 of one member: C_i, PoP_i, E_i and c_i,1 to c_i,n."""

    commitment: tuple[Point, ...]
    proof: bytes
    ephemeral: Point
    ciphertexts: tuple[bytes, ...]

    def encode(self) -> bytes:
        """msg_1 as in "Protocol Messages": ciphertexts behind u64 lengths."""
        framed = [struct.pack(">Q", len(sealed)) + sealed for sealed in self.ciphertexts]
        return join(self.commitment) + self.proof + self.ephemeral.encode() + b"".join(framed)

    @classmethod
    def parse(cls, data: bytes, threshold: int, count: int) -> "Contribution":
        """Exactly `threshold` points and `count` ciphertexts of one share each; raises Refused(MALFORMED)."""
        sealed_at = threshold * POINT_SIZE + SIGNATURE_SIZE + POINT_SIZE
        frame = 8 + CIPHERTEXT_SIZE
        if len(data) != sealed_at + count * frame:
            raise Refused(Reason.MALFORMED, "length of a contribution")
        points = [read_point(data[at : at + POINT_SIZE]) for at in range(0, threshold * POINT_SIZE, POINT_SIZE)]
        frames = [data[at : at + frame] for at in range(sealed_at, len(data), frame)]
        if any(part[:8] != struct.pack(">Q", CIPHERTEXT_SIZE) for part in frames):
            raise Refused(Reason.MALFORMED, "length of a sealed share")
        proof_at = threshold * POINT_SIZE
        return cls(
            tuple(points), data[proof_at : proof_at + SIGNATURE_SIZE],
            read_point(data[sealed_at - POINT_SIZE : sealed_at]), tuple(part[8:] for part in frames),
        )  # fmt: skip

    def proven(self, context: bytes) -> bytes:
        """The message under the proof of possession."""
        return context + join(self.commitment) + self.ephemeral.encode()


def contribute(setup: Setup, static: Scalar, coefficients: Sequence[Scalar], ephemeral: Scalar) -> Contribution:
    """Round 1: the contribution of the member who has these secrets."""
    commitment = commit_to(coefficients)
    ephemeral_key = BASE * ephemeral
    proof = sign(coefficients[0], setup.context + join(commitment) + ephemeral_key.encode())
    ciphertexts = tuple(
        SealKey.of_sender(setup.context, static, ephemeral, receiver).seal(evaluate(coefficients, index))
        for index, receiver in enumerate(setup.static_keys, 1)
    )
    return Contribution(commitment, proof, ephemeral_key, ciphertexts)


def open_share(setup: Setup, contribution: Contribution, *, sender: int, receiver: int, static: Scalar) -> Scalar:
    """Round 2, for one sender: check everything that this member sent and give the share for us.

    Raises:
        Refused: BAD_SIGNATURE (proof of possession) or BAD_SHARE.
    """
    share = unseal_share(setup, contribution, sender=sender, receiver=receiver, static=static)
    check_share(contribution.commitment, receiver, share)
    return share


def unseal_share(setup: Setup, contribution: Contribution, *, sender: int, receiver: int, static: Scalar) -> Scalar:
    """The same, all but whether the share fits its commitment: that is cheaper for all senders together.

    Raises:
        Refused: BAD_SIGNATURE (proof of possession) or BAD_SHARE.
    """
    if len(contribution.commitment) != setup.threshold:
        raise Refused(Reason.BAD_SHARE, "a commitment to another threshold")
    verify(contribution.commitment[0], contribution.proven(setup.context), contribution.proof)
    key = SealKey.of_receiver(setup.context, static, contribution.ephemeral, setup.static_keys[sender - 1])
    share, _ = key.open(contribution.ciphertexts[receiver - 1])
    return share


def check_share(commitment: Sequence[Point], receiver: int, share: Scalar) -> None:
    """s * B = sum of i^k * C_k; raises Refused(BAD_SHARE)."""
    if BASE * share != evaluate_commitment(commitment, receiver):
        raise Refused(Reason.BAD_SHARE, "a share does not fit its commitment")


def combine(setup: Setup, contributions: Sequence[Contribution]) -> GroupKey:
    """The public outcome: Y and every Y_i, from C_agg."""
    total = [add_points(points) for points in zip(*[each.commitment for each in contributions], strict=True)]
    indexes = range(1, len(setup.static_keys) + 1)
    shares = {index: evaluate_commitment(total, index).encode() for index in indexes}
    return GroupKey(setup.threshold, total[0].encode(), shares)


def transcript(setup: Setup, contributions: Sequence[Contribution], extension: bytes = b"") -> bytes:
    """T of round 3, which every member signs with its static key."""
    head = struct.pack("<Q", len(CIPHERSUITE)) + CIPHERSUITE + struct.pack("<Q", len(setup.context)) + setup.context
    return b"".join([
        head, struct.pack("<II", len(setup.static_keys), setup.threshold), join(setup.static_keys),
        *[join(each.commitment) for each in contributions], *[each.proof for each in contributions],
        *[each.ephemeral.encode() for each in contributions], struct.pack("<Q", len(extension)), extension,
    ])  # fmt: skip
