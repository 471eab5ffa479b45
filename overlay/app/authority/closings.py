"""Compares the closing checkpoints of an authority object with the logs that this node holds, before it signs."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from audit.chain import ChainState
from audit.store import AuditStore
from overlay.core.authority.closing import SETTLED_BEFORE, Copy, judge_closing
from overlay.core.authority.contents import ClosingCheckpoint, Contents
from overlay.core.keys import NodeId

CopyOf = Callable[[ClosingCheckpoint, datetime], Awaitable[Copy]]  # what we hold of that log; raises OverlayError


async def closing_problem(contents: Contents, before: Contents, own: NodeId, begun: datetime, copy_of: CopyOf) -> str:
    """What is wrong with where logs end; empty if nothing is. `begun`: the ceremony. Raises OverlayError."""
    named = [checkpoint.node_id for checkpoint in contents.closing]
    if own in before.member_ids and own not in named:
        return "our own log is not closed"
    for checkpoint in contents.closing:
        leaves = checkpoint.node_id != own and checkpoint.node_id not in contents.member_ids
        problem = judge_closing(checkpoint, await copy_of(checkpoint, begun - SETTLED_BEFORE), leaves=leaves)
        if problem:
            return f"the log of {checkpoint.node_id.short}: {problem}"
    return ""


def read_copy(store: AuditStore, checkpoint: ClosingCheckpoint, logs: Sequence[ChainState], settled: datetime) -> Copy:
    """What is stored. `logs`: of that author, the newest incarnation first; `settled`: what is older counts as such. Blocks."""
    held = next((log for log in logs if log.log_id == checkpoint.log_id), None)
    if held is None:
        return Copy(knows_author=bool(logs))
    root = None
    if checkpoint.size <= held.size:
        with store.tree(held.log_id) as tree:
            root = tree.root(checkpoint.size)
    later = (log for log in logs if log.k > held.k)
    return Copy(
        root=root, settled=store.first_since(held.log_id, settled),
        superseded=any(store.first_since(log.log_id, settled) for log in later),
    )
