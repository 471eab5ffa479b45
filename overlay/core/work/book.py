"""The runs of one worker, from their placement to their end: what may start, and what must stop. Sans-IO.

    receive   a scheduler's assignment            -> Accepted: fetch the artifact and hash it; or Declined
    begin     the artifact is here and is right   -> Begun: store its record, log `work.start`, then run; or Halted
    tick      every 30 seconds while runs are here, and `trust_moved` at once -> Halted: end the run, say why
    end       the run is over, or its artifact never came

A run is counted when it begins, not before: an artifact that breaks off on its way uses up nothing. Both signers are checked
again as it begins, since one may have been revoked meanwhile. What a guard raises refuses, and ends a run.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, auto
from typing import Final

from overlay.core.guard import asked
from overlay.core.work.checks import Run, check_assignment, check_still, check_times
from overlay.core.work.envelopes import Assignment
from overlay.core.work.records import Memory, RunRecord
from overlay.core.work.seen_credentials import SeenCredentials
from overlay.core.work.view import WorkerView
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import Reason

RECHECK_EVERY: Final = 30.0  # protocol
RUNS_AT_ONCE: Final = 16  # our guess


@dataclass(frozen=True, slots=True)
class Accepted:
    """Fetch its artifact and inputs, then call `begin`."""

    run: Run


@dataclass(frozen=True, slots=True)
class Declined:
    """It does not run here. `claimed`: what was handed over, as far as it could be read; nothing of it is verified."""

    reason: Reason
    detail: str
    hint: str
    claimed: Assignment | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Begun:
    """Make the record durable, then an entry in the audit log, and only then start it."""

    run: Run
    record: RunRecord


@dataclass(frozen=True, slots=True)
class Halted:
    """It does not count any more: end it if it runs, or do not start it; then call `end`."""

    run: Run
    reason: Reason
    detail: str


class Phase(Enum):
    """Where a run is."""

    WAITING = auto()  # for its artifact
    RUNNING = auto()
    HALTED = auto()  # until the shell says that it has ended


@dataclass(frozen=True, slots=True)
class _Held:
    run: Run
    phase: Phase


class WorkBook:
    """One worker's. `now` is monotonic, `at` the calendar; no verb raises for what a peer did."""

    def __init__(
        self, records: Iterable[RunRecord] = (), *, since: datetime | None = None, at_once: int = RUNS_AT_ONCE
    ) -> None:
        """`records`: what the store holds. `since`: see `Memory`. `at_once`: how many runs may be here."""
        self._memory = Memory.of(records, since)
        self._held: dict[bytes, _Held] = {}
        self._at_once = at_once
        self._seen = SeenCredentials()
        self._recheck = math.inf

    @property
    def runs(self) -> tuple[Run, ...]:
        """All that are here, in the order in which they came."""
        return tuple(held.run for held in self._held.values())

    @property
    def deadline(self) -> float:
        """When `tick` is due; math.inf for never."""
        return self._recheck

    def receive(self, raw: bytes, view: WorkerView, now: float, at: datetime) -> Accepted | Declined:
        """An assignment came."""
        try:
            run = asked(lambda: check_assignment(raw, replace(view, seen=self._seen), self._memory, at))
            self._check_room(run)
        except Refused as error:
            return Declined(error.reason, error.detail, error.hint, _claimed(raw))
        self._held[run.key] = _Held(run, Phase.WAITING)
        self._recheck = min(self._recheck, now + RECHECK_EVERY)
        return Accepted(run)

    def begin(self, key: bytes, view: WorkerView, at: datetime) -> Begun | Halted:
        """Its artifact and inputs are here, and are what the workload names."""
        held = self._held.get(key)
        if held is None or held.phase is not Phase.WAITING:
            raise LocalProtocolError("only a run that waits can begin")
        run, record = held.run, RunRecord.of(held.run.assignment)
        problem = _problem(lambda: self._check_begin(run, record, view, at))
        if problem is not None:
            return self._halt(run, problem)
        self._held[key] = _Held(run, Phase.RUNNING)
        return Begun(run, record)

    def end(self, key: bytes) -> None:
        """It is over, or never began."""
        self._held.pop(key, None)
        if not self._held:
            self._recheck = math.inf

    def tick(self, view: WorkerView, now: float, at: datetime) -> list[Halted]:
        """Time has come: check all signers again."""
        if now < self._recheck:
            return []
        self._recheck = now + RECHECK_EVERY if self._held else math.inf
        self._memory.forget(at)
        return self.trust_moved(view, at)

    def trust_moved(self, view: WorkerView, at: datetime) -> list[Halted]:
        """A revocation, a quarantine or another finding came: check all signers again, at once."""
        halted = []
        for held in list(self._held.values()):
            problem = self._problem_of(held, view, at)
            if problem is not None:
                halted.append(self._halt(held.run, problem))
        return halted

    def _check_room(self, run: Run) -> None:
        says = run.placement
        if any((one.placement.workload, one.placement.run) == (says.workload, says.run) for one in self.runs):
            raise Refused(Reason.WORK_REPLAYED, f"run {says.run} is here already")
        if len(self._held) >= self._at_once:
            raise Refused(Reason.BUSY, f"{len(self._held)} runs are here already", hint="place it later, or elsewhere")

    def _check_begin(self, run: Run, record: RunRecord, view: WorkerView, at: datetime) -> None:
        check_still(run, view, at)
        check_times(run.assignment, at)
        self._memory.add(record)

    def _problem_of(self, held: _Held, view: WorkerView, at: datetime) -> Refused | None:
        return None if held.phase is Phase.HALTED else _problem(lambda: self._check_again(held, view, at))

    def _check_again(self, held: _Held, view: WorkerView, at: datetime) -> None:
        check_still(held.run, view, at)
        if held.phase is Phase.WAITING:
            check_times(held.run.assignment, at)

    def _halt(self, run: Run, problem: Refused) -> Halted:
        self._held[run.key] = _Held(run, Phase.HALTED)
        return Halted(run, problem.reason, problem.detail)


def _problem(check: Callable[[], None]) -> Refused | None:
    try:
        asked(check)
    except Refused as error:
        return error
    return None


def _claimed(raw: bytes) -> Assignment | None:
    with suppress(Refused):
        return Assignment.unpack(raw)
    return None
