"""A scheduler in a page: takes signed work, places its runs on workers in turn, keeps their results. It can make up nothing.

    overlay grant carol --role scheduler          # once, by an operator
    python examples/work_scheduler.py             # on carol's machine
    overlay work submit job.work --to carol       # on the machine of who signed it
"""

from dataclasses import dataclass, field

import trio

import overlay
from overlay.app.work import contract
from overlay.core.work.checks import check_originators
from overlay.work import Assignment, SignedPlacement, SignedResult, SignedWorkload, WorkDesk


@dataclass
class Run:
    """One run of one workload, and what became of it."""

    number: int
    placement: SignedPlacement | None = None
    result: bytes | None = None
    problem: overlay.Refused | None = None

    def row(self) -> contract.Row | None:
        """As it is told; a run that waits for a worker is nowhere yet."""
        if self.placement is None:
            return None
        problem = self.problem
        return contract.Row(
            run=self.number, worker=self.placement.says.worker, placement=self.placement.pack(), result=self.result,
            reason=None if problem is None else problem.reason, detail="" if problem is None else problem.detail,
        )


@dataclass
class Scheduler:
    """Each run goes to the next linked member with the role `worker`, is placed once, and is asked for until it is over."""

    nursery: trio.Nursery
    node: overlay.NodeApi | None = None
    desk: WorkDesk | None = None
    jobs: dict[bytes, list[Run]] = field(default_factory=dict)
    turn: int = 0

    async def submit(self, request: overlay.Request) -> bytes:
        """Somebody hands over signed work. Its signers are checked here, too: nobody waits for what no worker takes."""
        assert self.desk is not None
        try:
            signed = SignedWorkload.unpack(request.body)
            check_originators(signed, self.desk.view, self.desk.at)
        except overlay.Refused as problem:
            return contract.pack_answer(problem)
        if signed.hash not in self.jobs:
            runs = self.jobs[signed.hash] = [Run(number + 1) for number in range(signed.says.runs)]
            for run in runs:
                self.nursery.start_soon(self.carry_out, signed, run)
        return contract.pack_answer()

    async def status(self, request: overlay.Request) -> bytes:
        """What became of it."""
        await trio.lowlevel.checkpoint()
        runs = self.jobs.get(contract.unpack_hash(request.body), [])
        return contract.pack_rows([row for row in map(Run.row, runs) if row is not None])

    async def carry_out(self, signed: SignedWorkload, run: Run) -> None:
        """Place a run, and wait for its end. What a worker refuses is not placed elsewhere: the reason would be the same."""
        assert self.desk is not None
        try:
            worker = await self.next_worker(signed)
            run.placement = self.desk.place(signed, worker.node_id, run=run.number)
            contract.check_answer(await worker.call(contract.ASSIGN, Assignment(signed, run.placement).pack()))
            await self.wait_result(run, worker)
        except overlay.Refused as problem:
            run.problem = problem
        except overlay.OverlayError as problem:
            run.problem = overlay.Refused(overlay.Reason.TIMEOUT, str(problem))

    async def wait_result(self, run: Run, worker: overlay.Peer) -> None:
        """A worker answers when the run is over, or that it runs still."""
        assert self.desk is not None and run.placement is not None
        carried = None
        while carried is None:
            answer = await worker.call(contract.RESULT, contract.pack_hash(run.placement.hash))
            carried = contract.unpack_result(answer)
        self.desk.check_result(SignedResult.unpack(carried), run.placement)
        run.result = carried

    async def next_worker(self, signed: SignedWorkload) -> overlay.Peer:
        """In turn, among those that whoever signed the work allows."""
        assert self.node is not None
        while True:
            workers = [peer for peer in self.node.peers if "worker" in peer.roles]
            fit = [peer for peer in workers if signed.says.workers.has(peer.node_id, peer.name)]
            if fit:
                self.turn += 1
                return fit[self.turn % len(fit)]
            await trio.sleep(1)


async def main() -> None:
    """Until Ctrl-C."""
    async with trio.open_nursery() as nursery:
        scheduler = Scheduler(nursery)
        services = {contract.SUBMIT: scheduler.submit, contract.STATUS: scheduler.status}
        async with overlay.open_node(services=services) as node:
            scheduler.node, scheduler.desk = node, WorkDesk(node)
            print("placing work as", node.name)
            await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
