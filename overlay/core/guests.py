"""Who stands at the two ends of a link of mode 2 or 3: what each shows, and how it judges what it is shown."""

import hmac
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from overlay.core.authority.roots import parse_next_root
from overlay.core.certificates import Root, parse_root, verify_later_root, verify_under
from overlay.core.endorsement import verify_endorsement
from overlay.core.handshake import NOTHING, Side
from overlay.core.identity import LocalIdentity
from overlay.core.keys import MeshId, X25519Pair
from overlay.core.trust import Credentials, TrustSet, VerifiedPeer
from overlay.errors import Refused
from overlay.registry import Mode, Reason

WRONG_MESH: Final = "somebody else answers there, or the token is of another mesh"
WRONG_ROOT: Final = "the mesh has a newer root than the token, or somebody stands between: ask for a new token"

Calendar = Callable[[], datetime]


def joiner(mesh_id: MeshId, root_hash: bytes, static: X25519Pair, calendar: Calendar) -> Side:
    """Who wants to join: shows nothing, and believes a member under the root that its token pins.

    Args:
        root_hash: SHA-256 of the key of the newest root, 32 bytes. Who has stolen the key of an older one makes no members.
    """

    def verify(shown: Credentials) -> VerifiedPeer:
        *crosses, founding = shown.chain or (b"",)
        roots = [parse_root(founding)]
        if roots[0].mesh_id != mesh_id:
            raise Refused(Reason.OTHER_MESH, "this member is not of the mesh that the token names", hint=WRONG_MESH)
        for der in reversed(crosses):
            roots.append(_next_root(der, roots[-1]))
        if not hmac.compare_digest(roots[-1].key_hash, root_hash):
            raise Refused(Reason.OTHER_MESH, "this member's root is not the one that the token names", hint=WRONG_ROOT)
        at = calendar()
        certificate = verify_under(shown.leaf, roots, at)
        return VerifiedPeer(certificate, verify_endorsement(shown.endorsement, certificate, mesh_id, at))

    return Side(mesh_id=mesh_id, static=static, shows=NOTHING, verify=verify)


def host(mode: Mode, identity: LocalIdentity, trust: Callable[[], TrustSet], calendar: Calendar) -> Side | None:
    """A member, to a guest of this mode; None where it takes no such guests."""
    now = trust()
    if mode is Mode.JOIN:
        return Side(
            mesh_id=now.mesh_id, static=identity.static, shows=_with_roots(identity, now), verify=_shows_nothing
        )
    return renewer(identity, trust, calendar) if mode is Mode.RENEW else None


def renewer(identity: LocalIdentity, trust: Callable[[], TrustSet], calendar: Calendar) -> Side:
    """A member whose certificate may have ended, to another one; both ends of mode 3 are alike."""
    return Side(
        mesh_id=trust().mesh_id, static=identity.static, shows=identity.credentials,
        verify=lambda shown: trust().verify_in_grace(shown, calendar()), own_id=identity.node_id,
    )


def _with_roots(identity: LocalIdentity, trust: TrustSet) -> Credentials:
    """With every root from the issuer of our leaf to the founding one: a joiner knows no more than two hashes."""
    generation = len(identity.verified.certificate.lineage) - 1
    crosses = [one.root.der for one in trust.later[:generation]]
    return replace(identity.credentials, chain=(*reversed(crosses), trust.root.der))


def _next_root(der: bytes, before: Root) -> Root:
    """By the root before it, or, where recovery keys have put it in place, by itself: what counts is the one that is pinned."""
    try:
        return verify_later_root(der, before)
    except Refused:
        return parse_next_root(der, before)


def _shows_nothing(shown: Credentials) -> None:
    """A joiner's credentials are empty, which the handshake has seen to."""
    if shown.leaf or shown.endorsement:
        raise Refused(Reason.MALFORMED, "a joiner shows no certificate")
