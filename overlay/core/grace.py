"""A certificate that has ended: for how long it may still be renewed. Used for links of mode 3 and for nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from overlay.core.certificate_profile import Life
from overlay.core.certificates import TOLERANCE, Root, VerifiedCertificate, check_life, leaf_of_any_time, show_time
from overlay.core.keys import NodeId
from overlay.errors import Refused
from overlay.registry import Reason

WITH_TPM: Final = timedelta(days=30)  # protocol: level 2 and above
WITH_FILE: Final = timedelta(hours=72)  # protocol: level 1
OF_MEMBERS: Final = timedelta(days=90)  # protocol: members of the authority, so that a mesh can be switched off


@dataclass(frozen=True, slots=True, kw_only=True)
class GraceTimes:
    """How long after its end a certificate may be renewed, and whose longer."""

    members: frozenset[NodeId] = frozenset()  # of the authority
    of_members: timedelta = OF_MEMBERS
    with_tpm: timedelta = WITH_TPM
    with_file: timedelta = WITH_FILE

    def of(self, certificate: VerifiedCertificate) -> timedelta:
        """Of this certificate; none at level 0."""
        if certificate.node_id in self.members:
            return self.of_members
        if certificate.level >= 2:
            return self.with_tpm
        return self.with_file if certificate.level == 1 else timedelta(0)


def verify_expired_leaf(der: bytes, roots: Sequence[Root], at: datetime, grace: GraceTimes) -> VerifiedCertificate:
    """As `verify_under`, but a leaf that ended within grace is taken, and comes back marked `in_grace`.

    Args:
        roots: from the founding one to the leaf's issuer.

    Raises:
        Refused: any reason of `verify_leaf` but CERTIFICATE_EXPIRED of the leaf itself; NO_GRACE.
    """
    found = leaf_of_any_time(der, roots, at)
    end = found.not_after + grace.of(found)
    if at - TOLERANCE > end:
        detail = f"{found.name}'s certificate expired on {show_time(found.not_after)}"
        raise Refused(
            Reason.NO_GRACE, f"{detail} and could be renewed until {show_time(end)}, it is now {show_time(at)}",
            hint="enrol the node again with an invite",
        )
    if at - TOLERANCE > found.not_after:
        return replace(found, in_grace=True)
    check_life(f"{found.name}'s certificate", Life(found.not_before, found.not_after), at)
    return found
