"""What schedulers, workers and those who submit say to each other: names of calls and streams, and the form of answers.

    work.assign   call to a worker; body: an assignment             -> {0:1, 1:reason?, 2:detail, 3:hint}; no reason: accepted
    work.result   call to a worker; body: {0:1, 1:H(placement)}     -> {0:1, 1:carried result?}; waits while it runs
    work.bytes    stream to whoever has a file; body: {0:1, 1:hash} -> the bytes
    work.submit   call to a scheduler; body: a carried workload     -> {0:1, 1:reason?, 2:detail, 3:hint}
    work.status   call to a scheduler; body: {0:1, 1:H(workload)}   -> {0:1, 1:[[run, worker, carried placement, carried result,
                                                                                 reason, detail], ...]}  (empty, 0: none)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from overlay.core.keys import NodeId
from overlay.core.wire import Array, Bytes, Maybe, Text, Tuple, UInt, make_map, malformed, open_map
from overlay.core.work.envelopes import SIGNED_PLACEMENT_MAX, SIGNED_RESULT_MAX
from overlay.core.work.workload import RUNS_MAX
from overlay.errors import Refused
from overlay.registry import Reason

ASSIGN: Final = "work.assign"
RESULT: Final = "work.result"
BYTES: Final = "work.bytes"
SUBMIT: Final = "work.submit"
STATUS: Final = "work.status"

TEXT_MAX: Final = 1024
ANSWER_MAX: Final = 4 * TEXT_MAX
ROWS_MAX: Final = 32  # runs in one answer of a scheduler, the newest: what fits into a call's MiB
STATUS_MAX: Final = 1024 * 1024

_ROW: Final = Tuple((
    UInt(RUNS_MAX), Bytes(32), Bytes(1, SIGNED_PLACEMENT_MAX), Bytes(0, SIGNED_RESULT_MAX), UInt(255), Text(TEXT_MAX),
))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run as a scheduler tells of it; the envelopes in it can be checked, the rest is its word."""

    run: int
    worker: NodeId
    placement: bytes = field(repr=False)  # carried
    result: bytes | None = field(default=None, repr=False)  # carried
    reason: Reason | None = None  # why the worker did not take it
    detail: str = ""


def pack_hash(digest: bytes) -> bytes:
    """Which one is meant."""
    return make_map(digest)


def unpack_hash(body: bytes) -> bytes:
    """Raises Refused."""
    (digest,) = open_map(body, Bytes(32), limit=64)
    return bytes(digest)


def pack_answer(problem: Refused | None = None) -> bytes:
    """Taken, or why not."""
    if problem is None:
        return make_map(None, "", "")
    return make_map(int(problem.reason), problem.detail[:TEXT_MAX], problem.hint[:TEXT_MAX])


def check_answer(body: bytes) -> None:
    """Raises Refused: what the other side says, or MALFORMED."""
    reason, detail, hint = open_map(body, Maybe(UInt(255)), Text(TEXT_MAX), Text(TEXT_MAX), limit=ANSWER_MAX)
    if reason is not None:
        raise Refused(_reason(reason) or Reason.INTERNAL, detail, hint=hint)


def pack_result(carried: bytes | None) -> bytes:
    """A result, or that it runs still."""
    return make_map(carried)


def unpack_result(body: bytes) -> bytes | None:
    """Raises Refused."""
    (carried,) = open_map(body, Maybe(Bytes(1, SIGNED_RESULT_MAX)), limit=SIGNED_RESULT_MAX + 16)
    return None if carried is None else bytes(carried)


def pack_rows(rows: Sequence[Row]) -> bytes:
    """What a scheduler knows of a workload."""
    return make_map([
        [one.run, one.worker, one.placement, one.result or b"", int(one.reason or 0), one.detail[:TEXT_MAX]]
        for one in rows[-ROWS_MAX:]
    ])


def unpack_rows(body: bytes) -> list[Row]:
    """Raises Refused."""
    (rows,) = open_map(body, Array(_ROW, ROWS_MAX), limit=STATUS_MAX)
    return [
        Row(
            run=run, worker=NodeId(worker), placement=placement, result=result or None, reason=_reason(reason or None),
            detail=detail,
        )
        for run, worker, placement, result, reason, detail in rows
    ]


def _reason(number: int | None) -> Reason | None:
    if number is None:
        return None
    return Reason(number) if number in Reason._value2member_map_ else malformed(f"reason {number}")
