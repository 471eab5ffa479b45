"""What can be said of a node, a peer and a stream without waiting, from any thread: what `blocking` and `aio` share."""

from overlay.app.api import NodeApi
from overlay.core.keys import MeshId, NodeId
from overlay.net.peer import Peer
from overlay.net.request import PeerInfo


class NodeView:
    """A node."""

    def __init__(self, node: NodeApi) -> None:
        self._node = node

    @property
    def name(self) -> str:
        """The name in its certificate."""
        return self._node.name

    @property
    def node_id(self) -> NodeId:
        """Its id."""
        return self._node.node_id

    @property
    def mesh_id(self) -> MeshId:
        """Its mesh."""
        return self._node.mesh_id

    @property
    def mesh_name(self) -> str:
        """The name of its mesh."""
        return self._node.mesh_name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.node_id.short}>"


class PeerView:
    """A linked member. Goes on being valid while links come and go."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    @property
    def info(self) -> PeerInfo:
        """Who it is, as far as it had proven when this object was made."""
        return self._peer.info

    @property
    def node_id(self) -> NodeId:
        """The peer's id."""
        return self._peer.node_id

    @property
    def name(self) -> str:
        """The name in its certificate."""
        return self._peer.name

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles in its certificate, sorted."""
        return self._peer.roles

    @property
    def level(self) -> int:
        """How well it was attested when this object was made: 0 to 5."""
        return self._peer.level

    def __repr__(self) -> str:
        return repr(self._peer)
