"""Every error of the library, on one screen. `hint` says what to do about it."""

from typing import Final

from overlay.registry import Reason


class OverlayError(Exception):
    """Base of all errors that a user, a file or a peer can cause."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Refused(OverlayError):
    """Something did not pass a check; `reason` is from the closed enum, `detail` is for our own log only."""

    exit_code = 4

    def __init__(self, reason: Reason, detail: str = "", *, hint: str = "") -> None:
        text = reason.name.lower().replace("_", " ")
        super().__init__(f"{text}: {detail}" if detail else text, hint=hint or HINTS.get(reason, ""))
        self.reason = reason
        self.detail = detail


class PeerUnreachable(OverlayError):
    """There is no open link to the peer."""


class DeadlineExceeded(OverlayError):
    """The answer did not come in time."""


class RemoteError(OverlayError):
    """The peer's handler failed; the message is the peer's, and `kind` names the exception there (empty: there was none)."""

    def __init__(self, message: str, *, hint: str = "", kind: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class StreamReset(OverlayError):
    """The peer, or the end of the link, broke a stream off; what had come before was delivered."""


class Truncated(OverlayError):
    """A stream ended before its sender had signed the end: bytes may be missing, or not its."""


class NotAllowed(OverlayError):
    """The peer does not let us do this."""

    exit_code = 4


class CheckFailed(OverlayError):
    """A verification found something wrong."""


class NoWitnesses(OverlayError):
    """Nobody is there to witness this log: nobody could attest how far it reached when."""


class UsageError(OverlayError):
    """The command, a setting or an argument is not of the right form."""

    exit_code = 2


class HostLacks(OverlayError):
    """This host lacks a program, library, device or permission."""

    exit_code = 3


class StateDamaged(OverlayError):
    """A state folder does not hold what it should; it was left as it is."""

    exit_code = 5


class StateInUse(OverlayError):
    """Another process holds the state folder."""

    exit_code = 5

    def __init__(self, folder: str, pid: int) -> None:
        super().__init__(
            f"{folder} is in use by process {pid}",
            hint="share the running node with overlay.connect_local(), or stop it first",
        )
        self.pid = pid


class LocalProtocolError(RuntimeError):
    """The caller used a machine wrongly: a bug on our side, never the peer's doing."""


class InternalError(RuntimeError):
    """A bug in the library."""


HINTS: Final = {
    Reason.BAD_GATE: "the other side does not belong to this mesh, or its bundle is from another one",
    Reason.OTHER_MESH: "compare the mesh shown by `overlay status` on both nodes",
    Reason.CERTIFICATE_EXPIRED: "within grace `overlay run` renews it; after that join again: `overlay invite`",
    Reason.CERTIFICATE_NOT_YET_VALID: "compare the clocks of both machines",
    Reason.ENDORSEMENT_EXPIRED: "the node renews it by itself; compare the clocks of both machines",
    Reason.PCR_MISMATCH: "the node does not run what the policy lists; see `overlay status` on it",
    Reason.SOFTWARE_MISMATCH: "the node does not run what the policy lists; see `overlay status` on it",
    Reason.LEVEL_TOO_LOW: "the policy asks for better evidence than this node can show",
    Reason.EVIDENCE_UNAVAILABLE: "look at the TPM of that node: `overlay status` there says what is wrong",
    Reason.CLOCK: "compare the clocks of both machines",
    Reason.SCHEDULER_SIGNATURE: "place it again from the node that is the scheduler; what came was changed, or is not its own",
    Reason.SCHEDULER_ROLE: "an operator grants it: `overlay grant`; it counts from its next certificate on",
    Reason.SCHEDULER_REVOKED: "place it from another scheduler",
    Reason.WORKLOAD_MISMATCH: "send the workload with the very bytes whose hash was placed",
    Reason.ORIGINATOR_SIGNATURE: "sign the workload again; what came was changed, or is not by the node that it names",
    Reason.ORIGINATOR_ROLE: "sign on a node that has the role, at the level that the policy asks for; `overlay grant` gives it",
    Reason.ORIGINATOR_REVOKED: "sign the workload again on another node",
    Reason.DUAL_CONTROL: "have a node of a second person countersign; the certificates of both must name their persons",
    Reason.SCHEDULER_NOT_ALLOWED: "place it from a scheduler that the workload names",
    Reason.WRONG_WORKER: "place it on a worker that the workload names, and hand it to that one",
    Reason.WORK_TIME: "place it again, or sign the workload again if that one has ended; compare the clocks of both machines",
    Reason.WORK_REPLAYED: "place the next run; a run that began is never repeated under its number",
    Reason.RUN_COUNT: "sign a workload that may run more often",
    Reason.SCHEDULER_LEVEL: "`overlay status` on the worker shows the level of each node that it is linked to",
    Reason.ARTIFACT_MISMATCH: "hand over the file that was there when the workload was signed",
    Reason.PLACED_TWICE: "ask who runs the scheduler; `overlay quarantine` shuts it out meanwhile",
}
