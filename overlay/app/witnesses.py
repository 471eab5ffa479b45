"""What a running node gives to the witnessing of logs: its keys, who could be a witness, and its links."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from audit.log import AuditLog
from audit.start import OwnParts
from audit.witness import WitnessKey
from audit.witnessing import Witnessing, WitnessingParts
from overlay.core.certificates import Root
from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.trust import TrustSet
from overlay.events import PeerWarning
from overlay.net.node import Node
from overlay.registry import FrameType, Reason


class WitnessPorts:
    """Of one node. Until it has an engine nothing is sent."""

    def __init__(
        self, log: AuditLog, identity: Callable[[], LocalIdentity], trust: Callable[[], TrustSet], at: Callable[[], datetime]
    ) -> None:
        self.engine: Node | None = None
        self.forked: Callable[[bytes, bytes], None] = lambda _one, _other: None  # two notes of one size and two roots
        self._log = log
        self._identity = identity
        self._trust = trust
        self._at = at

    async def open(self, root: Root, within: float) -> Witnessing:
        """The machine's driver. Raises StateDamaged."""
        own = OwnParts(
            root=root, at=self._at, candidates=self.candidates, send=self._send, reject=self._reject, within=within
        )
        parts = WitnessingParts(own=own, key=self.key, forked=self._on_fork, alarm=self._alarm)
        return await Witnessing.open(self._log, parts)

    def key(self) -> WitnessKey | None:
        """Our witness key, while its endorsement holds."""
        identity = self._identity()
        if identity.witness is None:
            return None
        endorsement = identity.verified.endorsement
        return WitnessKey(identity.witness, endorsement.not_before, endorsement.not_after)

    def candidates(self) -> Mapping[NodeId, Sequence[str]]:
        """Members whose logs show a witness key that is in force, and against whom there is nothing; with their roles."""
        trust, at = self._trust(), self._at()
        return {
            node: key.peer.roles for node, key in self._log.replica.witness_candidates().items()
            if trust.revocation_of(node) is None and trust.quarantine_end(node, at) is None
        }  # fmt: skip

    def _on_fork(self, one: bytes, other: bytes) -> None:
        self.forked(one, other)

    def _alarm(self, node_id: NodeId, detail: str) -> None:
        known = self._log.replica.certificate_of(node_id)
        if self.engine is not None:
            self.engine.emit(PeerWarning(name="" if known is None else known.name, node=str(node_id), detail=detail))

    def _send(self, peer: NodeId, frame: FrameType, body: bytes) -> None:
        if self.engine is not None:
            self.engine.tell(peer, frame, body)

    def _reject(self, peer: NodeId, reason: Reason, detail: str) -> None:
        if self.engine is not None:
            self.engine.rejected(peer, reason, detail)
