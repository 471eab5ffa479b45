"""What the acts of a lab have in common: whom they ask, who is dead or thrown out by now, and what has been issued."""

import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from overlay.app.authority.api import Authority, Report
from overlay.app.client import connect_local
from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Event, Machine, peer_up, wait_until
from overlay.app.lab.record import Record, root_of, serial_of
from overlay.app.lab.scene import Observation, observation
from overlay.errors import CheckFailed, Refused
from overlay.registry import Reason
from overlay.store.state import FOUNDING_KEY

SIGNERS: Final = 5  # the first machines are the first authority
THRESHOLD: Final = 4  # of them it takes to sign
DONE_WITHIN: Final = 60.0  # seconds until an order has reached everybody, on two busy cores
NOT_STOLEN: Final = ("*.sqlite3*", "lock", "*.sock")  # a thief of a disk has no need for these


class Story:
    """Of one lab. The machines that run are `lab.machines`; acts take them out and put others in."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.record = Record(lab.world.folder / "certificates")
        self.say = lab.say
        self.token = ""  # that a machine has joined with
        self.root = ""  # SHA-256 of the key of the distributed root, hex
        self.dead: Machine | None = None  # the signer that was killed
        self.revoked: Machine | None = None
        self.earlier: Path | None = None  # its disk as it was before it was revoked

    def __getitem__(self, name: str) -> Machine:
        """The machine of that name, which runs."""
        return next(machine for machine in self.lab.machines if machine.name == name)

    @property
    def operator(self) -> Machine:
        """The founder."""
        return self.lab.machines[0]

    @asynccontextmanager
    async def authority(self, machine: Machine | None = None) -> AsyncIterator[Authority]:
        """The commands of a machine, the operator's unless said."""
        async with connect_local((machine or self.operator).state) as node:
            yield node.authority

    async def status(self, machine: Machine | None = None) -> dict[str, Any]:
        """What `overlay ca status --json` says there."""
        async with self.authority(machine) as authority:
            return dict((await authority.status()).fields)

    async def renew(self, machine: Machine) -> Report:
        """A new certificate for a machine. Raises Refused(NOT_ENOUGH_SIGNERS)."""
        async with self.authority(machine) as authority:
            return await authority.renew()

    async def renewed(self, machine: Machine) -> None:
        """The signers sign: the machine gets a certificate with another serial. Raises CheckFailed."""
        before = serial_of(machine.state)
        report = await self.renew(machine)
        self.record.look(self.lab.machines)
        if before == report.fields["serial"]:
            raise CheckFailed(f"{machine.name} has the certificate that it had")

    async def not_renewed(self, machine: Machine) -> Observation:
        """The signers do not sign, and say so. Raises CheckFailed."""
        try:
            await self.renew(machine)
        except Refused as error:
            return Observation(error.reason.name, machine.name)
        raise CheckFailed(f"{machine.name} was renewed")

    # --- machines come and go ---------------------------------------------------------------------------------------

    async def kill(self, machine: Machine) -> None:
        """Its power fails."""
        self.lab.machines.remove(machine)
        await machine.kill()

    async def stop(self, machine: Machine) -> None:
        """It is shut down."""
        self.lab.machines.remove(machine)
        await machine.stop()

    async def start(
        self, machine: Machine, *, among: int | None = None, ahead: float = 0.0, package: Path | None = None
    ) -> None:
        """It runs again, at its place among the machines or last; returns when it is linked to all of them."""
        self.lab.start(machine, ahead=ahead, package=package)
        await machine.wait_started(DONE_WITHIN)
        self.lab.machines.insert(len(self.lab.machines) if among is None else among, machine)
        await self.lab.wait_meshed(DONE_WITHIN)

    @asynccontextmanager
    async def away(self, machine: Machine) -> AsyncIterator[None]:
        """Its power fails for the length of the block."""
        place = self.lab.machines.index(machine)
        await self.kill(machine)
        yield
        await self.start(machine, among=place)

    async def steal(self, machine: Machine, name: str) -> Path:
        """A copy of its disk, as a thief takes one."""
        copy = machine.state.with_name(name)
        ignore = shutil.ignore_patterns(*NOT_STOLEN)
        await trio.to_thread.run_sync(lambda: shutil.copytree(machine.state, copy, ignore=ignore))
        return copy

    # --- what everybody has to see ----------------------------------------------------------------------------------

    async def everyone(self, check: Callable[[Machine], bool], *, what: str, among: Sequence[Machine] = ()) -> None:
        """Until it holds for each machine. Raises CheckFailed."""

        async def holds() -> bool:
            self.record.look(self.lab.machines)
            return all(check(machine) for machine in among or self.lab.machines)

        await wait_until(holds, within=DONE_WITHIN, what=what)

    async def everyone_sees(self, match: Callable[[Event], bool], since: dict[str, int], *, what: str) -> None:
        """Until the log of each machine has such a line after those positions. Raises CheckFailed."""
        for machine in self.lab.machines:
            await machine.wait(match, within=DONE_WITHIN, since=since.get(machine.name, 0), what=what)

    async def somebody_is_alarmed(
        self, at: Machine, reason: Reason, since: dict[str, int], *, among: Sequence[Machine] = ()
    ) -> Observation:
        """By a signer that does what it should not, seen by one of the machines. Raises CheckFailed."""

        def names_it(event: Event) -> bool:
            return bool(event["event"] == "authority-alarm" and (event["node"], event["reason"]) == (at.node_id, reason.name))

        victim, event = await self.lab.first_seen(
            names_it, since, within=DONE_WITHIN, what=f"an alarm about {at.name}", among=among or None
        )
        return observation(victim, event)

    async def everyone_admits(self, actor: Machine, since: dict[str, int]) -> None:
        """Every machine but itself has a link to it. Raises CheckFailed."""
        for machine in self.lab.machines:
            if machine is not actor:
                await machine.wait(
                    peer_up(actor.node_id), within=DONE_WITHIN, since=since.get(machine.name, 0), what=f"{actor.name} admitted"
                )

    async def same_root_everywhere(self) -> None:
        """Every machine knows the distributed root as the newest one, and holds a certificate by it. Raises CheckFailed."""
        for machine in self.lab.machines:
            found = (await self.status(machine))["root"]
            if found != self.root:
                raise CheckFailed(f"{machine.name} knows another root: {found}")
        await self.everyone(lambda machine: root_of(machine.state) == self.root, what="leaves by the root of all")

    async def nobody_has_the_key(self) -> None:
        """The founding key is on no disk. Raises CheckFailed."""
        holders = [machine.name for machine in self.lab.machines if (machine.state / FOUNDING_KEY).exists()]
        if holders:
            raise CheckFailed(f"the founding key is on {', '.join(holders)}")
