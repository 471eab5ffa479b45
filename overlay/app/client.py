"""A node in another process of this user: `connect_local()` gives it, with the contract of a node (api.py)."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from overlay.app import wire_json as wire
from overlay.app.api import AuditApi, EntryFilter, EntryReceipt, EntryView, Published, TopicItem
from overlay.app.authority.api import Authority, Report
from overlay.app.control_client import HOW_TO_START, Connection, Items
from overlay.app.control_socket import socket_address
from overlay.app.remote_telemetry import RemoteTelemetry
from overlay.app.telemetry.api import TelemetryApi
from overlay.core.keys import MeshId, NodeId
from overlay.errors import HostLacks, UsageError
from overlay.net.background import background
from overlay.net.peer import Peer
from overlay.net.statistics import NodeStatistics
from overlay.store.state import StateFolder, default_location, holder

START_TIMEOUT: Final = 20.0  # seconds from a node's lock to its socket: our guess; a slow TPM takes 2
START_POLL: Final = 0.05


@asynccontextmanager
async def connect_local(state: str | Path | None = None) -> "AsyncIterator[RemoteNode]":
    """The node that runs in a state folder of this machine, for the length of the block.

    Args:
        state: the folder; if None $OVERLAY_STATE, else the user's default folder.

    Raises:
        HostLacks: no node runs there.
        UsageError: there is no node in that folder.
        StateDamaged: it is not a good state folder.
    """
    folder = default_location(None if state is None else str(state))
    StateFolder.open(folder, exclusive=False).close()
    stream = await _connect(folder)
    async with background() as nursery, stream:
        connection = Connection(stream)
        hello = await connection.greet(folder)
        nursery.start_soon(connection.read)
        nursery.start_soon(connection.write)
        yield RemoteNode(connection, hello)


async def _connect(folder: Path) -> trio.SocketStream:
    """Connect; a node that is just starting holds its folder already, and is waited for."""
    deadline = trio.current_time() + START_TIMEOUT
    while (stream := await _try_to_connect(folder)) is None:
        pid = holder(folder)
        if pid is None:
            raise HostLacks(f"no node runs in {folder}", hint=HOW_TO_START)
        if trio.current_time() > deadline:
            raise HostLacks(f"process {pid} holds {folder} and does not answer", hint="look at it, or stop it")
        await trio.sleep(START_POLL)
    return stream


async def _try_to_connect(folder: Path) -> trio.SocketStream | None:
    """None if nobody listens."""
    try:
        with socket_address(folder) as address:
            return await trio.open_unix_socket(address)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise HostLacks(f"cannot reach the node in {folder}: {error.strerror}", hint=HOW_TO_START) from None


class RemoteNode:
    """A NodeApi over the control socket. All that waits raises OverlayError when the node ends."""

    def __init__(self, connection: Connection, hello: Mapping[str, Any]) -> None:
        self._connection = connection
        self._name = wire.text_of(hello, "name")
        self._mesh_name = wire.text_of(hello, "mesh_name")
        self._node_id = wire.node_id_of(hello, "node")
        self._mesh_id = MeshId(wire.node_id_of(hello, "mesh"))
        self._audit = RemoteAudit(connection)
        self._authority = Authority(self._ask_authority)
        self._work = RemoteWork(connection)
        self._telemetry = RemoteTelemetry(connection)

    @property
    def name(self) -> str:
        """The name in its certificate."""
        return self._name

    @property
    def node_id(self) -> NodeId:
        """Its id."""
        return self._node_id

    @property
    def mesh_id(self) -> MeshId:
        """Its mesh."""
        return self._mesh_id

    @property
    def mesh_name(self) -> str:
        """The name of its mesh."""
        return self._mesh_name

    @property
    def audit(self) -> AuditApi:
        """Its audit log."""
        return self._audit

    @property
    def work(self) -> "RemoteWork":
        """Signed work."""
        return self._work

    @property
    def authority(self) -> Authority:
        """Who may be here."""
        return self._authority

    @property
    def telemetry(self) -> TelemetryApi:
        """What it measures, sends and collects."""
        return self._telemetry

    async def _ask_authority(self, command: str, options: Mapping[str, Any]) -> Report:
        answer = _object(await self._connection.ask("authority", command=command, options=dict(options)))
        said, notes = answer.get("said"), answer.get("notes")
        if not isinstance(said, list) or not isinstance(notes, list):
            wire.malformed("a report")
        return Report(tuple(map(str, said)), _object(answer.get("fields")), tuple(map(str, notes)))

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The members it is linked to, by name."""
        return self._connection.peers

    async def wait_peer(self, name: str) -> Peer:
        """The member of that name or id, as soon as there is a link to it."""
        while True:
            for peer in self.peers:
                if name in (peer.name, str(peer.node_id)):
                    return peer
            await self._connection.wait_change()

    async def wait_members(self, count: int) -> tuple[Peer, ...]:
        """Returns when the mesh has so many linked members, the node included."""
        while len(self.peers) + 1 < count:
            await self._connection.wait_change()
        return self.peers

    async def publish(self, topic: str, body: bytes, *, transient: bool = False) -> Published:
        """See `NodeApi.publish`."""
        answer = await self._connection.ask("publish", topic=topic, body=wire.base64_text(body), transient=transient)
        return wire.read_published(_object(answer))

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[TopicItem]]:
        """See `NodeApi.subscribe`."""
        async with self._connection.request("subscribe", topic=topic) as answers:
            await anext(answers)  # it listens from now on
            yield Items(answers, lambda item: wire.read_item(_object(item)))

    @asynccontextmanager
    async def expose(self, service: str, to: str, *, allow: Sequence[str]) -> AsyncIterator[None]:
        """See `NodeApi.expose`."""
        async with self._connection.request("expose", service=service, to=to, allow=list(allow)) as answers:
            await anext(answers)  # it is exposed from now on
            yield

    @asynccontextmanager
    async def forward(
        self, service: str, listen: str = "0", *, peer: str | None = None, signed: bool = True
    ) -> AsyncIterator[str]:
        """See `NodeApi.forward`."""
        options = {} if peer is None else {"peer": peer}
        async with self._connection.request("forward", service=service, listen=listen, signed=signed, **options) as answers:
            yield wire.text_of({"listen": await anext(answers)}, "listen")

    async def status(self) -> NodeStatistics:
        """All figures at this moment."""
        return wire.read_statistics(_object(await self._connection.ask("status")))

    async def stop(self) -> None:
        """End the node in order; returns when it has taken note."""
        await self._connection.ask("stop")


class RemoteWork:
    """A WorkApi over the control socket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ask(self, command: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """See `WorkApi.ask`."""
        return dict(_object(await self._connection.ask("work", command=command, options=dict(options))))


class RemoteAudit:
    """An AuditApi over the control socket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def append(self, kind: str, value: Any = None) -> EntryReceipt:
        """See `AuditApi.append`."""
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"the value of an entry is anything JSON can hold: {error}") from None
        return wire.read_receipt(_object(await self._connection.ask("audit.append", type=kind, value=value)))

    async def wait_replicated(self, entry: EntryReceipt) -> int:
        """See `AuditApi.wait_replicated`."""
        answer = await self._connection.ask("audit.wait_replicated", **wire.receipt_fields(entry))
        return wire.number_of({"peers": answer}, "peers")

    async def wait_witnessed(self, entry: EntryReceipt) -> str:
        """See `AuditApi.wait_witnessed`."""
        answer = await self._connection.ask("audit.wait_witnessed", **wire.receipt_fields(entry))
        return wire.text_of({"said": answer}, "said")

    async def read(
        self, *, node: str | None = None, last: int | None = None, only: EntryFilter | None = None
    ) -> list[EntryView]:
        """See `AuditApi.read`."""
        async with self._connection.request("audit.read", node=node, last=last, **wire.filter_fields(only)) as answers:
            return [entry async for entry in Items(answers, lambda item: wire.read_entry(_object(item)))]

    @asynccontextmanager
    async def follow(self, *, only: EntryFilter | None = None) -> AsyncIterator[AsyncIterator[EntryView]]:
        """See `AuditApi.follow`."""
        async with self._connection.request("audit.follow", **wire.filter_fields(only)) as answers:
            await anext(answers)  # it listens from now on
            yield Items(answers, lambda item: wire.read_entry(_object(item)))


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else wire.malformed("result or item")
