"""`overlay lab`: a LAN in a box. Founds a mesh, shows it, attacks it, reports."""

import json
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import trio

from overlay.app.lab.act import Act
from overlay.app.lab.catalogue import Programme, select
from overlay.app.lab.lab import Lab, open_lab
from overlay.app.lab.options import Choice, LabOptions, choose
from overlay.app.lab.processes import cancel_on_signal
from overlay.app.lab.report import NOTHING, Report, SceneRow, Snapshot
from overlay.app.lab.scene import Scene
from overlay.app.lab.screen import Screen
from overlay.app.lab.story import SIGNERS, Story
from overlay.app.version import VERSION
from overlay.errors import OverlayError, UsageError
from overlay.net.background import background

INTERRUPTED = 130
ONCE_WITHIN = 100.0  # seconds to the end of the last scene; `--once` promises 120 with all that follows
LAST_BARRIER = 15.0  # seconds, then
ACT_NODES = 9  # five signers, three more to be, and one to be thrown out
QUICK_ROUNDS = 6.0  # seconds: leases of 17.5 where they would have 150, in acts that wait for their ends
PROVEN_BELOW = 20.0  # with longer periods `--once` does not wait for second epochs and rounds


def run_lab(options: LabOptions) -> int:
    """Run the lab; returns the exit code. Raises OverlayError before anything has started."""
    programme = select(options.scenes)
    options = _with_room_for(programme, options)
    choice = choose(options)
    screen = Screen(options)
    screen.begin(options, choice)
    with _folder(options) as folder:
        report = trio.run(_run, folder, choice, options, programme, screen)
    if screen.left.is_set() and not options.json:
        raise BrokenPipeError
    if report is None:
        return INTERRUPTED
    if options.json:
        sys.stdout.write(json.dumps(report.fields(), indent=2) + "\n")
    else:
        screen.tell(report)
    return 0 if report.ok else 1


def _with_room_for(programme: Programme, options: LabOptions) -> LabOptions:
    """Acts about the authority need signers, and machines that are none; others short rounds. Raises UsageError for too few."""
    if not programme.acts:
        return options
    if not programme.about_authority:
        return replace(options, attest_every=min(options.attest_every, QUICK_ROUNDS))
    if options.nodes is not None and options.nodes < ACT_NODES:
        raise UsageError(f"the scene {programme.acts[-1].name} needs {ACT_NODES} machines", hint="leave out --nodes")
    return replace(options, nodes=options.nodes or ACT_NODES, signers=SIGNERS)


@contextmanager
def _folder(options: LabOptions) -> Iterator[Path]:
    """Where the lab lives: a folder that was named stays, another one goes."""
    if options.keep is not None:
        options.keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield options.keep
        return
    path = Path(tempfile.mkdtemp(prefix="overlay-lab-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


async def _run(
    folder: Path, choice: Choice, options: LabOptions, programme: Programme, screen: Screen
) -> Report | None:
    """The whole show; None if a signal ended it, or if nobody reads what it says."""
    began = trio.current_time()
    report: Report | None = None
    with trio.CancelScope() as scope:
        async with background() as tasks:
            await tasks.start(cancel_on_signal, scope)
            if not options.json:
                tasks.start_soon(_cancel_after, screen.left, scope)
            async with open_lab(folder, choice, options, screen.say) as lab:
                report = await _play(lab, programme, screen, began)
    return report


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _play(lab: Lab, programme: Programme, screen: Screen, began: float) -> Report:
    """Whatever goes wrong with the machines ends in a report that says so."""
    rows: list[SceneRow] = []
    scenes = programme.scenes
    before = after = NOTHING
    why = ""
    async with screen.showing(lab, scenes, rows):
        try:
            with trio.CancelScope(deadline=began + ONCE_WITHIN if lab.options.once else math.inf) as scope:
                before = await _before(lab, screen)
                if programme.attacks:
                    screen.phase("under attack, from all sides at once")
                    await _attack(lab, programme.attacks, rows)
            if not scope.cancelled_caught:
                await _act(lab, programme.acts, rows, screen)
            screen.phase("the heads of all logs are compared")
            after = await lab.barrier(LAST_BARRIER)
        except OverlayError as error:
            why = str(error)
            screen.say(f"the lab gives up: {why}")
        rows[:] = _in_order(rows, scenes, lab.choice)
        report = _report(lab.choice, rows, before, after, trio.current_time() - began, why)
        if not lab.options.once:
            screen.phase(f"{'all done' if report.ok else 'something did not hold'}: press Ctrl-C to end")
            await trio.sleep_forever()
    return report


async def _before(lab: Lab, screen: Screen) -> Snapshot:
    screen.phase("the machines look for each other")
    await lab.wait_meshed()
    if max(lab.options.rekey_after, lab.options.attest_every) <= PROVEN_BELOW:
        screen.phase("waiting for fresh keys and fresh evidence on every link")
        await lab.wait_proven()
    return await lab.barrier()


async def _attack(lab: Lab, scenes: tuple[Scene, ...], rows: list[SceneRow]) -> None:
    """All scenes at once: they have actors of their own. Rows come in the order in which they end."""

    async def play(scene: Scene) -> None:
        row = await scene.play(lab)
        rows.append(row)
        _tell(lab, row)

    async with trio.open_nursery() as nursery:
        for scene in scenes:
            nursery.start_soon(play, scene)


async def _act(lab: Lab, acts: tuple[Act, ...], rows: list[SceneRow], screen: Screen) -> None:
    """One after the other; after one that failed the mesh is not what the next one stands on."""
    if not acts:
        return
    story = Story(lab)
    for act in acts:
        screen.phase(act.phase)
        row = await act.play(story)
        rows.append(row)
        _tell(lab, row)
        if row.status == "failed":
            return


def _tell(lab: Lab, row: SceneRow) -> None:
    lab.say(f"scene {row.name}: {row.status}: expected {row.expected}, observed {row.observed or '-'} {row.why}".rstrip())


def _in_order(rows: list[SceneRow], scenes: Sequence[Scene | Act], choice: Choice) -> list[SceneRow]:
    """A row for each scene: one that did not come to its end has not passed."""
    ended = {row.name: row for row in rows}
    return [ended.get(scene.name) or scene.unfinished(choice) for scene in scenes]


def _report(
    choice: Choice, rows: list[SceneRow], before: Snapshot, after: Snapshot, seconds: float, why: str
) -> Report:
    good = before.complete and after.complete and all(row.status != "failed" for row in rows)
    return Report(
        ok=good, version=VERSION, evidence=choice.evidence, network=choice.network, degraded=choice.degraded,
        seconds=seconds, before=before, scenes=rows, after=after, why=why,
    )
