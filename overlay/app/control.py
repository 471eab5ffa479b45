"""The control server: lets processes of the same user use a running node, through a socket in its state folder.

    request   {"id": n, "method": "...", "params": {...}}       {"cancel": n}    {"credit": n, "items": m}
    answer    {"id": n, "item": ...}*  then  {"id": n, "result": ...}  or  {"id": n, "error": {...}}
    unasked   {"hello": {...}} first, {"peers": [...]} at once and when they change, {"refused": {...}} last

Requests run side by side; each may have 64 items under way, more as the client grants credit. A client that does not
read slows down itself only, and one that goes takes its requests along.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from overlay.app import wire_json as wire
from overlay.app.api import NodeApi
from overlay.app.control_methods import METHODS, Item
from overlay.app.control_socket import CREDIT, LineReader, open_listener, user_of
from overlay.errors import OverlayError, Refused, UsageError
from overlay.registry import Reason
from overlay.store.state import CONTROL_SOCKET

PROTOCOL: Final = 1
CONNECTIONS_MAX: Final = 64  # our guess
REQUESTS_MAX: Final = 256  # our guess, side by side on a connection
QUEUE: Final = 16  # lines that wait to be written to one client
LAST_WORDS: Final = 1.0  # seconds that a client has to read why it was turned away

ROOT_USER: Final = 0


class ServedNode(NodeApi, Protocol):
    """What the server needs of a node."""

    async def wait_peers_change(self) -> None:
        """Until a peer came, went or changed."""
        ...


async def serve_control(
    node: ServedNode, folder: Path, *, stop: Callable[[], None], users: frozenset[int] | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `started()` once clients can connect. The caller holds the folder's lock.

    Args:
        node: what is served.
        folder: where `control.sock` will lie.
        stop: a client asks the node to end; must not block.
        users: who may connect, by user id; nobody else but root and ourselves unless given.

    Raises:
        StateDamaged, HostLacks: there can be no socket.
    """
    allowed = frozenset({os.geteuid(), ROOT_USER}) if users is None else users
    connections: set[_Connection] = set()

    async def accept(stream: trio.SocketStream) -> None:
        async with stream:
            if user_of(stream) not in allowed or len(connections) >= CONNECTIONS_MAX:
                return
            connection = _Connection(stream, node, stop)
            connections.add(connection)
            try:
                await connection.run()
            finally:
                connections.discard(connection)

    listener = await open_listener(folder)
    try:
        task_status.started()
        await trio.serve_listeners(accept, [listener])
    finally:
        (folder / CONTROL_SOCKET).unlink(missing_ok=True)


@dataclass(slots=True)
class _Request:
    """One that runs."""

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    credit: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(CREDIT))  # items that may be sent


class _Connection:
    """One client."""

    def __init__(self, stream: trio.SocketStream, node: ServedNode, stop: Callable[[], None]) -> None:
        self._stream = stream
        self._node = node
        self._stop = stop
        self._running: dict[int, _Request] = {}
        self._lines, self._queue = trio.open_memory_channel[bytes](QUEUE)

    async def run(self) -> None:
        """Until the client goes."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, nursery.cancel_scope)
            async with trio.open_nursery() as requests:
                requests.start_soon(self._push_peers)
                try:
                    await self._read(requests)
                except Refused as error:
                    await self._put({"refused": wire.error_fields(error)})
                requests.cancel_scope.cancel()
            self._lines.close()
            nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS

    async def _write(self, scope: trio.CancelScope) -> None:
        """The only task that writes: a request that is cancelled leaves no half line behind."""
        try:
            async for line in self._queue:
                await self._stream.send_all(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()

    async def _put(self, message: Mapping[str, Any]) -> None:
        await self._lines.send(wire.pack(message))

    async def _push_peers(self) -> None:
        node = self._node
        await self._put({
            "hello": {
                "protocol": PROTOCOL, "name": node.name, "node": str(node.node_id), "mesh": str(node.mesh_id),
                "mesh_name": node.mesh_name,
            }
        })
        told: object = None
        while True:
            peers = [wire.peer_fields(peer.info) for peer in node.peers]
            if peers == told:
                await node.wait_peers_change()
                continue
            await self._put({"peers": peers})
            told = peers

    async def _read(self, requests: trio.Nursery) -> None:
        """Requests and cancellations. Raises Refused for a client that does not keep the protocol."""
        reader = LineReader(self._stream)
        while (line := await reader.next_line()) is not None:
            message = wire.unpack(line)
            if "cancel" in message:
                self._cancel(wire.number_of(message, "cancel"))
            elif "credit" in message:
                self._grant(wire.number_of(message, "credit"), wire.number_of(message, "items"))
            else:
                self._begin(message, requests)

    def _cancel(self, number: int) -> None:
        request = self._running.get(number)
        if request is not None:
            request.scope.cancel()

    def _grant(self, number: int, items: int) -> None:
        request = self._running.get(number)
        if request is not None:
            for _ in range(min(items, CREDIT)):
                request.credit.release()

    def _begin(self, message: Mapping[str, Any], requests: trio.Nursery) -> None:
        number, method = wire.number_of(message, "id"), wire.text_of(message, "method")
        params = message.get("params", {})
        if number in self._running or not isinstance(params, dict):
            wire.malformed("id or params")
        if len(self._running) >= REQUESTS_MAX:
            raise Refused(Reason.BUSY, f"more than {REQUESTS_MAX} requests at once")
        request = self._running[number] = _Request()
        requests.start_soon(self._answer, request, number, method, params)

    async def _answer(self, request: _Request, number: int, method: str, params: Mapping[str, Any]) -> None:
        """One request, from its begin to its last line; nothing is said of a cancelled one."""

        async def item(value: Any) -> None:
            await request.credit.acquire()
            await self._put({"id": number, "item": value})

        with request.scope:
            try:
                line = wire.pack({"id": number, "result": await self._perform(method, params, item)})
            except OverlayError as error:
                line = wire.pack({"id": number, "error": wire.error_fields(error)})
            await self._lines.send(line)
        del self._running[number]

    async def _perform(self, method: str, params: Mapping[str, Any], item: Item) -> Any:
        if method == "stop":
            self._stop()
            return None
        if method not in METHODS:
            raise UsageError(f"the running node knows no method {method!r}", hint="restart it: its release is another")
        return await METHODS[method](self._node, params, item)
