"""The lab at work: founds a mesh, starts its machines, waits until they trust each other, lets scenes play."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from overlay.app.event_lines import describe
from overlay.app.lab.machine import ACTOR, Event, Machine, wait_until
from overlay.app.lab.options import Choice, LabOptions
from overlay.app.lab.processes import Child
from overlay.app.lab.report import Snapshot, snapshot
from overlay.app.lab.staging import MESH_NAME, Recipe, enrol, found
from overlay.app.lab.world import Host, World
from overlay.core.joining import SIGNER
from overlay.errors import CheckFailed
from overlay.events import NodeEvent
from overlay.net.background import background

MESHED_WITHIN = 45.0
BARRIER_WITHIN = 30.0
POLL = 0.5  # two polls so far apart must agree
ACTOR_REKEY = 12.0  # seconds; peers at the default period refuse an offer within ten
ACTOR_ROUND = 10.0
REFRESH_WAIT = 3.0  # seconds that new shares wait for a signer that is away; 24 h elsewhere
WIRE = str(Path(__file__).with_name("wire.py"))
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class WireTap:
    """A forwarder at work."""

    address: str
    child: Child

    def flip(self) -> None:
        """Change one bit of what the opener sends next."""
        self.child.send_signal(signal.SIGUSR1)


class Lab:
    """What scenes get to see. `machines` are the mesh; actors come and go and are no part of the report."""

    def __init__(
        self, world: World, choice: Choice, options: LabOptions, nursery: trio.Nursery, say: Say
    ) -> None:
        self.world = world
        self.choice = choice
        self.options = options
        self.machines: list[Machine] = []
        self.say = say
        self._nursery = nursery
        self._recipe: Recipe | None = None
        self._actors = 0
        self._growing = trio.Lock()  # scenes play at the same time

    @property
    def recipe(self) -> Recipe:
        """How members are made here."""
        if self._recipe is None:
            raise CheckFailed("the mesh is not founded yet")
        return self._recipe

    @property
    def victims(self) -> list[Machine]:
        """The machines whose logs count."""
        return self.machines

    async def begin(self, mesh_name: str = MESH_NAME) -> None:
        """Found the mesh, enrol everyone, start everyone."""
        hosts = self.world.hosts
        recipe, founder = await found(hosts[0], tpm=self.choice.evidence == "tpm", mesh_name=mesh_name)
        self._recipe = recipe
        self.machines.append(founder)
        for number, host in enumerate(hosts[1:], 1):
            roles = (SIGNER,) if number < self.options.signers else ()
            self.machines.append(await enrol(recipe, host, roles=roles))
        for machine in self.machines:
            self.say(f"{machine.name}: identity {machine.node_id[:8]}")
            self.start(machine)
        for machine in self.machines:
            await machine.wait_started()

    def start(
        self, machine: Machine, *, ahead: float = 0.0, defect: str = "", seeds: Sequence[Machine] = (),
        package: Path | None = None,
    ) -> None:
        """Run it, for the first time or again: as it is, with a clock that is ahead, with a defect, or another package."""
        env = None if package is None else package_environment(package)
        machine.tell = partial(self._tell, machine.name)
        settings = [*self.settings(machine.host), *(word for seed in seeds for word in ("--seed", seed.address))]
        if not ahead and not defect:
            machine.start(settings, nursery=self._nursery, env=env)
            return
        extra = [*(["--ahead", f"{ahead:.0f}"] if ahead else []), *(["--defect", defect] if defect else [])]
        machine.start(settings, nursery=self._nursery, module=ACTOR, extra=extra, env=env)

    def _tell(self, name: str, fields: Event) -> None:
        """An event of a machine as a plain line, where there is nothing better to look at."""
        event = NodeEvent.of_fields(fields)
        if event is not None and not self.options.json:
            self.say(f"{name}: {describe(event)}")

    def settings(self, host: Host, *, rekey: float | None = None, attest: float | None = None) -> list[str]:
        """What `overlay run` is told on this host."""
        words = [
            "--listen", f"{host.address}:0", "--rekey-after", str(rekey or self.options.rekey_after),
            "--attest-every", str(attest or self.options.attest_every), "--evidence", self.choice.evidence,
        ]
        if self.options.signers:
            words += ["--refresh-wait", f"{REFRESH_WAIT:g}"]
        if host.tcti:
            words += ["--tcti", host.tcti]
        if self.world.network == "loopback":
            words.append("--include-loopback")
        return words

    # --- waiting ----------------------------------------------------------------------------------------------------

    async def statuses(self) -> dict[str, dict[str, Any]]:
        """The status of every machine, by name."""
        return {machine.name: await machine.status() for machine in self.machines}

    async def snapshot(self) -> Snapshot:
        """The mesh now."""
        return snapshot(await self.statuses())

    async def wait_meshed(self, within: float = MESHED_WITHIN) -> None:
        """Until every pair is linked."""
        wanted = len(self.machines) * (len(self.machines) - 1) // 2

        async def meshed() -> bool:
            return len((await self.snapshot()).links) == wanted

        await wait_until(meshed, within=within, what=f"{wanted} links", every=POLL)

    async def wait_proven(self) -> None:
        """Until each link has seen two key epochs and two rounds of evidence."""

        async def proven() -> bool:
            links = (await self.snapshot()).links
            return bool(links) and all(link.epochs >= 2 and link.rounds >= 2 for link in links)

        longest = 2.5 * max(self.options.rekey_after, self.options.attest_every) + 20
        await wait_until(proven, within=longest, what="two epochs and two rounds on each link", every=POLL)

    async def barrier(self, within: float = BARRIER_WITHIN) -> Snapshot:
        """Until two polls 500 ms apart agree and all heads are equal; what was seen last in any case."""
        deadline = trio.current_time() + within
        before = await self.snapshot()
        while trio.current_time() < deadline:
            await trio.sleep(POLL)
            after = await self.snapshot()
            if after.complete and [node.head for node in before.nodes] == [node.head for node in after.nodes]:
                return after
            before = after
        return before

    # --- actors -----------------------------------------------------------------------------------------------------

    async def actor_host(self) -> Host:
        """A machine that is not in the mesh, with a TPM if the others have one."""
        async with self._growing:
            (host,) = await self.world.add_hosts(1, tpm=self.choice.evidence == "tpm")
        return host

    async def actor(self, host: Host | None = None, *, package: Path | None = None) -> Machine:
        """A further member, enrolled but not started."""
        self._actors += 1
        name = f"actor-{self._actors}"  # before anything is awaited: scenes play at the same time
        return await enrol(self.recipe, host or await self.actor_host(), name=name, package=package)

    @property
    def actor_rekey(self) -> float:
        """Seconds between the rekeys that an actor drives: short, but not too soon for the others."""
        return min(self.options.rekey_after, ACTOR_REKEY)

    @property
    def actor_round(self) -> float:
        """Seconds between the rounds of evidence that an actor leads."""
        return min(self.options.attest_every, ACTOR_ROUND)

    @asynccontextmanager
    async def running(
        self, machine: Machine, *, defect: str = "", argument: str = "", package: Path | None = None,
        seeds: Sequence[Machine] = (), through: "WireTap | None" = None, options: Sequence[str] = (),
    ) -> AsyncIterator[Machine]:
        """An actor at work for the length of the block, with one defect or none; it dials `seeds`, or the first victim.

        It neither announces itself nor listens to announcements: it knows an address, as an attacker would.
        """
        extra = ["--defect", defect, f"--argument={argument}"] if defect else []
        env = None if package is None else package_environment(package)
        addresses = [through.address] if through else [victim.address for victim in seeds or self.victims[:1]]
        settings = self.settings(machine.host, rekey=self.actor_rekey, attest=self.actor_round)
        settings += ["--no-mdns", *(word for address in addresses for word in ("--seed", address)), *options]
        machine.start(settings, nursery=self._nursery, module=ACTOR, extra=extra, env=env)
        try:
            yield machine
        finally:
            await machine.stop()

    @asynccontextmanager
    async def wire(self, actor: Machine, victim: Machine) -> AsyncIterator["WireTap"]:
        """A forwarder on the actor's host that stands between it and a victim."""
        host, port = victim.address.rsplit(":", 1)
        argv = [sys.executable, WIRE, actor.host.address, host, port]
        child = actor.host.spawn(argv, name="wire")
        try:
            yield WireTap(f"{actor.host.address}:{await anext(child.lines)}", child)
        finally:
            await child.stop()

    async def positions(self) -> dict[str, int]:
        """Where each victim's log ends now."""
        return {machine.name: len(machine.events) for machine in self.victims}

    async def first_seen(
        self, match: Callable[[Any], bool], since: dict[str, int], *, within: float, what: str,
        among: Sequence[Machine] | None = None,
    ) -> tuple[Machine, Any]:
        """The victim in whose log a matching line came first after those positions, and the line. Raises CheckFailed."""
        results: list[tuple[Machine, Any]] = []
        failures: list[CheckFailed] = []
        victims = list(among or self.victims)
        async with trio.open_nursery() as nursery:

            async def watch(victim: Machine) -> None:
                try:
                    event = await victim.wait(match, within=within, since=since[victim.name], what=what)
                except CheckFailed as error:
                    failures.append(error)
                else:
                    results.append((victim, event))
                    nursery.cancel_scope.cancel()

            for victim in victims:
                nursery.start_soon(watch, victim)
        if not results:
            raise failures[0]
        return results[0]


def package_environment(package: Path) -> dict[str, str]:
    """An environment in which Python takes the packages from another folder than the installed one."""
    return {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}


@asynccontextmanager
async def open_lab(folder: Path, choice: Choice, options: LabOptions, say: Say) -> AsyncIterator[Lab]:
    """A lab with all its machines running; nothing of it is left after the block."""
    async with World.create(
        folder, nodes=options.count, network=choice.network, tpm=choice.evidence == "tpm"
    ) as world, background() as tasks:
        lab = Lab(world, choice, options, tasks, say)
        await lab.begin()
        yield lab
