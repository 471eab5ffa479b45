"""Whom we trust, and why. Rules:

- there is one founding root, for ever
- a peer is its certificate and its endorsement, both verified here, together and in this order
- the policy only moves forward: a version replaces a lower one, never an equal or higher one
- a trust set never changes: what moves it gives a new one, and only if all of the new is good
"""

from dataclasses import dataclass, field, replace
from datetime import datetime

from overlay.core.certificates import Root, VerifiedCertificate, verify_leaf
from overlay.core.endorsement import Endorsement, verify_endorsement
from overlay.core.keys import MeshId, NodeId
from overlay.core.policy import VerifiedPolicy, verify_policy
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a node shows, not verified."""

    endorsement: bytes = field(repr=False)
    leaf: bytes = field(repr=False)  # DER
    chain: tuple[bytes, ...] = field(default=(), repr=False)  # DER, from the leaf's issuer up


@dataclass(frozen=True, slots=True)
class VerifiedPeer:
    """Credentials that have passed every check of `TrustSet.verify`."""

    certificate: VerifiedCertificate
    endorsement: Endorsement

    @property
    def node_id(self) -> NodeId:
        """Who it is."""
        return self.certificate.node_id

    @property
    def name(self) -> str:
        """How people call it."""
        return self.certificate.name

    @property
    def roles(self) -> tuple[str, ...]:
        """What it may be, sorted."""
        return self.certificate.roles

    @property
    def kid(self) -> bytes:
        """Hash of the endorsement, which its messages name. 32 bytes."""
        return self.endorsement.hash

    @property
    def message_public(self) -> bytes:
        """The key of its messages. 32 bytes."""
        return self.endorsement.message_public

    @property
    def noise_public(self) -> bytes:
        """Its Noise static key. 32 bytes."""
        return self.endorsement.noise_public

    @property
    def start_id(self) -> bytes:
        """Which start of the node this is. 16 bytes."""
        return self.endorsement.start_id

    @property
    def not_after(self) -> datetime:
        """When the first of its credentials ends."""
        return min(self.certificate.not_after, self.endorsement.not_after)


@dataclass(frozen=True, slots=True)
class TrustSet:
    """The root and the policy in force."""

    root: Root
    policy: VerifiedPolicy

    @property
    def mesh_id(self) -> MeshId:
        """The mesh."""
        return self.root.mesh_id

    @property
    def number(self) -> int:
        """Of the newest revocation list; there are none yet."""
        return 0

    @property
    def hash(self) -> bytes:
        """Two nodes with the same hash judge alike. 32 bytes."""
        return sha256(self.root.der, self.policy.hash)

    def verify(self, credentials: Credentials, at: datetime) -> VerifiedPeer:
        """Check what a node shows.

        Raises:
            Refused: any reason of `verify_leaf` or `verify_endorsement`.
        """
        certificate = verify_leaf(credentials.leaf, credentials.chain, self.root, at)
        return VerifiedPeer(certificate, verify_endorsement(credentials.endorsement, certificate, self.mesh_id, at))

    def with_policy(self, raw: bytes) -> "TrustSet":
        """The set under a newer signed policy; the one in force, given again, changes nothing.

        Raises:
            Refused: BAD_POLICY, MALFORMED, TOO_LARGE or UNSUPPORTED.
        """
        found = verify_policy(raw, self.root)
        if found == self.policy:
            return self
        if found.policy.version <= self.policy.policy.version:
            raise Refused(
                Reason.BAD_POLICY, f"version {found.policy.version} where {self.policy.policy.version} is in force",
                hint="give the policy a higher version",
            )
        return replace(self, policy=found)
