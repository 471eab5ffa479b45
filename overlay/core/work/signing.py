"""Making signed work: by who wants something run, who agrees, who places it, and who ran it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from overlay.core.certificates import show_time
from overlay.core.identity import LocalIdentity
from overlay.core.keys import MeshId, NodeId
from overlay.core.wire import sign1
from overlay.core.work.cose_sign import UnverifiedSign, assemble_sign, sign_one
from overlay.core.work.envelopes import SignedPlacement, SignedResult, SignedWorkload
from overlay.core.work.placement import LIFE, Placement
from overlay.core.work.result import WorkResult
from overlay.core.work.workload import Workload
from overlay.errors import Refused, UsageError
from overlay.registry import Label


class Payload(Protocol):
    """What can be signed."""

    def pack(self) -> bytes:
        """Its bytes."""
        ...

    @classmethod
    def unpack(cls, payload: bytes) -> object:
        """What its bytes say. Raises Refused."""
        ...


def sign_workload(workload: Workload, *, own: LocalIdentity, mesh_id: MeshId) -> SignedWorkload:
    """Sign as its originator. Under dual control it is complete once the second signer has countersigned.

    Raises:
        UsageError: it is not of the right form, names another originator, or outlives the keys that sign it.
    """
    _check_form(workload, "a workload")
    if workload.originator != own.node_id:
        raise UsageError("a workload names the node that signs it as its originator")
    _check_life(own, workload.not_after, "this workload")
    payload, aad = workload.pack(), Label.WORKLOAD + mesh_id
    if workload.second is None:
        raw = sign1(payload, signer=own.message, aad=aad, kid=own.kid)
    else:
        raw = assemble_sign(payload, [sign_one(payload, signer=own.message, kid=own.kid, aad=aad)])
    return SignedWorkload.read(raw, [own.credentials])


def countersign_workload(signed: SignedWorkload, *, own: LocalIdentity, mesh_id: MeshId) -> SignedWorkload:
    """Agree, as the second signer, to a workload that one has looked at.

    Raises:
        UsageError: it names no second signer, another one, or has both signatures already.
    """
    if not isinstance(signed.signed, UnverifiedSign) or signed.says.second != own.node_id:
        raise UsageError("this workload does not name this node as its second signer")
    if signed.is_complete:
        raise UsageError("both signatures are there already")
    _check_life(own, signed.says.not_after, "this workload")
    payload = signed.signed.payload
    mine = sign_one(payload, signer=own.message, kid=own.kid, aad=Label.WORKLOAD + mesh_id)
    raw = assemble_sign(payload, [*signed.signed.signatures, mine])
    return SignedWorkload.read(raw, [*signed.credentials, own.credentials])


def place(
    workload: SignedWorkload, *, run: int, worker: NodeId, own: LocalIdentity, mesh_id: MeshId, at: datetime, nonce: bytes,
    life: timedelta = LIFE,
) -> SignedPlacement:
    """Sign, as a scheduler, that a run of a workload shall start on a worker.

    Args:
        run: 1 to the number of runs that the workload allows; each goes to one worker only.
        at: the time now, aware.
        nonce: 16 bytes of chance.
        life: how long the worker may take to start it; at most an hour.

    Raises:
        UsageError: a number, a nonce or a time that no placement can have, or a workload that lacks a signature.
    """
    if not workload.is_complete:
        raise UsageError("this workload lacks its second signature", hint="have the second signer countersign it")
    begin = at.astimezone(UTC).replace(microsecond=0)
    placement = Placement(
        scheduler=own.node_id, workload=workload.hash, run=run, worker=worker, not_before=begin, not_after=begin + life,
        nonce=nonce,
    )  # fmt: skip
    _check_form(placement, "a placement")
    if run > workload.says.runs:
        raise UsageError(f"this workload may run {workload.says.runs} times")
    raw = sign1(placement.pack(), signer=own.message, aad=Label.PLACEMENT + mesh_id, kid=own.kid)
    return SignedPlacement.read(raw, own.credentials)


def sign_result(result: WorkResult, *, own: LocalIdentity, mesh_id: MeshId) -> SignedResult:
    """Sign, as the worker, how a run ended. Times are cut to milliseconds.

    Raises:
        UsageError: it is not of the right form, or names another worker.
    """
    exact = replace(result, started=_cut(result.started), ended=_cut(result.ended))
    _check_form(exact, "a result")
    if result.worker != own.node_id:
        raise UsageError("a result names the node that signs it as its worker")
    raw = sign1(exact.pack(), signer=own.message, aad=Label.WORK_RESULT + mesh_id, kid=own.kid)
    return SignedResult.read(raw, own.credentials)


def _check_form(value: Payload, what: str) -> None:
    try:
        right = type(value).unpack(value.pack()) == value
    except (Refused, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"this cannot be {what}: {error}") from None
    if not right:
        raise UsageError(f"this cannot be {what}: times are whole seconds in UTC, and fields are of their types")


def _check_life(own: LocalIdentity, not_after: datetime, what: str) -> None:
    """Workers believe a signature while the keys behind it are in force, and no longer."""
    if not_after > own.verified.not_after:
        raise UsageError(
            f"{what} ends on {show_time(not_after)}, and the keys that sign it on {show_time(own.verified.not_after)}",
            hint="let it end earlier, or sign it again later",
        )


def _cut(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(microsecond=time.microsecond // 1000 * 1000)
