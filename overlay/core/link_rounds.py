"""Rounds of evidence as one link sees them: which nonces are open at both ends, and when the peer's proof is overdue."""

import math

from overlay.core import limits
from overlay.core.evidence import Binding
from overlay.core.limits import AttestTimes
from overlay.core.rounds import UNASKED, Nonces
from overlay.errors import Refused
from overlay.registry import Reason


class LinkRounds:
    """Of one link."""

    def __init__(self, times: AttestTimes) -> None:
        self._times = times
        self._nonces = Nonces()
        self._unasked_at = -math.inf  # when we asked last without being asked to
        self._asked_at = -math.inf  # when the peer did
        self._own: tuple[int, ...] = ()  # rounds of ours, for which the peer has given no nonce yet

    def opened(self, number: int) -> None:
        """We lead a round."""
        self._own = (*self._own, number)[-limits.ROUNDS_OPEN :]

    def give(self, number: int, binding: Binding, now: float) -> None:
        """We gave a nonce. Raises Refused(BAD_EVIDENCE) for a round that has one, or too many rounds."""
        self._nonces = self._nonces.give(number, binding, now)
        if number == UNASKED:
            self._unasked_at = now

    def take(self, number: int, now: float) -> tuple[Binding, Nonces]:
        """To what evidence must be bound, and the nonces that are left once it was good: `used`. Raises Refused."""
        return self._nonces.use(number, now)

    def used(self, left: Nonces) -> None:
        """The evidence was good."""
        self._nonces = left

    def answer(self, number: int, now: float) -> None:
        """The peer gave a nonce: one for each round of ours, and one unasked now and then. Nobody else makes our TPM work.

        Raises Refused(UNEXPECTED_FRAME).
        """
        if number == UNASKED and now >= self._asked_at + limits.UNASKED_NONCE_EVERY / 2:
            self._asked_at = now
        elif number in self._own:
            self._own = tuple(one for one in self._own if one != number)
        else:
            raise Refused(Reason.UNEXPECTED_FRAME, f"a nonce that round {number} did not ask for")

    def overdue(self, since: float) -> float:
        """When we ask without being asked to, if the last good evidence is of then."""
        return max(since + self._times.overdue, self._unasked_at + limits.UNASKED_NONCE_EVERY)
