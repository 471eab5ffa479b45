"""Signed work, for schedulers and workers of any kind: sign, place, check. These names are public.

Nothing here sends or runs anything: an envelope is bytes, moved by whatever moves jobs already. `WorkDesk` gives a node's keys
and what the node knows; all else is plain values. The guide is docs/guide/work.md, formats are in docs/protocol/work.md.

    desk = overlay.work.WorkDesk(node)                                   # node: of overlay.open_node
    signed = desk.sign(desk.new_workload("report", artifact))            # the originator; signed.pack() is bytes
    placement = desk.place(signed, desk.worker("bob"))                   # a scheduler
    run = check_assignment(Assignment(signed, placement).pack(), desk.view, Memory(), desk.at)       # a worker; or Refused
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from overlay.core.work.artifact import ExpectedBytes
from overlay.core.work.book import Accepted, Begun, Declined, Halted, WorkBook
from overlay.core.work.checks import Run, check_assignment, check_result, check_still, check_workload
from overlay.core.work.envelopes import Assignment, SignedPlacement, SignedResult, SignedWorkload
from overlay.core.work.placement import Placement
from overlay.core.work.records import Memory, RunRecord
from overlay.core.work.result import WorkResult
from overlay.core.work.signing import countersign_workload, place, sign_result, sign_workload
from overlay.core.work.starts import PlacedTwice, StartWatch, check_proof
from overlay.core.work.view import WorkerView
from overlay.core.work.workload import Allowed, Artifact, File, RunLimits, Workload
from overlay.registry import ArtifactType, WorkState

if TYPE_CHECKING:
    from overlay.app.work.desk import WorkDesk

__all__ = [
    "Accepted", "Allowed", "Artifact", "ArtifactType", "Assignment", "Begun", "Declined", "ExpectedBytes", "File", "Halted",
    "Memory", "PlacedTwice", "Placement", "Run", "RunLimits", "RunRecord", "SignedPlacement", "SignedResult", "SignedWorkload",
    "StartWatch", "WorkBook", "WorkDesk", "WorkResult", "WorkState", "WorkerView", "Workload", "check_assignment",
    "check_proof", "check_result", "check_still", "check_workload", "countersign_workload", "place", "sign_result",
    "sign_workload",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """`WorkDesk` loads trio, so it loads on first use (PEP 562)."""
    if name == "WorkDesk":
        return import_module("overlay.app.work.desk").WorkDesk
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
