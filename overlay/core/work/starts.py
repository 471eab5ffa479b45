"""Two workers that have started one run: found in what workers log, and shown to others as two placements.

Each `work.start` entry carries the placement as its scheduler signed it. A scheduler that signs one run of one workload over
to two workers has broken its word, and whoever holds both signatures can prove it. This detects, and does not prevent.

- a placement that does not name the author of the entry says nothing: others may have copied it
- nobody is accused before both signatures have verified, as of the time of the placements
- where two schedulers placed one run, each by itself did nothing wrong: that is told, and proves nothing
"""

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final

from overlay.core.keys import NodeId
from overlay.core.trust import TrustSet, VerifiedPeer
from overlay.core.wire import Bytes, make_map, malformed, open_map
from overlay.core.work.envelopes import SIGNED_PLACEMENT_MAX, SignedPlacement
from overlay.core.work.view import SCHEDULE
from overlay.errors import Refused
from overlay.registry import Reason

STARTS_MAX: Final = 65_536  # remembered, the newest: our guess, some 100 MiB of placements at most, usually a tenth
PROOF_MAX: Final = 2 * SIGNED_PLACEMENT_MAX + 32

_CARRIED: Final = Bytes(1, SIGNED_PLACEMENT_MAX)


@dataclass(frozen=True, slots=True)
class PlacedTwice:
    """One run on two workers, by verified placements. It is a proof where one scheduler signed both."""

    first: SignedPlacement
    second: SignedPlacement
    schedulers: tuple[VerifiedPeer, ...] = field(repr=False)  # one, or two

    @property
    def is_proof(self) -> bool:
        """Whether it speaks against one scheduler."""
        return len(self.schedulers) == 1

    @property
    def workload(self) -> bytes:
        """Hash of the workload, 32 bytes."""
        return self.first.says.workload

    @property
    def run(self) -> int:
        """Its number."""
        return self.first.says.run

    @property
    def workers(self) -> tuple[NodeId, NodeId]:
        """Where it was placed."""
        return self.first.says.worker, self.second.says.worker

    def pack(self) -> bytes:
        """{0:1, 1:carried placement, 2:carried placement}, for who wants to check it: see `check_proof`."""
        return make_map(self.first.pack(), self.second.pack())


def check_proof(raw: bytes, trust: TrustSet) -> PlacedTwice:
    """Whether these two placements are of one run on two workers, signed by members who were schedulers then.

    Raises:
        Refused: MALFORMED for two that do not contradict each other; SCHEDULER_ROLE, SCHEDULER_SIGNATURE, any reason of
            `TrustSet.verify`, or what is wrong with the form.
    """
    first, second = open_map(raw, _CARRIED, _CARRIED, limit=PROOF_MAX)
    return _compare(SignedPlacement.unpack(first), SignedPlacement.unpack(second), trust)


def _compare(first: SignedPlacement, second: SignedPlacement, trust: TrustSet) -> PlacedTwice:
    if (first.says.workload, first.says.run) != (second.says.workload, second.says.run):
        malformed("placements of two runs")
    if first.says.worker == second.says.worker:
        malformed("placements on one worker")
    signers = {peer.node_id: peer for peer in (verify_past(first, trust), verify_past(second, trust))}
    return PlacedTwice(first, second, tuple(signers.values()))


def verify_past(placement: SignedPlacement, trust: TrustSet) -> VerifiedPeer:
    """Who signed it, by credentials that were in force then; revocations since change nothing about that.

    Raises:
        Refused: SCHEDULER_ROLE, SCHEDULER_SIGNATURE, or any reason of `TrustSet.verify`.
    """
    past = replace(trust, lists=(), quarantines=frozenset())
    peer = past.verify(placement.credentials, placement.says.not_before)
    if peer.node_id != placement.says.scheduler:
        raise Refused(Reason.SCHEDULER_SIGNATURE, f"{peer.name} placed this in the name of another node")
    placement.check_signature(peer, trust.mesh_id)
    if SCHEDULE not in peer.roles:
        raise Refused(Reason.SCHEDULER_ROLE, f"{peer.name} had not the role {SCHEDULE}")
    return peer


class StartWatch:
    """Fed with `work.start` entries of all logs, in any order. It keeps what it was given, and verifies when two meet."""

    def __init__(self) -> None:
        self._starts: OrderedDict[tuple[bytes, int], SignedPlacement] = OrderedDict()
        self._told: set[tuple[bytes, int]] = set()

    def heard(self, worker: NodeId, carried: bytes, trust: TrustSet) -> PlacedTwice | None:
        """A worker has started what this placement gave it. Never raises; another worker's start of the run comes back."""
        try:
            found = SignedPlacement.unpack(carried)
        except Refused:
            return None
        key = found.says.workload, found.says.run
        if found.says.worker != worker or key in self._told:
            return None
        known = self._starts.get(key)
        if known is None or known.says.worker == worker:
            self._keep(key, found)
            return None
        return self._meet(key, known, found, trust)

    def _meet(
        self, key: tuple[bytes, int], known: SignedPlacement, found: SignedPlacement, trust: TrustSet
    ) -> PlacedTwice | None:
        """Two starts of one run: one of them may be made up by its worker, then it is dropped."""
        if not _is_real(found, trust):
            return None
        if not _is_real(known, trust):
            self._starts[key] = found
            return None
        self._told.add(key)
        del self._starts[key]
        return _compare(known, found, trust)

    def _keep(self, key: tuple[bytes, int], found: SignedPlacement) -> None:
        self._starts[key] = found
        while len(self._starts) > STARTS_MAX:
            self._starts.popitem(last=False)


def _is_real(placement: SignedPlacement, trust: TrustSet) -> bool:
    try:
        verify_past(placement, trust)
    except Refused:
        return False
    return True
