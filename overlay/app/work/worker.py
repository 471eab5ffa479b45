"""A worker: takes assignments, runs what has passed every check, ends it when a signer does not count any more.

Before a run starts, its record and the entry `work.start` are durable, and what it runs has been hashed and sealed. A run that
was under way when the worker went down died with it, and has the result LOST.
"""

from collections import OrderedDict
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from audit import work_bodies as bodies
from audit.log import AuditLog
from overlay.app.local import LocalNode
from overlay.app.work.ceiling import Ceiling
from overlay.app.work.contract import ASSIGN, RESULT, pack_answer, pack_result, unpack_hash
from overlay.app.work.delivery import Delivery
from overlay.app.work.desk import WorkDesk
from overlay.app.work.launcher import Launchers
from overlay.app.work.running import Running, lost, lost_body
from overlay.app.work.staging import Stage
from overlay.core.keys import NodeId
from overlay.core.work.book import Declined, Halted, WorkBook
from overlay.core.work.checks import Run
from overlay.core.work.envelopes import Assignment, SignedResult
from overlay.errors import HostLacks, NotAllowed, OverlayError, Refused
from overlay.events import (
    AuthorityChanged,
    ForkExposed,
    NodeEvent,
    OrderTaken,
    PeerDown,
    PolicyChanged,
    RevocationsChanged,
    TrustLost,
    WorkEnded,
    WorkRefused,
    WorkStarted,
    WorkStopped,
)
from overlay.net.background import background
from overlay.net.request import Handler, PeerInfo, Request
from overlay.registry import ArtifactType, EntryType, Reason
from overlay.store.work import WorkStore

MOVES: Final = (RevocationsChanged, PolicyChanged, AuthorityChanged, TrustLost, ForkExposed, OrderTaken, PeerDown)
BEFORE_DEADLINE: Final = 1.0  # seconds before a caller's deadline, "it runs still" is answered
WAIT_MAX: Final = 600.0  # seconds that somebody may wait for a result in one call: our guess
UNBEGUN_MAX: Final = 256  # results of runs that never began, in memory: our guess
FORGET_EVERY: Final = 3600.0  # seconds between two looks for results that nobody asks for any more: our guess


@dataclass(slots=True)
class _Live:
    """A run that is here."""

    run: Run
    running: Running
    over: trio.Event = field(default_factory=trio.Event)


class Worker:
    """Of one node. `services` are there from the start, and refuse until it runs."""

    def __init__(self, store: WorkStore, delivery: Delivery, launchers: Launchers, *, dual_control: bool) -> None:
        self._store = store
        self._delivery = delivery
        self._launchers = launchers
        self._dual_control = dual_control
        self._stage = Stage()
        self._ceiling = Ceiling.of_machine()
        self._live: dict[bytes, _Live] = {}
        self._told: tuple[int, set[tuple[NodeId, Reason]]] = (0, set())
        self._moved = trio.Event()
        self._unbegun: OrderedDict[bytes, tuple[Assignment, bytes]] = OrderedDict()
        self._book = WorkBook(store.records(), since=store.since)
        self._around: tuple[LocalNode, AuditLog, WorkDesk, trio.Nursery] | None = None

    @property
    def services(self) -> dict[str, Handler]:
        """For NodeParts."""
        return {ASSIGN: self._assign, RESULT: self._result}

    @property
    def runs(self) -> tuple[Run, ...]:
        """Those that are here now."""
        return self._book.runs

    def observe(self, event: NodeEvent) -> None:
        """What may mean that somebody does not count any more is looked at, at once."""
        if isinstance(event, MOVES):
            self._moved.set()

    async def run(self, node: LocalNode, log: AuditLog) -> None:
        """Until cancelled."""
        desk = WorkDesk(node, dual_control=self._dual_control)
        await self._settle_lost(desk, log)
        async with background() as tasks:
            self._around = (node, log, desk, tasks)
            tasks.start_soon(self._launchers.keep_warm)
            tasks.start_soon(self._forget, desk)
            while True:
                await self._watch_once(desk)

    async def _watch_once(self, desk: WorkDesk) -> None:
        """Until time has come, or something has moved."""
        wait = min(max(self._book.deadline - trio.current_time(), 0.0), 3600.0)
        with trio.move_on_after(wait):
            await self._moved.wait()
        if self._moved.is_set():
            self._moved = trio.Event()
            self._halt(self._book.trust_moved(desk.view, desk.at))
        self._halt(self._book.tick(desk.view, trio.current_time(), desk.at))

    def _halt(self, halted: Iterable[Halted]) -> None:
        for one in halted:
            live = self._live.get(one.run.key)
            if live is not None:
                live.running.stop(one.reason, one.detail)

    async def _forget(self, desk: WorkDesk) -> None:
        while True:
            with suppress(OverlayError):  # a disk that is full takes no change; later then
                await self._delivery.forget(desk.at)
                await trio.to_thread.run_sync(self._store.forget, desk.at)
            await trio.sleep(FORGET_EVERY)

    # --- what members ask -------------------------------------------------------------------------------------------

    def _here(self) -> tuple[LocalNode, AuditLog, WorkDesk, trio.Nursery]:
        if self._around is None:
            raise NotAllowed("this worker does not run yet")
        return self._around

    async def _assign(self, request: Request) -> bytes:
        _, log, desk, tasks = self._here()
        answer = self._book.receive(request.body, desk.view, trio.current_time(), desk.at)
        if isinstance(answer, Declined):
            await self._tell_refused(log, request.peer, answer)
            return pack_answer(Refused(answer.reason, answer.detail, hint=answer.hint))
        live = self._live[answer.run.key] = _Live(answer.run, Running(answer.run))
        self._moved.set()  # there is another deadline
        tasks.start_soon(self._carry_out, live)
        return pack_answer()

    async def _tell_refused(self, log: AuditLog, peer: PeerInfo, answer: Declined) -> None:
        """One line and one entry per peer, reason and minute."""
        if not self._is_first(peer.node_id, answer.reason):
            return
        node, _, _, _ = self._here()
        node.engine.emit(WorkRefused(name=peer.name, node=str(peer.node_id), reason=answer.reason, detail=answer.detail))
        claimed = answer.claimed
        await log.append(EntryType.WORK, bodies.work_refused(
            peer.node_id, answer.reason, answer.detail,
            workload=None if claimed is None else claimed.workload.hash,
            run=None if claimed is None else claimed.placement.says.run,
        ))

    def _is_first(self, node_id: NodeId, reason: Reason) -> bool:
        """In this minute; nobody fills our log."""
        minute = int(trio.current_time() // 60)
        if self._told[0] != minute:
            self._told = (minute, set())
        if (node_id, reason) in self._told[1]:
            return False
        self._told[1].add((node_id, reason))
        return True

    async def _result(self, request: Request) -> bytes:
        """Its scheduler and those who signed the work may know; to everybody else there is no such run."""
        placement = unpack_hash(request.body)
        live = self._live.get(placement)
        if live is not None:
            _check_party(live.run.assignment, request.peer)
            with trio.move_on_after(min(max(request.deadline - BEFORE_DEADLINE, 0.0), WAIT_MAX)):
                await live.over.wait()
            if not live.over.is_set():
                return pack_result(None)
        found: tuple[Assignment, bytes | None] | None = self._unbegun.get(placement)
        found = found or await trio.to_thread.run_sync(self._find, placement)
        if found is None:
            raise NotAllowed("there is no such run")
        assignment, result = found
        _check_party(assignment, request.peer)
        return pack_result(result)

    def _find(self, placement: bytes) -> tuple[Assignment, bytes | None] | None:
        stored = self._store.find(placement)
        return None if stored is None else (Assignment.unpack(stored.assignment), stored.result)

    # --- one run ----------------------------------------------------------------------------------------------------

    async def _carry_out(self, live: _Live) -> None:
        """From its acceptance to its result."""
        node, log, desk, _ = self._here()
        run, running = live.run, live.running
        began = False
        try:
            try:
                async with AsyncExitStack() as stack:
                    await self._prepare(live, node, stack)
                    stack.callback(running.give_up_launcher)
                    await running.equip(partial(self._launchers.get, network=run.workload.limits.network))
                    began = await self._begin(live, log, desk)
                    if began:
                        started = partial(self._tell_started, node, run)
                        await running.execute(self._delivery, started=started, now=lambda: desk.at)
            except Refused as error:
                running.fail(error.reason, error.detail)
            except HostLacks as error:
                running.fail(Reason.UNSUPPORTED, str(error))
            except OverlayError as error:
                running.fail(Reason.UNSUPPORTED if began else Reason.ARTIFACT_MISMATCH, str(error))
            except OSError as error:  # no descriptors, processes or memory any more: that is no reason to end the node
                running.fail(Reason.BUSY, f"this machine cannot: {error.strerror}")
            await self._finish(live, node, log, desk, began=began)
        finally:
            self._book.end(run.key)
            self._live.pop(run.key, None)
            live.over.set()

    async def _prepare(self, live: _Live, node: LocalNode, stack: AsyncExitStack) -> None:
        """Its artifact and inputs, from who signed it, else its scheduler. Raises Refused, PeerUnreachable."""
        run, running = live.run, live.running
        if run.workload.artifact.type is ArtifactType.TASK:
            raise Refused(Reason.UNSUPPORTED, "tasks are for libraries that check them by themselves")
        self._ceiling.check(run.workload.limits)
        wanted = [*(one.node_id for one in run.originators), run.scheduler.node_id]
        peers = sorted((peer for peer in node.peers if peer.node_id in wanted), key=lambda peer: wanted.index(peer.node_id))
        stage = partial(self._delivery.stage, self._stage, peers=peers)
        with running.preparing:
            running.artifact = await stage("the artifact", run.workload.artifact)
            stack.callback(self._stage.drop, running.artifact)
            for one in run.workload.inputs:
                running.inputs[one.name] = staged = await stage(f"the input {one.name}", one)
                stack.callback(self._stage.drop, staged)

    async def _begin(self, live: _Live, log: AuditLog, desk: WorkDesk) -> bool:
        """Whether it may run; then that is durable, here and in the log."""
        if live.running.problem is not None:
            return False
        answer = self._book.begin(live.run.key, desk.view, desk.at)
        if isinstance(answer, Halted):
            live.running.stop(answer.reason, answer.detail)
            return False
        await trio.to_thread.run_sync(self._store.add, answer.record, live.run.assignment.pack())
        await log.append(EntryType.WORK, bodies.work_start(live.run))
        return True

    def _tell_started(self, node: LocalNode, run: Run) -> None:
        node.engine.emit(WorkStarted(
            workload=run.workload.name, run=run.placement.run, name=run.scheduler.name, node=str(run.scheduler.node_id),
            placement=run.key.hex(),
        ))

    async def _finish(self, live: _Live, node: LocalNode, log: AuditLog, desk: WorkDesk, *, began: bool) -> None:
        run, running = live.run, live.running
        signed = desk.sign_result(running.result(desk.at, worker=node.node_id))
        problem = running.problem
        if not began:  # it uses up nothing, and may come again
            self._keep_unbegun(run, signed)
            if problem is not None and not self._is_first(run.scheduler.node_id, problem.reason):
                return
        else:
            await self._keep_result(run, signed)
        with suppress(OverlayError):  # the log keeps its warning, which every status shows
            await self._tell_ended(run, running, signed, node, log)

    async def _keep_result(self, run: Run, signed: SignedResult) -> None:
        try:
            await trio.to_thread.run_sync(self._store.finish, run.key, signed.pack())
        except OverlayError:  # the disk takes nothing more: for now it is known, and LOST after a restart
            self._keep_unbegun(run, signed)

    async def _tell_ended(self, run: Run, running: Running, signed: SignedResult, node: LocalNode, log: AuditLog) -> None:
        problem = running.problem
        if problem is not None and signed.says.reason is not None:
            await log.append(EntryType.WORK, bodies.work_stop(run, problem.reason, problem.detail))
            node.engine.emit(WorkStopped(
                workload=run.workload.name, run=run.placement.run, reason=problem.reason, detail=problem.detail,
                name=run.scheduler.name, node=str(run.scheduler.node_id), placement=run.key.hex(),
            ))
        await log.append(EntryType.WORK, bodies.work_end(run, signed, running.detail))
        node.engine.emit(WorkEnded(
            workload=run.workload.name, run=run.placement.run, state=signed.says.state.name.lower(),
            number=signed.says.number, placement=run.key.hex(),
        ))

    def _keep_unbegun(self, run: Run, signed: SignedResult) -> None:
        self._unbegun[run.key] = (run.assignment, signed.pack())
        while len(self._unbegun) > UNBEGUN_MAX:
            self._unbegun.popitem(last=False)

    async def _settle_lost(self, desk: WorkDesk, log: AuditLog) -> None:
        """Runs that died with the last process of this worker."""
        for stored in await trio.to_thread.run_sync(self._store.runs):
            if stored.result is not None:
                continue
            with suppress(Refused):
                assignment = Assignment.unpack(stored.assignment)
                signed = desk.sign_result(lost(assignment, desk.at))
                await trio.to_thread.run_sync(self._store.finish, stored.record.placement, signed.pack())
                await log.append(EntryType.WORK, lost_body(assignment, signed))


def _check_party(assignment: Assignment, peer: PeerInfo) -> None:
    """Raises NotAllowed, as where there is no such run."""
    if peer.node_id not in (assignment.placement.says.scheduler, *assignment.workload.says.signers):
        raise NotAllowed("there is no such run")
