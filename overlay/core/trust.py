"""Whom we trust, and why. Rules:

- there is one founding root, for ever, and one successor of each root (`roots.py`)
- a peer is its certificate and its endorsement, both verified here, together and in this order, and then nothing against it
- the policy only moves forward: a version replaces a lower one, never an equal or higher one
- what any list of revocations says holds for ever: the set is the union of all lists, whatever their numbers and dates
- a quarantine has an end
- a trust set never changes: what moves it gives a new one, and only if all of the new is good
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from overlay.core.certificates import Root, VerifiedCertificate, show_time, verify_under
from overlay.core.endorsement import Endorsement, verify_endorsement
from overlay.core.grace import GraceTimes, verify_expired_leaf
from overlay.core.keys import MeshId, NodeId
from overlay.core.policy import VerifiedPolicy, verify_policy
from overlay.core.revocation_profile import LogEnd, Mark, Revocations, key_hash, serial_bytes
from overlay.core.revocations import RevocationList, newest_of, numbers_used_twice, verify_revocation_list
from overlay.core.roots import OLD_LEAVES_FOR, LaterRoot, Roots
from overlay.core.wire import make_map, sha256
from overlay.errors import Refused
from overlay.registry import Reason

_NOTHING: Final = Revocations()
_GRACE: Final = GraceTimes()


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a node shows, not verified."""

    endorsement: bytes = field(repr=False)
    leaf: bytes = field(repr=False)  # DER
    chain: tuple[bytes, ...] = field(default=(), repr=False)  # DER, from the leaf's issuer up


@dataclass(frozen=True, slots=True)
class VerifiedPeer:
    """Credentials that have passed every check of `TrustSet.verify`, or of `verify_in_grace`: then see the mark
    `in_grace` of the certificate."""

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


@dataclass(frozen=True, slots=True, order=True)
class Quarantine:
    """Nobody speaks to this node until then. Whoever makes this value has verified the order, or the proof of a fork."""

    node_id: NodeId
    until: datetime
    order_hash: bytes = field(repr=False)  # 32


@dataclass(frozen=True, slots=True)
class TrustSet:
    """Roots, policy, revocations and quarantines in force.

    What is given by its fields has been verified; `with_...` verifies what it adds. Any order of `with_list` and
    `with_quarantine` gives the same set. A list needs its root: hand over roots first, then lists.
    """

    root: Root  # the founding one
    policy: VerifiedPolicy
    lists: tuple[RevocationList, ...] = ()  # those that no other one replaces, by number
    quarantines: frozenset[Quarantine] = frozenset()
    later: tuple[LaterRoot, ...] = ()
    old_leaves_for: timedelta = field(default=OLD_LEAVES_FOR, repr=False)
    old_serials: frozenset[bytes] | None = field(default=None, repr=False)  # of leaves of earlier roots; None: all count
    grace: GraceTimes = field(default=_GRACE, repr=False)  # and who the members of the authority are
    # What follows from the fields above, worked out once: each handshake asks for it.
    roots: Roots = field(init=False, repr=False, compare=False)
    revocations: Revocations = field(init=False, repr=False, compare=False)
    hash: bytes = field(init=False, repr=False, compare=False)
    _ends: Mapping[bytes, datetime] = field(init=False, repr=False, compare=False)  # of quarantines, by node

    def __post_init__(self) -> None:
        union = _NOTHING
        for one in self.lists:
            union = union.merged(one.revocations)
        object.__setattr__(self, "roots", Roots(self.root, self.later, self.old_leaves_for))
        object.__setattr__(self, "revocations", union)
        object.__setattr__(self, "hash", self._content_hash())
        object.__setattr__(self, "_ends", {one.node_id: one.until for one in sorted(self.quarantines, key=_end)})

    @property
    def mesh_id(self) -> MeshId:
        """The mesh."""
        return self.root.mesh_id

    @property
    def number(self) -> int:
        """The highest of any revocation list; 0 where there is none. Whoever has the lower one asks first, that is all."""
        return self.lists[-1].number if self.lists else 0

    @property
    def numbers_used_twice(self) -> tuple[int, ...]:
        """Numbers of lists that differ: an alarm, until a later list has what they say."""
        return numbers_used_twice(self.lists)

    def _content_hash(self) -> bytes:
        """Two nodes with the same hash judge alike. When a root was accepted is each node's own affair. 32 bytes."""
        first = (self.root.der, self.policy.hash)
        if not (self.lists or self.quarantines or self.later):
            return sha256(*first)
        quarantines = [[one.node_id, int(one.until.timestamp()), one.order_hash] for one in sorted(self.quarantines)]
        roots = [one.root.key_hash for one in self.later]
        return sha256(*first, make_map(roots, [one.hash for one in self.lists], quarantines))

    # --- judging ----------------------------------------------------------------------------------------------------

    def verify(self, credentials: Credentials, at: datetime) -> VerifiedPeer:
        """Check what a node shows.

        Raises:
            Refused: any reason of `verify_leaf`, `verify_endorsement` or `judge`.
        """
        certificate = verify_under(credentials.leaf, self.roots.above(credentials.leaf, credentials.chain), at)
        peer = VerifiedPeer(certificate, verify_endorsement(credentials.endorsement, certificate, self.mesh_id, at))
        self.judge(peer, at)
        return peer

    def verify_in_grace(self, credentials: Credentials, at: datetime) -> VerifiedPeer:
        """Check what a node shows on a link of mode 3, and nowhere else: ended within grace, or of an old root.

        Raises:
            Refused: any reason of `verify_expired_leaf` or `verify_endorsement`; WRONG_GENERATION, REVOKED, QUARANTINED.
        """
        roots = self.roots.above(credentials.leaf, credentials.chain)
        certificate = verify_expired_leaf(credentials.leaf, roots, at, self.grace)
        peer = VerifiedPeer(certificate, verify_endorsement(credentials.endorsement, certificate, self.mesh_id, at))
        self._check_nothing_against(peer, at)
        return peer

    def judge(self, peer: VerifiedPeer, at: datetime) -> None:
        """Whether a peer that was verified once may stay, for all we know now. Ends of credentials are the lease's affair.

        Raises:
            Refused: REVOKED, QUARANTINED, WRONG_GENERATION; CERTIFICATE_EXPIRED for one that was verified in grace.
        """
        if peer.certificate.in_grace:
            raise Refused(Reason.CERTIFICATE_EXPIRED, f"{peer.name}'s certificate counts for its renewal only")
        self._check_nothing_against(peer, at)
        self.roots.check_age(peer.certificate, at)

    def _check_nothing_against(self, peer: VerifiedPeer, at: datetime) -> None:
        mark = self.mark_of(peer)
        if mark is not None:
            raise Refused(
                Reason.REVOKED, f"{peer.name} was revoked on {show_time(mark.revoked)}: {mark.reason.words}",
                hint="a revoked node does not come back; enrol the machine anew with an invite",
            )
        until = self._ends.get(peer.node_id)
        if until is not None and at < until:
            raise Refused(
                Reason.QUARANTINED, f"{peer.name} is in quarantine until {show_time(until)}, it is now {show_time(at)}",
                hint="an operator revokes it, or lets the quarantine end",
            )
        self.roots.check(peer.certificate)
        self._check_seen(peer.certificate)

    def _check_seen(self, certificate: VerifiedCertificate) -> None:
        """Of a root that has a successor only those leaves count that were seen while it had none: its key may be stolen."""
        old = len(certificate.lineage) - 1 < len(self.later)
        if old and self.old_serials is not None and serial_bytes(certificate.serial) not in self.old_serials:
            detail = f"{certificate.name}'s certificate is of an old root, and was not seen while that root signed"
            raise Refused(Reason.WRONG_GENERATION, detail, hint="join again: `overlay invite`")

    def mark_of(self, peer: VerifiedPeer) -> Mark | None:
        """Why this peer is revoked, whether by its id, certificate, machine, or a key of its own or of its issuer."""
        against, certificate = self.revocations, peer.certificate
        if not against:
            return None
        found = [against.nodes.get(peer.node_id), against.serials.get(serial_bytes(certificate.serial))]
        if certificate.facts.ek_tag is not None:
            found.append(against.machines.get(certificate.facts.ek_tag))
        if against.keys:
            own = (peer.noise_public, peer.message_public, peer.endorsement.witness_public)
            hashes = [peer.node_id, *certificate.lineage[-1:], *(key_hash(key) for key in own if key is not None)]
            found += [against.keys.get(one) for one in hashes]
        return min((mark for mark in found if mark is not None), default=None)

    def quarantine_end(self, node_id: NodeId, at: datetime) -> datetime | None:
        """Until when a node is in quarantine; None if it is not."""
        until = self._ends.get(node_id)
        return until if until is not None and at < until else None

    def revocation_of(self, node_id: NodeId) -> Mark | None:
        """Since when and why a node is revoked by its id, as in a log that it wrote."""
        return self.revocations.nodes.get(node_id)

    def log_end(self, node_id: NodeId, log_id: bytes) -> LogEnd | None:
        """Where this log of a revoked node ends for everybody. One that no list names ends at its `Mark.since`."""
        return self.revocations.ends.get((node_id, log_id))

    # --- moving -----------------------------------------------------------------------------------------------------

    def with_policy(self, raw: bytes) -> "TrustSet":
        """The set under a newer policy by the newest root; the one in force, given again, changes nothing.

        Raises:
            Refused: BAD_POLICY, MALFORMED, TOO_LARGE or UNSUPPORTED.
        """
        if raw == self.policy.raw:
            return self
        found = verify_policy(raw, self.roots.newest)
        if found.policy.version <= self.policy.policy.version:
            raise Refused(
                Reason.BAD_POLICY, f"version {found.policy.version} where {self.policy.policy.version} is in force",
                hint="give the policy a higher version",
            )
        return replace(self, policy=found)

    def with_list(self, der: bytes) -> "TrustSet":
        """The set and all that this list revokes, under any root; the same set where that adds nothing.

        Raises:
            Refused: TOO_LARGE, BAD_REVOCATION_LIST.
        """
        if any(one.der == der for one in self.lists):
            return self
        lists = newest_of((*self.lists, verify_revocation_list(der, self.roots.all[::-1])))
        return self if lists == self.lists else replace(self, lists=lists)

    def with_quarantine(self, quarantine: Quarantine) -> "TrustSet":
        """The set and one more quarantine; of several for one node the last end counts."""
        if quarantine in self.quarantines:
            return self
        return replace(self, quarantines=self.quarantines | {quarantine})

    def without_ended(self, at: datetime) -> "TrustSet":
        """The set without the quarantines that have ended."""
        going_on = frozenset(one for one in self.quarantines if at < one.until)
        return self if going_on == self.quarantines else replace(self, quarantines=going_on)

    def with_root(self, der: bytes, at: datetime) -> "TrustSet":
        """The set and the successor of the newest root, by the certificate that the newest root signed.

        Raises:
            Refused: any reason of `Roots.with_later`.
        """
        return self._with_roots(self.roots.with_later(der, at))

    def with_recovered_root(self, root: Root, at: datetime, before: Root | None = None) -> "TrustSet":
        """The set and a root that no other one has signed: the caller has verified the authority object that brings it.

        Args:
            before: the root that it follows, if that is not the newest: after a fork.

        Raises:
            Refused: OTHER_MESH, BAD_CERTIFICATE, CERTIFICATE_EXPIRED or CERTIFICATE_NOT_YET_VALID.
        """
        return self._with_roots(self.roots.with_recovered(root, at, before))

    def _with_roots(self, roots: Roots) -> "TrustSet":
        return self if roots.later == self.later else replace(self, later=roots.later)


def _end(quarantine: Quarantine) -> datetime:
    return quarantine.until
