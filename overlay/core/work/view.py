"""What a worker knows of the others at one moment: who counts for what. Whoever makes a view makes it anew for each question.

Level of an author: the lowest of what its certificate says, what its link has shown, and what others' findings leave it. A
role counts from the level that the policy wants for it, and only as long as the newest certificate that we know has it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from overlay.core.guard import asked
from overlay.core.keys import MeshId, NodeId
from overlay.core.members import Members
from overlay.core.trust import Credentials, TrustSet, VerifiedPeer
from overlay.core.work.seen_credentials import SeenCredentials
from overlay.errors import Refused
from overlay.registry import Reason

SUBMIT: Final = "submit"
SCHEDULE: Final = "scheduler"

_BARRED: Final = frozenset({Reason.REVOKED, Reason.QUARANTINED})


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """Ports may raise: then the answer is no."""

    own: VerifiedPeer  # this worker
    trust: TrustSet
    members: Members = field(repr=False)
    shown_level: Callable[[NodeId], int | None] = field(repr=False)  # by its lease; None for one that is not linked
    limit: Callable[[NodeId], int] = field(repr=False)  # the highest level that counts, for what others have found
    dual_control: bool = False  # whether this worker takes only what two persons have signed
    seen: SeenCredentials = field(default_factory=SeenCredentials, repr=False, compare=False)

    @property
    def mesh_id(self) -> MeshId:
        """The mesh."""
        return self.trust.mesh_id

    def verify(self, credentials: Credentials, at: datetime) -> VerifiedPeer:
        """Certificate and endorsement, in force at `at`; whether anything speaks against them is asked by `check_standing`.

        Raises:
            Refused: any reason of `TrustSet.verify` but REVOKED and QUARANTINED.
        """
        return self.seen.verify(credentials, replace(self.trust, lists=(), quarantines=frozenset()), at)

    def check_standing(self, peer: VerifiedPeer, at: datetime, barred: Reason, who: str) -> None:
        """Whether anything speaks against it now.

        Raises:
            Refused: `barred` where it is revoked or in quarantine; any other reason of `TrustSet.judge`.
        """
        try:
            self.trust.judge(peer, at)
        except Refused as error:
            raise Refused(barred if error.reason in _BARRED else error.reason, f"{who} {error.detail}") from None

    def has_role(self, peer: VerifiedPeer, role: str) -> bool:
        """Whether its certificate, and the newest one that we know of it, have this role."""
        seen = self.members.get(peer.node_id)
        newer = seen is not None and seen.not_before > peer.certificate.not_before
        return role in peer.roles and (seen is None or not newer or role in seen.roles)

    def level_for(self, role: str) -> int:
        """From which level on the policy lets this role count."""
        need = self.trust.policy.policy.needs.role(role)
        return 0 if need is None else need.level

    def author_level(self, peer: VerifiedPeer) -> int:
        """What counts of one that need not be linked."""
        shown = self._shown(peer.node_id)
        found = min(peer.certificate.level, asked(lambda: self.limit(peer.node_id)))
        return found if shown is None else min(found, shown)

    def lease_level(self, peer: VerifiedPeer) -> int | None:
        """What counts of one that is linked; None for one that is not. This node itself needs no link."""
        return None if self._shown(peer.node_id) is None else self.author_level(peer)

    def _shown(self, node_id: NodeId) -> int | None:
        if node_id == self.own.node_id:
            return self.own.certificate.level
        return asked(lambda: self.shown_level(node_id))
