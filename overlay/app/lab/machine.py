"""One running node of the lab, as an onlooker sees it: its event lines, and its status through its control socket."""

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from overlay.app.client import connect_local
from overlay.app.config import PREFIX
from overlay.app.lab.processes import Child
from overlay.app.lab.world import Host
from overlay.errors import CheckFailed, OverlayError

Event = Mapping[str, Any]
NODE = "overlay.app.cli.main"
ACTOR = "overlay.app.lab.actor"


class Machine:
    """A node process on a host of the lab. Events are kept in order, so that one that came early is not missed."""

    def __init__(self, name: str, host: Host, state: Path, node_id: str) -> None:
        self.name = name
        self.host = host
        self.state = state
        self.node_id = node_id
        self.events: list[Event] = []
        self.arrived: list[float] = []  # when each of them came, on trio's clock
        self._begun = 0  # where the events of the process that runs begin
        self.tell: Callable[[Event], None] = lambda _event: None
        self.child: Child | None = None
        self.port = 0
        self._news = trio.Event()

    def start(
        self, settings: Sequence[str], *, nursery: trio.Nursery, module: str = NODE, env: Mapping[str, str] | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        """Start the process, for the first time or again; its lines are read until it ends."""
        self._begun = len(self.events)
        argv = [sys.executable, "-P", "-m", module, "--state", str(self.state), *extra, "run", "--json", *settings]
        self.child = self.host.spawn(argv, env=without_settings(env or os.environ), name=f"{self.name}-node")
        nursery.start_soon(self._read, self.child)

    async def _read(self, child: Child) -> None:
        async for line in child.lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a warning of some library; it stands in the .err file, too
            if isinstance(event, dict):
                self.events.append(event)
                self.arrived.append(trio.current_time())
                self._keep(event)
                self.tell(event)
                self._news.set()
                self._news = trio.Event()
        self._news.set()

    def _keep(self, event: Event) -> None:
        """For people who look into the lab's folder afterwards; `seconds` is when it came, on one clock for all machines."""
        with (self.host.folder / f"{self.name}-events.jsonl").open("a") as file:
            file.write(json.dumps({**event, "seconds": round(self.arrived[-1], 3)}) + "\n")

    async def wait(
        self, match: Callable[[Event], bool], *, within: float, since: int = 0, what: str = "an event"
    ) -> Event:
        """The first matching event at or after position `since`.

        Raises:
            CheckFailed: it did not come in time, or the process ended.
        """
        with trio.move_on_after(within):
            position = since
            while True:
                news = self._news
                for event in self.events[position:]:
                    if match(event):
                        return event
                position = len(self.events)
                if self.child is not None and self.child.returncode is not None:
                    raise CheckFailed(f"{self.name} ended while {what} was awaited: {self.last_words()}")
                await news.wait()
        raise CheckFailed(f"{self.name} did not see {what} within {within:g} s")

    def time_of(self, match: Callable[[Event], bool], since: int = 0) -> float:
        """When the first matching event after position `since` came, on trio's clock; infinity if there is none."""
        for event, time in zip(self.events[since:], self.arrived[since:], strict=True):
            if match(event):
                return time
        return math.inf

    async def wait_started(self, within: float = 10.0) -> None:
        """Until it listens, and answers on its control socket."""
        await self.wait(
            lambda event: event["event"] == "node-started", within=30, since=self._begun, what="its own start"
        )
        await wait_until(self.status, within=within, what=f"{self.name} answers")
        starts = [event for event in self.events[self._begun :] if event["event"] == "node-started"]
        self.port = int(starts[-1]["port"])

    @property
    def address(self) -> str:
        """Where it listens, as host:port; after `wait_started`."""
        return f"{self.host.address}:{self.port}"

    async def status(self) -> dict[str, Any]:
        """Its figures. Raises CheckFailed if it does not answer."""
        try:
            async with connect_local(self.state) as node:
                return (await node.status()).fields()
        except OverlayError as error:
            raise CheckFailed(f"{self.name} does not answer: {error}; its last words: {self.last_words()}") from None

    async def kill(self) -> None:
        """As if the power had failed."""
        if self.child is not None:
            await self.child.kill()

    async def stop(self) -> None:
        """End it in order; if we are cancelled only ask it to, for the world ends soon, and all at once."""
        if self.child is None:
            return
        if trio.current_effective_deadline() > -math.inf:
            await self.child.stop()
        else:
            self.child.send_signal(signal.SIGTERM)

    def last_words(self) -> str:
        """The last line that it wrote to standard error."""
        if self.child is None:
            return ""
        try:
            lines = self.child.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else "nothing on standard error"


def clean_environment() -> dict[str, str]:
    """Our environment without settings for nodes."""
    return without_settings(os.environ)


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without settings for nodes: those of the lab get theirs by option."""
    return {name: value for name, value in environment.items() if not name.startswith(PREFIX)}


async def wait_until(
    check: Callable[[], Any], *, within: float, what: str, every: float = 0.1
) -> None:
    """Ask an async check again and again until it is true. Raises CheckFailed after `within` seconds."""
    deadline = trio.current_time() + within
    last: OverlayError | None = None
    while trio.current_time() < deadline:
        try:
            if await check():
                return
        except OverlayError as error:
            last = error
        await trio.sleep(every)
    raise CheckFailed(f"not within {within:g} s: {what}" + (f" ({last})" if last else ""))


def refused(reason: str, node_id: str | None = None) -> Callable[[Event], bool]:
    """Matches a victim's line that says why it turned someone away, at the door or later; None: whoever it was."""

    def match(event: Event) -> bool:
        if event["event"] == "link-refused" and not event["by_peer"]:
            known = True
        else:
            known = event["event"] in {"trust-lost", "chain-rejected"} or (
                event["event"] == "peer-down" and not event["by_peer"]
            )
        return known and event["reason"] == reason and (node_id is None or event["node"] in {"", node_id})

    return match


def peer_up(node_id: str) -> Callable[[Event], bool]:
    """Matches the line that says that this node was admitted."""
    return lambda event: event["event"] == "peer-up" and event["node"] == node_id


