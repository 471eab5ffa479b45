"""What users see of another node, and of a call that it makes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from overlay.core.keys import NodeId
from overlay.core.limits import CALL_TIMEOUT


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """Who someone is, as far as it has proven: name and roles from its certificate, level from its evidence."""

    node_id: NodeId
    name: str
    roles: tuple[str, ...]
    level: int


@dataclass(frozen=True, slots=True)
class Request:
    """A call as its handler sees it."""

    peer: PeerInfo
    method: str
    body: bytes = field(repr=False)


Handler = Callable[[Request], Awaitable[bytes]]
CallPeer = Callable[[NodeId, str, bytes, float], Awaitable[bytes]]


class Peer:
    """A linked member. Goes on being valid while links come and go; calls raise PeerUnreachable when there is none."""

    def __init__(self, info: PeerInfo, call: CallPeer) -> None:
        self.info = info
        self._call = call

    @property
    def node_id(self) -> NodeId:
        """The peer's id."""
        return self.info.node_id

    @property
    def name(self) -> str:
        """The name in its certificate."""
        return self.info.name

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles in its certificate, sorted."""
        return self.info.roles

    @property
    def level(self) -> int:
        """How well it was attested when this object was made: 0 to 5."""
        return self.info.level

    async def call(self, method: str, body: bytes = b"", *, timeout: float = CALL_TIMEOUT) -> bytes:  # noqa: ASYNC109
        """Call a service of the peer; both ways are signed. Waits for the answer.

        Args:
            method: the service's name.
            body: at most 1 MiB.
            timeout: seconds.

        Raises:
            PeerUnreachable: there is no link, or it ended before the answer.
            DeadlineExceeded: no answer in time.
            RemoteError: the handler failed there, or there is no such service.
            NotAllowed: the peer does not let us.
        """
        return await self._call(self.node_id, method, body, timeout)

    def __repr__(self) -> str:
        return f"<Peer {self.name} {self.node_id.short}>"
