"""Signs, places and checks work with the keys of a node that runs in this process, and with what that node knows."""

from datetime import datetime, timedelta
from typing import Any

from overlay.app.local import LocalNode
from overlay.core.keys import NodeId
from overlay.core.trust import VerifiedPeer
from overlay.core.work import checks, signing
from overlay.core.work.envelopes import SignedPlacement, SignedResult, SignedWorkload
from overlay.core.work.placement import LIFE, NONCE_SIZE
from overlay.core.work.result import WorkResult
from overlay.core.work.view import WorkerView
from overlay.core.work.workload import ID_SIZE, LIFE_MAX, Artifact, Workload
from overlay.errors import PeerUnreachable


class WorkDesk:
    """One node's. Nothing here waits or sends; who moves the bytes is the caller's affair."""

    def __init__(self, node: LocalNode, *, dual_control: bool = False) -> None:
        """`dual_control`: whether this node, as a worker, takes only what two persons have signed."""
        self._node = node
        self._engine = node.engine
        self._dual_control = dual_control

    @property
    def at(self) -> datetime:
        """The time by which this node judges."""
        return self._engine.parts.calendar()

    @property
    def view(self) -> WorkerView:
        """What this node knows at this moment, for `check_assignment` and `WorkBook`; ask anew for each question."""
        engine = self._engine
        return WorkerView(
            own=engine.identity.verified, trust=engine.parts.trust(), members=self._node.seat.ledger.members,
            shown_level=engine.shown_level, limit=engine.parts.standings.limit, dual_control=self._dual_control,
        )

    def new_workload(self, name: str, artifact: Artifact, *, life: timedelta | None = None, **fields: Any) -> Workload:
        """A workload by this node, from now on, for as long as its keys last unless `life` says less.

        Args:
            name: how people call it.
            artifact: what runs.
            fields: others of `Workload`: arguments, environment, limits, inputs, outputs, level, schedulers, workers, runs,
                second.
        """
        own, begin = self._engine.identity, self.at.replace(microsecond=0)
        end = min(begin + (LIFE_MAX if life is None else life), own.verified.not_after)
        return Workload(
            originator=own.node_id, id=self._engine.parts.chance.token(ID_SIZE), name=name, not_before=begin, not_after=end,
            artifact=artifact, **fields,
        )

    def sign(self, workload: Workload) -> SignedWorkload:
        """As its originator. Raises UsageError: see `sign_workload`."""
        return signing.sign_workload(workload, own=self._engine.identity, mesh_id=self._node.mesh_id)

    def countersign(self, signed: SignedWorkload) -> SignedWorkload:
        """As its second signer. Raises UsageError: see `countersign_workload`."""
        return signing.countersign_workload(signed, own=self._engine.identity, mesh_id=self._node.mesh_id)

    def place(self, signed: SignedWorkload, worker: NodeId, *, run: int = 1, life: timedelta = LIFE) -> SignedPlacement:
        """As a scheduler: this run starts on this worker. Raises UsageError: see `overlay.work.place`."""
        return signing.place(
            signed, run=run, worker=worker, own=self._engine.identity, mesh_id=self._node.mesh_id, at=self.at,
            nonce=self._engine.parts.chance.token(NONCE_SIZE), life=life,
        )  # fmt: skip

    def sign_result(self, result: WorkResult) -> SignedResult:
        """As the worker. Raises UsageError: see `overlay.work.sign_result`."""
        return signing.sign_result(result, own=self._engine.identity, mesh_id=self._node.mesh_id)

    def check_workload(self, signed: SignedWorkload) -> tuple[VerifiedPeer, ...]:
        """Its signers, if it may run here without a placement. Raises Refused: see `overlay.work.check_workload`."""
        return checks.check_workload(signed, self.view, self.at)

    def check_result(self, signed: SignedResult, placement: SignedPlacement) -> VerifiedPeer:
        """The worker, if the result is by it and about this placement. Raises Refused: see `overlay.work.check_result`."""
        return checks.check_result(signed, placement, self.view, self.at)

    def worker(self, name: str) -> NodeId:
        """The id of a linked member, by name or id. Raises PeerUnreachable."""
        for peer in self._node.peers:
            if name in (peer.name, str(peer.node_id)):
                return peer.node_id
        raise PeerUnreachable(f"there is no link to {name}", hint="`overlay status` shows who is linked")
