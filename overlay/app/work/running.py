"""One run on a worker: its files, its launcher, and what it has come to."""

import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import trio

from audit.bodies import Body, make_body
from overlay.app.work.delivery import Delivery
from overlay.app.work.inside import Job
from overlay.app.work.launcher import End, Launcher
from overlay.app.work.staging import Staged
from overlay.core.keys import NodeId
from overlay.core.work.checks import Run
from overlay.core.work.envelopes import Assignment, SignedResult
from overlay.core.work.result import WorkResult
from overlay.core.work.workload import File
from overlay.errors import OverlayError, Refused
from overlay.registry import ArtifactType, EntryType, Reason, WorkEvent, WorkState

STATES: Final = {
    "exited": WorkState.EXITED, "signalled": WorkState.SIGNALLED, "timed-out": WorkState.TIMED_OUT,
    "memory": WorkState.OUT_OF_MEMORY, "output": WorkState.OUTPUT_TOO_LARGE, "lost": WorkState.LOST,
}  # fmt: skip
NUMBERED: Final = frozenset({WorkState.EXITED, WorkState.SIGNALLED})
FAILED: Final = "failed"


class Running:
    """What is known of it so far. `problem`: why it does not start, or is ended."""

    def __init__(self, run: Run) -> None:
        self.run: Final = run
        self.problem: Refused | None = None
        self.preparing = trio.CancelScope()
        self.artifact: Staged | None = None
        self.inputs: dict[str, Staged] = {}
        self._launcher: Launcher | None = None
        self._stopping = trio.Event()
        self._end = End("lost")
        self._held: tuple[str, ...] = ()
        self._started: datetime | None = None
        self._files: list[File] = []

    @property
    def detail(self) -> str:
        """For the log: what went wrong, and which bounds the kernel held."""
        said = "" if self.problem is None else self.problem.detail
        held = f"held: {' '.join(self._held)}" if self._held else ""
        return "; ".join(part for part in (said, held) if part)

    def stop(self, reason: Reason, detail: str) -> None:
        """It does not count any more. Only the first word counts."""
        self.fail(reason, detail)
        self.preparing.cancel()
        self._stopping.set()

    def fail(self, reason: Reason, detail: str) -> None:
        """It cannot be run."""
        self.problem = self.problem or Refused(reason, detail)

    async def equip(self, get: Callable[[], Awaitable[Launcher]]) -> None:
        """A launcher that has all it needs and waits. Raises HostLacks: this machine cannot run work."""
        if self.problem is None and self.artifact is not None:
            self._launcher = await get()
            await self._launcher.equip(self._job(), self.artifact, self.inputs)

    def give_up_launcher(self) -> None:
        """Whether it was needed or not: nothing of the run is left."""
        if self._launcher is not None:
            self._launcher.kill()

    async def execute(self, delivery: Delivery, *, started: Callable[[], None], now: Callable[[], datetime]) -> None:
        """Until it is over. Raises OverlayError: this machine cannot run it."""
        launcher = self._launcher
        if self.problem is not None or launcher is None:
            return

        def begun() -> None:
            self._started, self._held = now(), launcher.held
            started()

        async def take(name: str, descriptor: int) -> None:
            with open(descriptor, "rb", closefd=False) as source:  # noqa: ASYNC230 (a descriptor: nothing is looked up)
                kept = await delivery.keep_open(source)
            self._files.append(File(name, kept.hash, kept.size))

        failed: OverlayError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when_told, launcher)
            try:
                self._end = await launcher.run(started=begun, take=take)
            except OverlayError as error:
                failed = error
            nursery.cancel_scope.cancel()
        if failed is not None:
            raise failed
        if self._end.how.startswith(FAILED):
            self.fail(Reason.UNSUPPORTED, self._end.how)

    async def _stop_when_told(self, launcher: Launcher) -> None:
        await self._stopping.wait()
        await launcher.stop()

    def _job(self) -> Job:
        says = self.run.workload
        limits = says.limits
        return Job(
            argv=list(says.arguments), environment=dict(says.environment),
            python=sys.executable if says.artifact.type is ArtifactType.PYTHON else "", outputs=list(says.outputs),
            inputs=sum(one.size for one in says.inputs), seconds=limits.seconds, memory=limits.memory,
            processes=limits.processes, output=limits.output, network=limits.network,
        )

    def result(self, at: datetime, *, worker: NodeId) -> WorkResult:
        """What it has come to."""
        state, reason = self._state()
        number = self._end.number if state in NUMBERED else None
        says = self.run.placement
        started = self._started or at
        return WorkResult(
            worker=worker, placement=self.run.key, workload=says.workload, run=says.run, state=state, number=number,
            reason=reason, started=started, ended=max(at, started), files=tuple(sorted(self._files)),
        )

    def _state(self) -> tuple[WorkState, Reason | None]:
        ended_itself = STATES.get(self._end.how, WorkState.LOST)
        if self.problem is None or (self._started is not None and ended_itself is not WorkState.LOST):
            return ended_itself, None
        return WorkState.NOT_STARTED if self._started is None else WorkState.STOPPED, self.problem.reason


def lost(assignment: Assignment, at: datetime) -> WorkResult:
    """Of a run that died with its worker."""
    says = assignment.placement.says
    return WorkResult(
        worker=says.worker, placement=assignment.placement.hash, workload=says.workload, run=says.run, state=WorkState.LOST,
        started=at, ended=at,
    )


def lost_body(assignment: Assignment, result: SignedResult) -> Body:
    """The end of such a run, for the log; nothing of it is verified again, it was before it began."""
    work, placed = assignment.workload.says, assignment.placement.says
    return make_body(
        EntryType.WORK, event=int(WorkEvent.END), name=work.name, workload=placed.workload, run=placed.run,
        placement=assignment.placement.hash, scheduler=placed.scheduler, originators=list(work.signers),
        state=int(result.says.state), result=result.hash,
    )  # fmt: skip
