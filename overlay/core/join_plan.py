"""What a joiner brings along, and what it takes for its certificate in the end."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from overlay.core.certificates import Recovered, VerifiedCertificate, parse_root, verify_leaf
from overlay.core.enrolment_files import Bundle
from overlay.core.join_frames import JoinTpm
from overlay.core.keys import MeshId, NodeId
from overlay.core.log_parts import LogSource, NoLogs
from overlay.errors import Refused
from overlay.registry import Reason


@dataclass(frozen=True, slots=True)
class Quorum:
    """Who signs, as the newest authority object says, and how many of them it takes."""

    threshold: int
    members: frozenset[NodeId]


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinPlan:
    """What the joiner brings along. The same plan serves every try: a new `not_before` is another certificate."""

    mesh_id: MeshId
    node_id: NodeId
    csr: bytes = field(repr=False)
    invite: bytes = field(repr=False)
    invite_id: bytes
    not_before: datetime
    prove: Callable[[bytes, NodeId], bytes] = field(repr=False)  # h(1), signer: 64 bytes by the token's join key
    read_authority: Callable[[tuple[bytes, ...]], Quorum]  # verifies against the pinned root; raises Refused
    name: str | None = None
    tpm: JoinTpm | None = None
    logs: LogSource = field(default_factory=NoLogs, repr=False)  # of this machine
    recovered: Callable[[], Recovered] = dict  # what the authority that was read says of its roots


def check_bundle(bundle: Bundle, plan: JoinPlan, at: datetime) -> VerifiedCertificate:
    """The leaf in it, if it is of this mesh, for the key of this plan, and of its name if it wants one.

    Raises:
        Refused: OTHER_MESH, WRONG_RECIPIENT, or any reason of `verify_leaf`.
    """
    root = parse_root(bundle.root)
    if root.mesh_id != plan.mesh_id:
        raise Refused(Reason.OTHER_MESH, "the bundle is of another mesh")
    certificate = verify_leaf(bundle.leaf, bundle.chain, replace(root, recovered=plan.recovered), at)
    if certificate.node_id != plan.node_id:
        raise Refused(Reason.WRONG_RECIPIENT, "the certificate is for another node")
    if plan.name is not None and certificate.name != plan.name:
        raise Refused(Reason.BAD_CERTIFICATE, f"the certificate is for {certificate.name}")
    return certificate
