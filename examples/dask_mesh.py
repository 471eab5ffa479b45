"""Dask's connections over the mesh: the address `overlay://bob` is whatever bob exposes as `dask`, wherever bob is."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from distributed.comm.registry import backends
from distributed.comm.tcp import BaseTCPBackend, TCPConnector, TCPListener

from overlay.app.local import LocalNode

SERVICE = "dask"
ALLOW = ("role:scheduler", "role:worker", "role:submit")  # Dask asks nobody who it is: whoever gets through may command it
PREFIX = "overlay://"


class Ways:
    """The trio side: what Dask's thread asks the node for. Forwards and the exposed port last as long as the nursery."""

    def __init__(self, node: LocalNode, tasks: trio.Nursery) -> None:
        self.name = node.name
        self._node = node
        self._tasks = tasks
        self._token = trio.lowlevel.current_trio_token()
        self._to: dict[str, str] = {}
        self._one_at_a_time = trio.Lock()

    async def ask(self, function: Callable[..., Awaitable[Any]], *args: object) -> Any:
        """From Dask's event loop: run this in trio, and wait for what it returns."""
        return await asyncio.to_thread(functools.partial(trio.from_thread.run, function, *args, trio_token=self._token))

    async def to(self, name: str) -> str:
        """The local address that leads to Dask at a member, once there is a link to it."""
        while name not in {peer.name for peer in self._node.peers}:
            await self._node.wait_peers_change()
        async with self._one_at_a_time:
            if name not in self._to:
                self._to[name] = await self._tasks.start(self._forward, name)
        return self._to[name]

    async def expose(self, port: int) -> None:
        """Let members in to Dask here."""
        await self._tasks.start(self._expose, port)

    async def _forward(self, name: str, *, task_status: trio.TaskStatus[str]) -> None:
        async with self._node.forward(SERVICE, peer=name) as address:
            task_status.started(address)
            await trio.sleep_forever()

    async def _expose(self, port: int, *, task_status: trio.TaskStatus[None]) -> None:
        async with self._node.expose(SERVICE, f"127.0.0.1:{port}", allow=ALLOW):
            task_status.started()
            await trio.sleep_forever()


class MeshBackend(BaseTCPBackend):
    """Dask's own TCP, on 127.0.0.1, with members' names for addresses."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways

    def get_connector(self) -> "MeshConnector":
        return MeshConnector(self._ways)

    def get_listener(self, loc: str, handle_comm: Any, *words: Any, **connection_args: Any) -> "MeshListener":
        return MeshListener(self._ways, handle_comm, *words, **connection_args)

    def get_address_host(self, loc: str) -> str:
        return loc

    def get_address_host_port(self, loc: str) -> tuple[str, int]:
        return loc, 0

    def resolve_address(self, loc: str) -> str:
        return loc

    def get_local_address_for(self, loc: str) -> str:
        del loc
        return self._ways.name


class MeshConnector(TCPConnector):
    prefix = PREFIX

    def __init__(self, ways: Ways) -> None:
        self._ways = ways

    async def connect(self, address: str, *words: Any, **connection_args: Any) -> Any:
        return await super().connect(await self._ways.ask(self._ways.to, address), *words, **connection_args)


class MeshListener(TCPListener):
    prefix = PREFIX

    def __init__(self, ways: Ways, handle_comm: Any, *words: Any, **connection_args: Any) -> None:
        super().__init__("127.0.0.1:0", handle_comm, *words, **connection_args)
        self._ways = ways

    async def start(self) -> None:
        await super().start()
        await self._ways.ask(self._ways.expose, self.get_host_port()[1])

    @property
    def listen_address(self) -> str:
        return PREFIX + self._ways.name

    contact_address = listen_address


def use_mesh(ways: Ways) -> None:
    """From here on Dask in this process knows `overlay://NAME`."""
    backends["overlay"] = MeshBackend(ways)
