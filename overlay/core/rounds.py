"""Continuous attestation: what one link keeps of it, and the leader that makes one quote serve all links of a node.

The attester leads: ATTEST_OPEN, a ROUND_NONCE from each peer, one quote, EVIDENCE to each (docs/protocol/attestation.md).
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from overlay.core import limits
from overlay.core.chance import Chance
from overlay.core.evidence import Binding, Evidence
from overlay.core.limits import AttestTimes
from overlay.core.wire import Array, Bytes, UInt, make_map, malformed, open_map
from overlay.errors import Refused
from overlay.registry import Reason

UNASKED = 0  # the round number of a nonce that nobody asked for


def pack_round(number: int) -> bytes:
    """ATTEST_OPEN{round}."""
    return make_map(number)


def unpack_round(body: bytes) -> int:
    """Raises Refused(MALFORMED)."""
    (number,) = open_map(body, UInt(), limit=64)
    if number == UNASKED:
        malformed("round 0 is nobody's")
    return int(number)


def pack_nonce(number: int, nonce: bytes) -> bytes:
    """ROUND_NONCE{round, nonce32}."""
    return make_map(number, nonce)


def unpack_nonce(body: bytes) -> tuple[int, bytes]:
    """Raises Refused(MALFORMED)."""
    number, nonce = open_map(body, UInt(), Bytes(limits.NONCE_SIZE), limit=128)
    return number, nonce


def pack_evidence(number: int, evidence: Evidence) -> bytes:
    """EVIDENCE{round, n, index, path, claims, AK public, quote, signature}."""
    return make_map(
        number, evidence.count, evidence.index, list(evidence.path), evidence.claims, evidence.ak_public, evidence.quote,
        evidence.signature,
    )


def unpack_evidence(body: bytes) -> tuple[int, Evidence]:
    """Raises Refused(MALFORMED or TOO_LARGE)."""
    number, count, index, path, claims, ak_public, quote, signature = open_map(
        body, UInt(), UInt(limits.ROUND_LEAVES_MAX), UInt(limits.ROUND_LEAVES_MAX - 1), Array(Bytes(32), 16), Bytes(0, 1024),
        Bytes(0, 1024), Bytes(0, 2048), Bytes(0, 1024), limit=limits.CONTROL_MAX,
    )
    evidence = Evidence(
        count=count, index=index, path=tuple(path), claims=claims, ak_public=ak_public, quote=quote, signature=signature
    )
    return number, evidence


# --- the verifier's part, one per link --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutstandingNonce:
    """A nonce that we gave, and all that evidence for it must be bound to."""

    binding: Binding
    expires: float  # monotonic


@dataclass(frozen=True, slots=True)
class Nonces:
    """The nonces given on one link. A nonce lives 10 s and is used once; a round has one."""

    given: dict[int, OutstandingNonce] = field(default_factory=dict)

    def give(self, number: int, binding: Binding, now: float) -> "Nonces":
        """Remember a nonce; raises Refused(BAD_EVIDENCE) if the round has one that is still open."""
        alive = {key: one for key, one in self.given.items() if one.expires > now}
        if number in alive and number != UNASKED:
            raise Refused(Reason.BAD_EVIDENCE, f"round {number} was opened twice")
        if len(alive) >= limits.ROUNDS_OPEN:
            raise Refused(Reason.BAD_EVIDENCE, "too many rounds at once")
        return Nonces(alive | {number: OutstandingNonce(binding, now + limits.NONCE_LIFE)})

    def use(self, number: int, now: float) -> "tuple[Binding, Nonces]":
        """The binding of a round's nonce, which is gone after this; raises Refused(EVIDENCE_STALE)."""
        one = self.given.get(number)
        if one is None or now >= one.expires:
            raise Refused(Reason.EVIDENCE_STALE, f"no open nonce for round {number}")
        return one.binding, Nonces({key: other for key, other in self.given.items() if key != number})


# --- the attester's part, one per node --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenRound:
    """Tell every link: ATTEST_OPEN{number}."""

    number: int


@dataclass(frozen=True, slots=True)
class ProofWanted:
    """Ask the prover once for all of these; answer with `RoundLeader.proven`."""

    number: int
    bindings: tuple[tuple[Hashable, int, Binding], ...]  # link, the round number the peer used, binding


@dataclass(frozen=True, slots=True)
class _Gathering:
    number: int
    closes: float
    awaited: frozenset[Hashable]
    got: tuple[tuple[Hashable, int, Binding], ...] = ()


class RoundLeader:
    """Collects the nonces of all links for up to 2 s (200 ms for links that join) and asks for one proof of all.

    While a proof is being made, nonces gather for the next one: the TPM does one thing at a time. A node that has just started
    meets many peers one after the other: of those that join soon after a proof, each next one waits for twice as many.
    """

    def __init__(self, *, times: AttestTimes, chance: Chance, now: float) -> None:
        self._times = times
        self._chance = chance
        self._number = 0
        self._next = now + times.every - times.jitter * chance.fraction()
        self._gathering: _Gathering | None = None
        self._joining: _Gathering | None = None
        self._join_window = limits.JOIN_WINDOW
        self._joined_at = -math.inf  # when nonces that could not wait had their last proof
        self._proving = False

    @property
    def deadline(self) -> float:
        """When `tick` is due; nonces wait while a proof is being made."""
        gathering = [one.closes for one in (self._gathering, self._joining) if one is not None and not self._proving]
        return min([self._next, *gathering], default=math.inf)

    def tick(self, now: float, links: frozenset[Hashable]) -> list[OpenRound | ProofWanted]:
        """Time in; `links` are the open ones."""
        events: list[OpenRound | ProofWanted] = []
        if now >= self._next:
            self._next = now + self._times.every - self._times.jitter * self._chance.fraction()
            if links and self._gathering is None:
                events.append(self._begin(now, links))
        return events + self._complete(now, links)

    def begin(self, now: float, links: frozenset[Hashable]) -> list[OpenRound | ProofWanted]:
        """Lead a round now, whatever the timer says."""
        return [self._begin(now, links)] if links and self._gathering is None else []

    def nonce(self, link: Hashable, number: int, binding: Binding, now: float) -> None:
        """A peer's nonce; of another round than the open one it goes into the next joint proof of its own."""
        gathering = self._gathering
        if gathering is not None and number == gathering.number and link in gathering.awaited:
            self._gathering = replace(
                gathering, got=(*gathering.got, (link, number, binding)), awaited=gathering.awaited - {link}
            )
        else:
            self.join(link, number, binding, now)

    def join(self, link: Hashable, number: int, binding: Binding, now: float) -> None:
        """A nonce that cannot wait for a round: a CHALLENGE, or one given unasked."""
        if self._joining is None:
            soon = now < self._joined_at + limits.JOIN_SOON
            self._join_window = min(2 * self._join_window, limits.ROUND_WINDOW) if soon else limits.JOIN_WINDOW
            self._joining = _Gathering(UNASKED, now + min(self._join_window, self._times.window), frozenset())
        self._joining = replace(self._joining, got=(*self._joining.got, (link, number, binding)))

    def proven(self) -> None:
        """The proof that was asked for last has been made, or has failed."""
        self._proving = False

    def _begin(self, now: float, links: frozenset[Hashable]) -> OpenRound:
        self._number += 1
        self._gathering = _Gathering(self._number, now + self._times.window, links)
        return OpenRound(self._number)

    def _complete(self, now: float, links: frozenset[Hashable]) -> list[OpenRound | ProofWanted]:
        if self._proving:
            return []
        ready: tuple[tuple[Hashable, int, Binding], ...] = ()
        gathering, joining = self._gathering, self._joining
        if gathering is not None and (now >= gathering.closes or not gathering.awaited & links):
            ready, gathering = ready + gathering.got, None
        if joining is not None and (now >= joining.closes or ready):
            ready, joining, self._joined_at = ready + joining.got, None, now
        self._gathering, self._joining = gathering, joining
        if not ready:
            return []
        self._proving = True
        return [ProofWanted(self._number, ready[: limits.ROUND_LEAVES_MAX])]
