"""What makes a node a member: the mesh as it was pinned at enrolment, and the certificate in use."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from overlay.core.authority.objects import OBJECT_MAX, verify_object_zero
from overlay.core.authority.stored_chain import pack_chain, unpack_chain
from overlay.core.authority.succession import AuthorityChain
from overlay.core.certificates import Recovered, Root, VerifiedCertificate, parse_root, verify_leaf
from overlay.core.enrolment_files import BUNDLE_MAX, Bundle
from overlay.core.keys import NodeId
from overlay.core.limits import CHAIN_BYTES_MAX, CHAIN_DEPTH_MAX
from overlay.core.policy import POLICY_MAX, verify_policy
from overlay.core.trust import TrustSet
from overlay.core.trust_update import pack_trust, with_roots
from overlay.core.wire import Array, Bytes, Text, UInt, make_map, open_map
from overlay.errors import Refused, UsageError
from overlay.registry import Reason
from overlay.store.files import damaged
from overlay.store.state import AUTHORITY, CERTIFICATE, MESH, TRUST, StateFolder

_DER: Final = Bytes(1, CHAIN_BYTES_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshRecord:
    """The mesh that this node belongs to."""

    root: Root
    gate_number: int
    gate_key: bytes = field(repr=False)  # 32
    authority_object: bytes = field(repr=False)
    policy: bytes = field(repr=False)  # signed

    @property
    def trust(self) -> TrustSet:
        """The root and the policy as a trust set; raises Refused(BAD_POLICY)."""
        return TrustSet(self.root, verify_policy(self.policy, self.root))


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    """The certificate in use and what is above it, DER."""

    leaf: bytes = field(repr=False)
    chain: tuple[bytes, ...] = field(default=(), repr=False)


def save_mesh(folder: StateFolder, mesh: MeshRecord) -> None:
    """Replace the record of the mesh; of policy and gate key the newer stay.

    Raises:
        UsageError: the folder belongs to another mesh, and that never changes.
        StateDamaged: what is in the folder cannot be read.
    """
    before = load_mesh(folder)
    if before is not None:
        if before.root != mesh.root:
            hint = "choose another folder with --state"
            raise UsageError(f"{folder.path} belongs to the mesh {before.root.name}", hint=hint)
        mesh = _newer(before, mesh)
    folder.write(
        MESH,
        make_map(mesh.root.name, mesh.root.der, mesh.gate_number, mesh.gate_key, mesh.authority_object, mesh.policy),
    )


def load_mesh(folder: StateFolder) -> MeshRecord | None:
    """The record of the mesh, all its signatures checked; None before enrolment. Raises StateDamaged."""
    content = folder.read(MESH)
    if content is None:
        return None
    try:
        name, der, gate_number, gate_key, authority_object, policy = open_map(
            content, Text(63), _DER, UInt(), Bytes(32), Bytes(1, OBJECT_MAX), Bytes(1, POLICY_MAX), limit=BUNDLE_MAX
        )
        mesh = _checked_mesh(
            name, der, gate_number=gate_number, gate_key=gate_key, authority_object=authority_object, policy=policy
        )
    except Refused as error:
        raise damaged(folder.file(MESH), str(error)) from None
    recovered = _recovered(folder, mesh.root)
    return replace(mesh, root=replace(mesh.root, recovered=lambda: recovered))


def _recovered(folder: StateFolder, root: Root) -> Recovered:
    """Roots that recovery keys have put in place, as far as this folder has them in force. Raises StateDamaged."""
    content = folder.read(AUTHORITY)
    try:
        return {} if content is None else unpack_chain(content, root).recovered_roots
    except Refused as error:
        raise damaged(folder.file(AUTHORITY), str(error)) from None


def save_certificate(folder: StateFolder, certificate: StoredCertificate) -> None:
    """Replace the certificate in use."""
    folder.write(CERTIFICATE, make_map(certificate.leaf, list(certificate.chain)))


def load_certificate(folder: StateFolder) -> StoredCertificate | None:
    """The certificate in use, not verified (that takes a time); None before enrolment. Raises StateDamaged."""
    content = folder.read(CERTIFICATE)
    if content is None:
        return None
    try:
        leaf, chain = open_map(content, _DER, Array(_DER, CHAIN_DEPTH_MAX), limit=BUNDLE_MAX)
    except Refused as error:
        raise damaged(folder.file(CERTIFICATE), str(error)) from None
    return StoredCertificate(leaf, tuple(chain))


def install(
    folder: StateFolder, bundle: Bundle, node_id: NodeId, at: datetime, authority: AuthorityChain | None = None
) -> VerifiedCertificate:
    """Check a bundle as a whole, then keep it: from now on its root is the root. Nothing is kept if anything is wrong.

    Args:
        authority: as signers have shown it. It is kept where it tells of a root that no other root has signed.

    Raises:
        Refused: the bundle is for another node, or a part of it does not verify.
        UsageError: the folder belongs to another mesh.
        StateDamaged: what is in the folder cannot be read.
    """
    mesh = _checked_mesh(
        bundle.mesh_name, bundle.root, gate_number=bundle.gate_number, gate_key=bundle.gate_key,
        authority_object=bundle.authority_object, policy=bundle.policy,
    )
    recovered: Recovered = {} if authority is None else authority.recovered_roots
    root = replace(mesh.root, recovered=lambda: recovered)
    certificate = verify_leaf(bundle.leaf, bundle.chain, root, at)
    if certificate.node_id != node_id:
        detail = f"the bundle is for {certificate.node_id.short}, this node is {node_id.short}"
        raise Refused(Reason.BAD_CERTIFICATE, detail, hint="install it where its request was made")
    trust = with_roots(root, bundle.policy, [(der, at) for der in reversed(bundle.chain)])
    save_mesh(folder, mesh)
    if authority is not None and recovered:
        folder.write(AUTHORITY, pack_chain(authority))
        folder.write(TRUST, pack_trust(trust))
    save_certificate(folder, StoredCertificate(bundle.leaf, bundle.chain))
    return certificate


def _newer(before: MeshRecord, after: MeshRecord) -> MeshRecord:
    """`after`, but with policy and gate key of `before` where those have the higher number: nothing goes back."""
    if before.trust.policy.policy.version > after.trust.policy.policy.version:
        after = replace(after, policy=before.policy)
    if before.gate_number > after.gate_number:
        after = replace(after, gate_number=before.gate_number, gate_key=before.gate_key)
    return after


def _checked_mesh(
    name: str, der: bytes, *, gate_number: int, gate_key: bytes, authority_object: bytes, policy: bytes
) -> MeshRecord:
    """A record whose parts belong together; raises Refused."""
    root = parse_root(der)
    if root.name != name:
        raise Refused(Reason.OTHER_MESH, f"the root is of {root.name}, not of {name}")
    verify_object_zero(authority_object, root)
    verify_policy(policy, root)
    return MeshRecord(
        root=root, gate_number=gate_number, gate_key=gate_key, authority_object=authority_object, policy=policy
    )
