"""The ports of a node: through one it finds others (`discovery/` or a user's own finder), through one trust moves."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import trio

from overlay.core.handshake import Side
from overlay.core.keys import NodeId
from overlay.core.mesh.found import AnnouncementFacts, Candidate
from overlay.core.policy_parts import LEVEL_MAX
from overlay.core.trust import VerifiedPeer
from overlay.net.request import PeerInfo
from overlay.registry import FrameType, Mode

if TYPE_CHECKING:
    from overlay.net.guest import GuestLink


class Finder(Protocol):
    """Looks for peers and says that we are here."""

    async def run(
        self,
        announcement: AnnouncementFacts,
        found: Callable[[Candidate], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Announce and look until cancelled; `started()` once it is looking.

        `found` is called in trio's thread, must not block, and may be called again for the same peer: after an address
        change, a restart, or when a name was heard anew.

        Raises:
            HostLacks: this way of finding does not work on this host; other finders go on.
        """
        ...


class Standings(Protocol):
    """What is known of nodes beyond the evidence that they show us on a link."""

    def limit(self, node_id: NodeId) -> int:
        """The highest level that counts of it, for what others have found: 1 to 5."""
        ...

    def member(self, node_id: NodeId) -> PeerInfo | None:
        """What its certificate says of a node that need not be linked; None where we have seen none that is in force."""
        ...


class NoStandings:
    """Nothing is known: nobody is limited, and who is not linked has no level."""

    def limit(self, node_id: NodeId) -> int:
        """See `Standings`."""
        del node_id
        return LEVEL_MAX

    def member(self, node_id: NodeId) -> PeerInfo | None:
        """See `Standings`."""
        del node_id
        return None


class WitnessKeeper(Protocol):
    """Has what peers log witnessed, and what we log. The engine carries its messages and knows nothing of them."""

    def peer_opened(self, peer: NodeId) -> None:
        """There is a link to this peer, or another one than before. Must not block."""
        ...

    def peer_closed(self, peer: NodeId) -> None:
        """There is none any more. Must not block."""
        ...

    def received(self, peer: VerifiedPeer, kind: FrameType, body: bytes) -> None:
        """CHECKPOINT or COSIGNATURE, under the credentials with which it came. Must not block. Raises Refused."""
        ...


class TrustKeeper(Protocol):
    """Who may be here: takes guests, hears what the authority says, and tells newcomers what they do not know."""

    def side(self, mode: Mode) -> Side | None:
        """What we show guests of this mode; None where we take none."""
        ...

    def host(self, mode: Mode) -> "Callable[[GuestLink], Awaitable[None]] | None":
        """Who talks to guests of this mode."""
        ...

    def peer_opened(self, peer: NodeId) -> None:
        """There is a link to this peer now. Must not block."""
        ...

    def peer_renewed(self, peer: VerifiedPeer) -> None:
        """It goes on under other credentials. Must not block."""
        ...

    def received(self, peer: VerifiedPeer, kind: FrameType, body: bytes) -> None:
        """One of `TRUST_FRAMES`, under the credentials with which it came. Must not block. Raises Refused: the link ends."""
        ...
