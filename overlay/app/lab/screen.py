"""What people see of a lab: a live table at a terminal, plain lines elsewhere, a verdict at the end."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio
from rich.console import Console
from rich.live import Live

from overlay.app.lab.act import Act
from overlay.app.lab.lab import Lab
from overlay.app.lab.options import Choice, LabOptions
from overlay.app.lab.report import Report, SceneRow
from overlay.app.lab.scene import Scene
from overlay.app.lab.table import Attack, picture
from overlay.app.output import plain
from overlay.errors import OverlayError
from overlay.net.background import background

REDRAW = 0.5  # seconds


class Screen:
    """Lines until the table is there, and none besides it; with --json everything goes to standard error."""

    def __init__(self, options: LabOptions) -> None:
        self._stream = sys.stderr if options.json else sys.stdout
        self._table = not options.json and sys.stdout.isatty()
        self._drawing = False
        self._phase = ""
        self.left = trio.Event()  # whoever read the lines has gone

    def say(self, text: str) -> None:
        """A line."""
        if self._drawing or self.left.is_set():
            return
        try:
            self._stream.write(plain(text) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            self.left.set()

    def phase(self, text: str) -> None:
        """What goes on now."""
        self._phase = text
        self.say(text)

    def begin(self, options: LabOptions, choice: Choice) -> None:
        """The first lines, before anything is there to be shown."""
        evidence = "a TPM" if choice.evidence == "tpm" else "software evidence"
        network = "a network namespace" if choice.network == "namespaces" else "a port on loopback"
        self.say(f"a lab of {options.count} machines, each with {evidence} and {network}")
        for lack in choice.degraded:
            self.say(f"degraded: {lack}")

    @asynccontextmanager
    async def showing(self, lab: Lab, scenes: Sequence[Scene | Act], rows: Sequence[SceneRow]) -> AsyncIterator[None]:
        """The table for the length of the block, if there is one."""
        if not self._table:
            yield
            return
        attacks = [Attack(scene.name, scene.about) for scene in scenes]
        console = Console()

        async def draw() -> None:
            try:
                now = picture(await lab.statuses(), attacks, rows, self._phase, width=console.width)
            except OverlayError as error:
                live.update(f"{self._phase}\n{plain(str(error))}", refresh=True)
            else:
                live.update(now, refresh=True)

        with Live(console=console, auto_refresh=False) as live:
            self._drawing = True
            try:
                async with background() as tasks:
                    tasks.start_soon(_again_and_again, draw)
                    yield
                await draw()
            finally:
                self._drawing = False

    def tell(self, report: Report) -> None:
        """The verdict in a few lines."""
        nodes, links, heads = len(report.after.nodes), len(report.after.links), report.after.heads_equal
        held = sum(row.status == "passed" for row in report.scenes)
        self.say(
            f"{nodes} machines, {links} link{'s' * (links != 1)}, {held} of {len(report.scenes)} attacks refused, "
            f"heads {'agree' if heads else 'differ'}: {'ok' if report.ok else 'NOT ok'} ({report.seconds:.0f} s)"
        )
        for row in report.scenes:
            if row.status == "failed":
                self.say(f"{row.name}: expected {row.expected}, observed {row.observed or 'nothing'}: {row.why}")
        if report.why:
            self.say(f"the lab gave up: {report.why}")


async def _again_and_again(draw: Callable[[], Awaitable[None]]) -> None:
    while True:
        await draw()
        await trio.sleep(REDRAW)
