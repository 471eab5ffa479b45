"""Targets: signed work, as a scheduler hands it to a worker, and as it stands in logs and stores."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from overlay.core.wire import sign1
from overlay.core.work.book import WorkBook
from overlay.core.work.envelopes import Assignment, SignedPlacement, SignedResult, SignedWorkload
from overlay.core.work.records import RunRecord
from overlay.core.work.starts import StartWatch, check_proof
from overlay.errors import Refused
from overlay.registry import Label
from tests.fuzz.kit import cut
from tests.unit.core.authority_kit import NOW, Member
from tests.unit.core.work.work_kit import MESH, SCHEDULER, SUBMITTER, WORKER, put, sign, view

WORKLOAD: Final = sign()
PLACEMENT: Final = put(WORKLOAD)


def work(data: bytes) -> None:
    """Carried envelopes as they stand; or a payload that its author has signed, in an assignment to a worker."""
    first, rest = cut(data)
    if first & 1:
        with suppress(Refused):
            _hand_over(rest, of_workload=bool(first & 2))
        return
    for read in READERS:
        with suppress(Refused):
            read(rest)
    WorkBook().receive(rest, view(), 0.0, NOW)
    StartWatch().heard(WORKER.node_id, rest, MESH.trust)


def _hand_over(payload: bytes, *, of_workload: bool) -> None:
    workload, placement = WORKLOAD, PLACEMENT
    if of_workload:
        raw = _signed(payload, SUBMITTER, Label.WORKLOAD)
        workload = SignedWorkload.read(raw, [SUBMITTER.credentials])
        placement = put(workload)
    else:
        placement = SignedPlacement.read(_signed(payload, SCHEDULER, Label.PLACEMENT), SCHEDULER.credentials)
    WorkBook().receive(Assignment(workload, placement).pack(), view(), 0.0, NOW)


def _signed(payload: bytes, by: Member, label: bytes) -> bytes:
    return sign1(payload, signer=by.message, aad=label + MESH.mesh_id, kid=by.kid)


READERS: Final[Sequence[Callable[[bytes], object]]] = (
    Assignment.unpack, SignedWorkload.unpack, SignedPlacement.unpack, SignedResult.unpack, RunRecord.unpack,
    lambda data: check_proof(data, MESH.trust),
)  # fmt: skip
