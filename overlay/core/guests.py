"""Who stands at the two ends of a link of mode 2 or 3: what each shows, and how it judges what it is shown."""

import hmac
from collections.abc import Callable
from datetime import datetime

from overlay.core.certificates import parse_root, verify_leaf
from overlay.core.endorsement import verify_endorsement
from overlay.core.handshake import NOTHING, Side, showing_root
from overlay.core.identity import LocalIdentity
from overlay.core.keys import MeshId, X25519Pair
from overlay.core.trust import Credentials, TrustSet, VerifiedPeer
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Mode, Reason

Calendar = Callable[[], datetime]


def joiner(mesh_id: MeshId, root_hash: bytes, static: X25519Pair, calendar: Calendar) -> Side:
    """Who wants to join: shows nothing, and believes a member under the root whose hash (32 bytes) its token pins."""

    def verify(shown: Credentials) -> VerifiedPeer:
        *chain, root = shown.chain or (b"",)
        if not hmac.compare_digest(sha256(root), root_hash):
            hint = "the token is of another mesh, or somebody stands between; ask for a new one"
            raise Refused(Reason.OTHER_MESH, "this member is not of the mesh that the token names", hint=hint)
        pinned = parse_root(root)
        if pinned.mesh_id != mesh_id:
            raise Refused(Reason.OTHER_MESH, "the root is of another mesh than the token")
        at = calendar()
        certificate = verify_leaf(shown.leaf, tuple(chain), pinned, at)
        return VerifiedPeer(certificate, verify_endorsement(shown.endorsement, certificate, mesh_id, at))

    return Side(mesh_id=mesh_id, static=static, shows=NOTHING, verify=verify)


def host(mode: Mode, identity: LocalIdentity, trust: Callable[[], TrustSet], calendar: Calendar) -> Side | None:
    """A member, to a guest of this mode; None where it takes no such guests."""
    now = trust()
    if mode is Mode.JOIN:
        return Side(
            mesh_id=now.mesh_id, static=identity.static, shows=showing_root(identity.credentials, now.root.der),
            verify=_shows_nothing,
        )
    if mode is Mode.RENEW:
        return renewer(identity, trust, calendar)
    return None


def renewer(identity: LocalIdentity, trust: Callable[[], TrustSet], calendar: Calendar) -> Side:
    """A member whose certificate may have ended, to another one; both ends of mode 3 are alike."""
    return Side(
        mesh_id=trust().mesh_id, static=identity.static, shows=identity.credentials,
        verify=lambda shown: trust().verify_in_grace(shown, calendar()), own_id=identity.node_id,
    )


def _shows_nothing(shown: Credentials) -> None:
    """A joiner's credentials are empty, which the handshake has seen to."""
    if shown.leaf or shown.endorsement:
        raise Refused(Reason.MALFORMED, "a joiner shows no certificate")
