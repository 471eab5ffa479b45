"""What workers log of work: that a run starts, ends, is stopped or was refused, and that a run was placed twice.

An entry about a start carries the placement with its credentials, so that two of them prove by themselves what a scheduler
did; whoever reads any of the others finds the start by the hash of its placement.
"""

from collections.abc import Sequence
from typing import Any, Final

from audit.bodies import Body, make_body, read_body
from audit.entry import Entry
from overlay.core.keys import NodeId
from overlay.core.work.checks import Run
from overlay.core.work.envelopes import SignedResult
from overlay.errors import Refused
from overlay.registry import EntryType, Reason, WorkEvent

DETAIL_CUT: Final = 512  # letters of a text that goes into an entry


def work_start(run: Run) -> Body:
    """A run is about to start: durable before it does."""
    return _body(WorkEvent.START, run, carried=run.assignment.placement.pack())


def work_stop(run: Run, reason: Reason, detail: str = "") -> Body:
    """A run was ended, or never began, because one of its signers does not count any more, or its artifact was wrong."""
    return _body(WorkEvent.STOP, run, reason=int(reason), detail=detail[:DETAIL_CUT] or None)


def work_end(run: Run, result: SignedResult, detail: str = "") -> Body:
    """A run is over."""
    says = result.says
    return _body(
        WorkEvent.END, run, state=int(says.state), number=says.number, result=result.hash,
        reason=None if says.reason is None else int(says.reason), detail=detail[:DETAIL_CUT] or None,
    )  # fmt: skip


def work_refused(
    peer: NodeId, reason: Reason, detail: str, *, workload: bytes | None = None, run: int | None = None
) -> Body:
    """What this peer handed over does not run here. Hash and number are as it claimed."""
    return make_body(
        EntryType.WORK, event=int(WorkEvent.REFUSED), peer=peer, reason=int(reason), detail=detail[:DETAIL_CUT],
        workload=workload, run=run,
    )  # fmt: skip


def work_placed_twice(workload: bytes, run: int, schedulers: Sequence[str], workers: Sequence[str]) -> Body:
    """Two workers have started one run: their ids, and those of one or two schedulers. The placements are in their logs."""
    detail = f"started by {' and '.join(workers)}"
    proven = NodeId.parse(schedulers[0]) if len(schedulers) == 1 else None
    return make_body(
        EntryType.WORK, event=int(WorkEvent.PLACED_TWICE), workload=workload, run=run, scheduler=proven,
        reason=int(Reason.PLACED_TWICE), detail=detail if proven else f"{detail}; placed by {' and '.join(schedulers)}",
    )  # fmt: skip


def read_start(entry: Entry) -> bytes | None:
    """The placement that an entry about a start carries; None for any other entry."""
    if entry.type != EntryType.WORK:
        return None
    try:
        body = read_body(EntryType.WORK, entry.body)
    except Refused:
        return None  # another release may write more in it
    return body["carried"] if body["event"] == WorkEvent.START else None


def _body(event: WorkEvent, run: Run, **values: Any) -> Body:
    return make_body(
        EntryType.WORK, event=int(event), name=run.workload.name, workload=run.placement.workload, run=run.placement.run,
        placement=run.key, scheduler=run.scheduler.node_id, originators=[one.node_id for one in run.originators], **values,
    )  # fmt: skip
