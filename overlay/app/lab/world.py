"""The lab's world: hosts on a LAN in a box, each with its TPM; everything in it ends with the block that opened it."""

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import trio

from overlay.app.lab.namespaces import Namespaces
from overlay.app.lab.processes import HERE, Child, Place, end_all, start
from overlay.app.lab.tpms import PATH_MAX, SoftwareTpm, start_tpm
from overlay.errors import CheckFailed, HostLacks

Network = Literal["namespaces", "loopback"]

NAMES: Final = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy")
SNIFFER: Final = str(Path(__file__).with_name("sniffer.py"))
PLAIN: Final = str(Path(__file__).with_name("plain.py"))
PLAIN_TIMEOUT: Final = 10.0  # seconds
TPM_STOP: Final = 0.3  # seconds of grace; a TPM that is killed loses nothing
CHILD_STOP: Final = 0.8  # with the TPMs' time, everything is gone within two; a node takes 0.5


class Host:
    """One machine of the lab. `tcti` is None without a TPM; several programs may run on one host."""

    def __init__(
        self, *, name: str, number: int, folder: Path, address: str, place: Place, children: list[Child]
    ) -> None:
        self.name: Final = name
        self.number: Final = number
        self.folder: Final = folder
        self.address: Final = address
        self.tpm: SoftwareTpm | None = None
        self._place = place
        self._children = children

    def __repr__(self) -> str:
        return f"Host({self.name!r}, {self.address})"

    @property
    def tcti(self) -> str | None:
        """How TPM software on this host finds its TPM, such as `swtpm:path=...`."""
        return None if self.tpm is None else self.tpm.tcti

    def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, name: str = "node", read_output: bool = True
    ) -> Child:
        """Start a program here; it ends with the world at the latest. `env` None gives it our own environment."""
        child = start(argv, name=name, folder=self.folder, place=self._place, env=env, read_output=read_output)
        self._children.append(child)
        return child


class World:
    """Hosts, and what an onlooker on their LAN can do. Made by `create`."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.folder: Final = folder
        self.network: Final[Network] = network
        self.hosts: tuple[Host, ...] = ()
        self._namespaces: Namespaces | None = None
        self._children: list[Child] = []
        self._tpms: list[Child] = []
        self._sockets: Path | None = None

    @classmethod
    @asynccontextmanager
    async def create(
        cls, folder: Path, *, nodes: int = 5, network: Network = "namespaces", tpm: bool = True
    ) -> AsyncIterator["World"]:
        """A world in `folder`, with a folder per host; on leaving, all processes are gone within two seconds.

        Raises:
            HostLacks: the host has no namespaces, or no TPM for it. Nothing is left behind.
        """
        world = cls(folder, network)
        try:
            if network == "namespaces":
                world._namespaces = await Namespaces.create(0)
            await world.add_hosts(nodes, tpm=tpm)
            yield world
        finally:
            await world._close()

    def __getitem__(self, name: str) -> Host:
        """The host of that name."""
        return next(host for host in self.hosts if host.name == name)

    async def add_hosts(self, count: int = 1, *, tpm: bool = False, names: Sequence[str] = ()) -> tuple[Host, ...]:
        """More machines on the LAN; raises HostLacks."""
        if self._namespaces is not None:
            await self._namespaces.add(count)
        first = len(self.hosts) + 1
        added = tuple(self._host(number, names) for number in range(first, first + count))
        self.hosts += added
        if tpm:
            for host in added:
                await self._add_tpm(host)
        return added

    def _host(self, number: int, names: Sequence[str]) -> Host:
        position = number - len(self.hosts) - 1
        standard = NAMES[number - 1] if number <= len(NAMES) else f"node{number}"
        name = names[position] if position < len(names) else standard
        folder = self.folder / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        space = self._namespaces
        address, place = ("127.0.0.1", HERE) if space is None else (space.address(number), space.place(number))
        return Host(name=name, number=number, folder=folder, address=address, place=place, children=self._children)

    async def _add_tpm(self, host: Host) -> None:
        folder = host.folder / "tpm"
        if len(os.fsencode(folder / "tpm.sock")) > PATH_MAX:
            if self._sockets is None:
                self._sockets = Path(tempfile.mkdtemp(prefix="overlay-lab-"))
            folder = self._sockets / host.name
        host.tpm = await start_tpm(folder)
        self._tpms.append(host.tpm.child)

    async def pull_tpm(self, host: Host) -> None:
        """Its TPM loses power: whoever uses it hears nothing more."""
        if host.tpm is None:
            raise CheckFailed(f"{host.name} has no TPM")
        await host.tpm.child.kill()

    async def plug_tpm(self, host: Host) -> None:
        """The same TPM again, after a reset: it has its keys, and nothing is measured. Raises HostLacks."""
        if host.tpm is None:
            raise CheckFailed(f"{host.name} has no TPM")
        self._tpms.remove(host.tpm.child)
        host.tpm = await start_tpm(host.tpm.folder)
        self._tpms.append(host.tpm.child)

    async def _close(self) -> None:
        """Nodes first, so that they can say goodbye and still reach their TPM; then what they stood on."""
        await end_all(self._children, CHILD_STOP)
        await end_all(self._tpms, TPM_STOP)
        if self._namespaces is not None:
            self._namespaces.close()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)

    @asynccontextmanager
    async def capture(self, path: Path) -> AsyncIterator[None]:
        """Write every packet on the LAN to a new pcap file, from before the block until after it.

        Raises:
            HostLacks: there are no namespaces, so no LAN of our own, or nothing may be captured in them.
            CheckFailed: packets were lost, so that what the file does not show may still have been there.
        """
        if self._namespaces is None:
            raise HostLacks("capturing needs network namespaces")
        argv = [sys.executable, "-IS", SNIFFER, self._namespaces.bridge, str(path)]
        sniffer = start(argv, name="sniffer", folder=self.folder, place=self._namespaces.hub)
        self._children.append(sniffer)
        if await anext(sniffer.lines, "") != "ready":
            raise HostLacks(f"nothing can be captured; {sniffer.log} says why")
        try:
            yield
        finally:
            await sniffer.stop()
        if (await anext(sniffer.lines, "")).partition(" ")[2] != "0":
            raise CheckFailed("the capture is not complete: packets were lost")

    async def send_plain(self, sender: Host, receiver: Host, data: bytes, *, port: int = 7777) -> None:
        """The control of every capture: send bytes over TCP with nothing around them; returns when they have arrived.

        Raises:
            CheckFailed: they did not arrive.
        """
        program, to = [sys.executable, "-IS", PLAIN], [receiver.address, str(port)]
        listener = receiver.spawn([*program, "listen", *to], name="plain-in")
        try:
            with trio.move_on_after(PLAIN_TIMEOUT):
                await anext(listener.lines, "")  # it listens
                opener = sender.spawn([*program, "send", *to, data.hex()], name="plain-out", read_output=False)
                if await opener.wait() == 0 and await anext(listener.lines, "") == data.hex():
                    return
        finally:
            await listener.stop()
        raise CheckFailed(f"plain bytes from {sender.name} did not reach {receiver.name}")

