"""What a signer has bound for a renewal, as long as no share of it has left: given up with the last signature that needs it.

A row of `Bindings` is for ever once a share has left. Before that it would only keep an honest node from beginning anew, when
too few others had agreed. What a crash leaves behind stays bound.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from overlay.core.authority.bindings import Binding, Bound, claims_of
from overlay.core.authority.requests import Request
from overlay.core.authority.x509_requests import IssueLeaf
from overlay.core.certificate_profile import Issuer

Wanted = tuple[Request, bytes]  # a request and the message that comes of it


@dataclass(frozen=True, slots=True)
class Reservations:
    """Of one share, since it was taken into use. A value."""

    issuer: Issuer
    rows: frozenset[Binding] = field(default=frozenset(), repr=False)

    def with_bound(self, wanted: Wanted, added: Iterable[Binding]) -> "Reservations":
        """After these rows were bound, for the first time."""
        return Reservations(self.issuer, self.rows | self._of(wanted).intersection(added))

    def with_signed(self, wanted: Wanted) -> "Reservations":
        """A share of this leaves: what it rests on is bound for ever."""
        return Reservations(self.issuer, self.rows - self._of(wanted))

    def given_up(self, under_way: Iterable[Wanted]) -> frozenset[Binding]:
        """What no signature that is under way needs any more."""
        if not self.rows:
            return self.rows
        return self.rows.difference(*(self._of(one) for one in under_way))

    def _of(self, wanted: Wanted) -> frozenset[Binding]:
        """Serial and place of a renewal; names and uses of invites are given once, whatever becomes of it."""
        request, message = wanted
        if not isinstance(request, IssueLeaf) or request.renews is None:
            return frozenset()
        claims = claims_of(request, self.issuer, message)
        return frozenset(claim for claim in claims if claim.kind in (Bound.SERIAL, Bound.RENEWED))
