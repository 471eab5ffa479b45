"""Rows about the authority: what one signer computes for a signature of 4 of 5, wire and checks of requests apart."""

import time

import nacl.bindings

from bench.row import Row, row
from overlay.core.authority.frost import Commitment, Nonces, aggregate, commit, sign, verify_share
from overlay.core.authority.group import BASE, WIDE_SIZE, Scalar
from overlay.core.authority.sharing import GroupKey, Share, split
from overlay.net.system import SystemChance

THRESHOLD, MEMBERS = 4, 5
SIGNATURES = 100
MESSAGE = bytes(600)  # about a certificate
CHANCE = SystemChance()


async def signing(runs: int) -> list[Row]:
    """Both rounds of one signer; verifying and putting together are the coordinator's."""
    shares = _dealt()
    signer, coordinator = [], []
    for _ in range(runs):
        times = [_once(shares) for _ in range(SIGNATURES)]
        signer.append(sum(ours for ours, _ in times) / SIGNATURES)
        coordinator.append(sum(theirs for _, theirs in times) / SIGNATURES)
    return [row("frost_signer_ms", "ms", signer), row("frost_coordinator_ms", "ms", coordinator)]


def _dealt() -> list[Share]:
    secret, *rest = (Scalar.reduce(nacl.bindings.randombytes(WIDE_SIZE)) for _ in range(THRESHOLD))
    parts = split(secret, THRESHOLD, MEMBERS, rest)
    group = GroupKey(THRESHOLD, (BASE * secret).encode(), {one: (BASE * part).encode() for one, part in parts.items()})
    return [Share(one, 0, part, group) for one, part in parts.items()][:THRESHOLD]


def _once(shares: list[Share]) -> tuple[float, float]:
    """Milliseconds of the first signer, and of whoever puts together."""
    began = time.perf_counter()
    own, shown = commit(shares[0], CHANCE)
    took = time.perf_counter() - began
    nonces, commitments = _others(shares)
    commitments = [shown, *commitments]
    began = time.perf_counter()
    signed = {shares[0].identifier: sign(shares[0], own, MESSAGE, commitments)}
    took += time.perf_counter() - began
    signed |= {
        share.identifier: sign(share, one, MESSAGE, commitments) for share, one in zip(shares[1:], nonces, strict=True)
    }
    return took * 1000, _put_together(shares[0].group, commitments, signed) * 1000


def _others(shares: list[Share]) -> tuple[list[Nonces], list[Commitment]]:
    made = [commit(share, CHANCE) for share in shares[1:]]
    return [nonces for nonces, _ in made], [shown for _, shown in made]


def _put_together(group: GroupKey, commitments: list[Commitment], signed: dict[int, bytes]) -> float:
    """Seconds: each share is verified as it comes, then all together."""
    began = time.perf_counter()
    for identifier, share in signed.items():
        assert verify_share(group, identifier, share, MESSAGE, commitments)
    aggregate(group, MESSAGE, commitments, signed)
    return time.perf_counter() - began
