"""Credentials that have verified a moment ago: a scheduler that places a hundred runs a second shows the same ones each time.

Kept are the certificate's and the endorsement's signatures only, for a minute and under the same roots. Their times are
looked at each time, and whether anything speaks against them is never kept.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from overlay.core.certificates import TOLERANCE
from overlay.core.roots import Roots
from overlay.core.trust import Credentials, TrustSet, VerifiedPeer

SEEN_MAX: Final = 256  # our guess: signers of one minute; some 3 KiB each
SEEN_FOR: Final = timedelta(seconds=60)  # our guess; a tolerance of five minutes covers what ends meanwhile


@dataclass(frozen=True, slots=True)
class _Seen:
    peer: VerifiedPeer
    roots: Roots
    at: datetime


class SeenCredentials:
    """Of one worker, bounded; the oldest are dropped."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Credentials, _Seen] = OrderedDict()

    def verify(self, credentials: Credentials, bare: TrustSet, at: datetime) -> VerifiedPeer:
        """As `TrustSet.verify` of a set without revocations and quarantines. Raises Refused, as that does."""
        known = self._seen.get(credentials)
        if known is not None and known.roots == bare.roots and _is_fresh(known, at):
            bare.judge(known.peer, at)
            return known.peer
        peer = bare.verify(credentials, at)
        self._seen.pop(credentials, None)
        self._seen[credentials] = _Seen(peer, bare.roots, at)
        while len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        return peer


def _is_fresh(known: _Seen, at: datetime) -> bool:
    peer = known.peer
    begin = max(peer.certificate.not_before, peer.endorsement.not_before)
    return known.at <= at < known.at + SEEN_FOR and begin - TOLERANCE <= at <= peer.not_after + TOLERANCE
