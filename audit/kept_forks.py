"""A fork proof that is held, as a value: it is judged for the time at which it was found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from audit.forks import ForkProof, parse_fork
from overlay.core.certificates import Root
from overlay.core.keys import NodeId
from overlay.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFork:
    """A proof, and when it was found and held."""

    node_id: NodeId
    at: datetime  # to the second
    raw: bytes = field(repr=False)

    def verify(self, root: Root) -> ForkProof:
        """Judge it for the time at which it was found. Raises Refused, see `UnverifiedFork.verify`."""
        return parse_fork(self.raw).verify(root, self.at)


def known_forks(kept: Sequence[KeptFork], root: Root) -> list[ForkProof]:
    """Those that hold."""
    proofs = []
    for one in kept:
        try:
            proof = one.verify(root)
        except Refused:
            continue
        if proof.node_id == one.node_id:
            proofs.append(proof)
    return proofs
