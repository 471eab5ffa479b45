"""The roots of a mesh, one after the other: which one issued a leaf, and whether its leaves still count. Rules:

- the founding root names the mesh for ever
- each later root has a certificate by the one before it, or was put in place by recovery keys, which others verify
- there is one successor of each root, never a second
- leaves of a root are refused once its successor has been known for 48 hours
- a root newer than all that we know is believed for its leaves, for how else would we hear of it; not for anything else
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from overlay.core.certificates import Root, VerifiedCertificate, check_life, check_signature, check_sizes, verify_later_root
from overlay.errors import Refused
from overlay.registry import Reason

OLD_LEAVES_FOR: Final = timedelta(hours=48)  # protocol
ROOTS_MAX: Final = 1024  # our guess: far above what a mesh ever has


@dataclass(frozen=True, slots=True)
class LaterRoot:
    """A root that followed the founding one."""

    root: Root  # its `der` is the certificate by the root before it; after a recovery, by itself
    accepted: datetime  # here; the clocks of two nodes need not agree on it


@dataclass(frozen=True, slots=True)
class Roots:
    """The founding root and all that followed, in order. `all[k]` is the root of generation k."""

    founding: Root
    later: tuple[LaterRoot, ...] = ()
    old_leaves_for: timedelta = OLD_LEAVES_FOR

    @property
    def all(self) -> tuple[Root, ...]:
        """From the founding one to the newest."""
        return (self.founding, *(one.root for one in self.later))

    @property
    def newest(self) -> Root:
        """The one that issues now."""
        return self.later[-1].root if self.later else self.founding

    def with_later(self, der: bytes, at: datetime) -> "Roots":
        """The same and the successor of the newest root; of one that is known already, the earlier acceptance counts.

        Raises:
            Refused: AUTHORITY_FROZEN for a second successor of a root, BAD_CERTIFICATE, OTHER_MESH,
                CERTIFICATE_EXPIRED or CERTIFICATE_NOT_YET_VALID.
        """
        known = self._known(der, at)
        if known is not None:
            return known
        if any(_is_by(der, root) for root in self.all[:-1]):
            raise Refused(Reason.AUTHORITY_FROZEN, "a root that has a successor has signed another one")
        return self._followed_by(verify_later_root(der, self.newest), at)

    def with_recovered(self, root: Root, at: datetime, before: Root | None = None) -> "Roots":
        """The same and a root that recovery keys have put in place of those after `before`, which is usually the newest one.

        Raises:
            Refused: OTHER_MESH, BAD_CERTIFICATE, CERTIFICATE_EXPIRED or CERTIFICATE_NOT_YET_VALID.
        """
        if root.mesh_id != self.founding.mesh_id or root.name != self.founding.name:
            raise Refused(Reason.OTHER_MESH, f"the root is of {root.name}")
        known = self._known(root.der, at)
        if known is not None:
            return known
        hashes = [one.key_hash for one in self.all]
        kept = len(self.later) if before is None else hashes.index(before.key_hash)
        return replace(self, later=self.later[:kept])._followed_by(root, at)

    def _known(self, der: bytes, at: datetime) -> "Roots | None":
        for index, known in enumerate(self.later):
            if known.root.der == der:
                earlier = replace(known, accepted=min(at, known.accepted))
                return replace(self, later=(*self.later[:index], earlier, *self.later[index + 1 :]))
        return None

    def _followed_by(self, root: Root, at: datetime) -> "Roots":
        check_life("the new root", root.life, at)
        if len(self.later) >= ROOTS_MAX or root.key_hash in [one.key_hash for one in self.all]:
            raise Refused(Reason.BAD_CERTIFICATE, "the key of an earlier root again, or a root too many")
        return replace(self, later=(*self.later, LaterRoot(root, at)))

    def above(self, leaf: bytes, chain: Sequence[bytes]) -> tuple[Root, ...]:
        """The roots above a leaf, from the founding one to its issuer. When they are in force is not looked at.

        A chain may begin below any root that we know: so its length does not grow with the age of the mesh.

        Raises:
            Refused: BAD_CERTIFICATE or OTHER_MESH.
        """
        check_sizes(leaf, chain)
        if not self.later and not chain:
            return (self.founding,)
        everything, path = self.all, tuple(reversed(chain))
        for issuer in range(len(path), len(everything)) if path else ():
            if path == tuple(root.der for root in everything[issuer + 1 - len(path) : issuer + 1]):
                return everything[: issuer + 1]
        top = path[0] if path else leaf
        signer = next((index for index in reversed(range(len(everything))) if _is_by(top, everything[index])), 0)
        recovered = next((index for index, one in enumerate(self.later) if one.root.der == top), signer)  # it has signed itself
        found = list(everything[: recovered + 1])
        for der in path:
            ours = everything[len(found)] if len(found) < len(everything) else None
            found.append(ours if ours is not None and ours.der == der else verify_later_root(der, found[-1]))
        return tuple(found)

    def check(self, certificate: VerifiedCertificate) -> None:
        """Its roots are ours, or go on where ours end.

        Raises:
            Refused: WRONG_GENERATION.
        """
        ours, theirs = tuple(root.key_hash for root in self.all), certificate.lineage
        shared = min(len(ours), len(theirs))
        if not theirs or theirs[:shared] != ours[:shared]:
            raise Refused(Reason.WRONG_GENERATION, f"{certificate.name}'s certificate is of a root that is none of ours")

    def check_age(self, certificate: VerifiedCertificate, at: datetime) -> None:
        """Its issuer is the newest root, or was so until lately.

        Raises:
            Refused: WRONG_GENERATION.
        """
        generation = len(certificate.lineage) - 1
        if generation >= len(self.later):
            return
        until = self.later[generation].accepted + self.old_leaves_for
        if at >= until:
            raise Refused(
                Reason.WRONG_GENERATION, f"{certificate.name}'s certificate is of root {generation}, which has a successor",
                hint="renew the certificate: `overlay renew`",
            )


def _is_by(der: bytes, root: Root) -> bool:
    """Whether that root signed it."""
    try:
        check_signature(der, root.public_key)
    except Refused:
        return False
    return True
