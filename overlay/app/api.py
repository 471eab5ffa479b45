"""What users hold: a node, running here (`open_node`) or in another process (`connect_local`); both keep this contract."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from overlay.app.authority.api import Authority
from overlay.app.telemetry.api import TelemetryApi
from overlay.core.keys import MeshId, NodeId
from overlay.errors import UsageError
from overlay.net.peer import Peer
from overlay.net.request import PeerInfo
from overlay.net.statistics import NodeStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryReceipt:
    """An audit entry that is durable on this machine."""

    node_id: NodeId
    log_id: bytes  # 16
    seq: int
    hash: bytes  # 32: the entry's leaf hash (RFC 9162, section 2.1.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryView:
    """An entry as people read it."""

    node_id: NodeId
    node_name: str
    log_id: bytes
    seq: int
    hash: bytes
    at: datetime
    type: str  # "application", "admission", ... as in the registry, lower case
    body: dict[str, Any]  # JSON-like
    unproven: bool = False  # its endorsement has ended, and nobody attests that it was written before


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter:
    """Which entries are meant: all that is left out matches everything. Times are the authors', aware."""

    types: tuple[str, ...] = ()  # "admission", ... as in the registry, or types of users' entries
    since: datetime | None = None
    until: datetime | None = None
    text: str = ""  # somewhere in the body as JSON shows it, in whatever case


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicItem:
    """A publication that was verified. `seq` counts per author and topic; transient ones have none.

    `author`: the level of one that is linked is what it has shown, of another one what its certificate says; never more than
    what others have found of it leaves (docs/guide/attestation.md).
    """

    topic: str
    author: PeerInfo
    seq: int | None
    at: datetime
    body: bytes = field(repr=False)
    prove: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)

    def proof(self) -> bytes:
        """What shows this publication to somebody else, who verifies it alone (docs/protocol/topics.md).

        Raises UsageError for one that came over the control socket.
        """
        if self.prove is None:
            raise UsageError("only the node itself can prove what it heard", hint="open the node in this process")
        return self.prove()


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where a publication stands; `peers` is how many linked peers it is pushed to."""

    topic: str
    seq: int | None
    peers: int


class AuditApi(Protocol):
    """The audit log of a node, and the copies of the others' logs that it holds."""

    async def append(self, kind: str, value: Any = None) -> EntryReceipt:
        """Append an application entry; returns when it is durable here. `value` is anything JSON can hold."""
        ...

    async def wait_replicated(self, entry: EntryReceipt) -> int:
        """Returns when the head of every linked peer covers the entry: how many they are. With no peer it waits for one."""
        ...

    async def wait_witnessed(self, entry: EntryReceipt) -> str:
        """Returns when the witnesses of its log have signed that they saw it: how many, and how many of them may lie.

        Raises NoWitnesses where nobody could be one.
        """
        ...

    async def read(
        self, *, node: str | None = None, last: int | None = None, only: EntryFilter | None = None
    ) -> list[EntryView]:
        """Stored entries, oldest first; of one node (name or id), or all; those that match, the last so many."""
        ...

    def follow(self, *, only: EntryFilter | None = None) -> AbstractAsyncContextManager[AsyncIterator[EntryView]]:
        """Entries as they are stored, ours and others': those that match."""
        ...


class WorkApi(Protocol):
    """What a node does about signed work for `overlay work`: see overlay/app/work/commands.py."""

    async def ask(self, command: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Raises OverlayError."""
        ...


class NoWork:
    """While a node starts."""

    async def ask(self, command: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Raises UsageError."""
        raise UsageError(f"the node does not run yet, and cannot do {command!r}", hint="try again")


class NodeApi(Protocol):
    """A node."""

    @property
    def name(self) -> str:
        """The name in its certificate."""
        ...

    @property
    def node_id(self) -> NodeId:
        """Its id."""
        ...

    @property
    def mesh_id(self) -> MeshId:
        """Its mesh."""
        ...

    @property
    def mesh_name(self) -> str:
        """The name of its mesh."""
        ...

    @property
    def audit(self) -> AuditApi:
        """Its audit log."""
        ...

    @property
    def work(self) -> WorkApi:
        """Signed work."""
        ...

    @property
    def authority(self) -> Authority:
        """Who may be here: invites, revocations, and who holds the mesh key."""
        ...

    @property
    def telemetry(self) -> TelemetryApi:
        """What it measures, sends and collects."""
        ...

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The members it is linked to, by name."""
        ...

    async def wait_peer(self, name: str) -> Peer:
        """The member of that name or id, as soon as there is a link to it."""
        ...

    async def wait_members(self, count: int) -> tuple[Peer, ...]:
        """Returns when the mesh has so many linked members, this node included."""
        ...

    async def publish(self, topic: str, body: bytes, *, transient: bool = False) -> Published:
        """Say something to whoever subscribes, now or later; durable here before it is pushed, unless transient.

        Raises:
            UsageError: a name that no topic can have, or a body that is too long.
            Refused: LEVEL_TOO_LOW or NOT_ALLOWED, by what the policy says of the topic; nobody would take it.
        """
        ...

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[TopicItem]]:
        """What others and this node publish on a topic: what is kept of it, then what comes."""
        ...

    def expose(self, service: str, to: str, *, allow: Sequence[str]) -> AbstractAsyncContextManager[None]:
        """Let members use a service of this host, for the length of the block; its connections end with it.

        Args:
            service: the name by which they ask for it.
            to: where it is: `host:port`, `[ipv6]:port` or `unix:/path`.
            allow: who may: `role:ROLE`, `node:NAME`, `level:N`, joined by commas where all must hold; one of them is enough.
        """
        ...

    def forward(
        self, service: str, listen: str = "0", *, peer: str | None = None, signed: bool = True
    ) -> AbstractAsyncContextManager[str]:
        """Listen on a local address and carry each connection to a member's service; gives the address.

        Args:
            service: its name.
            listen: a port of 127.0.0.1 (0 for any), `host:port`, `[ipv6]:port` or `unix:/path`. Whoever can connect there
                uses the service in this node's name.
            peer: the member to use, by name or id; None for whoever offers the service.
            signed: each side signs what it sends, by segment. Without it bytes are authenticated by the link alone.
        """
        ...

    async def status(self) -> NodeStatistics:
        """All figures at this moment."""
        ...
