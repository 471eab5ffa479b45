"""Tasks that a Dask worker checks before it unpickles them: `run_signed(envelope, artifact)`, and nothing else, runs.

The envelope is a signed workload, the artifact a function as cloudpickle makes it, whose hash the workload names.
"""

import functools
import io
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cloudpickle
import distributed.protocol.pickle as of_dask
import distributed.protocol.serialize as of_messages
import trio
from dask._task_spec import Task
from distributed.core import Status

from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason
from overlay.work import Artifact, ArtifactType, ExpectedBytes, SignedWorkload, WorkDesk

PLAIN = {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "set", "slice", "str", "tuple"}
KNOWN = {
    ("dask_signed", "run_signed"), ("dask._task_spec", "Task"), ("dask._task_spec", "TaskRef"), ("dask._task_spec", "Alias"),
    *(("builtins", name) for name in PLAIN),
}  # fmt: skip
WORKER_HANDLERS = {
    "gather", "get_data", "free_keys", "terminate", "ping", "keys", "versions", "echo", "stream-start", "connection_stream",
    "identity", "get_monitor_info",
}  # fmt: skip


class PlainUnpickler(pickle.Unpickler):
    """For what Dask unpickles by itself: plain values and signed tasks. Nothing else can be named, so nothing else runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name} may not come in a pickle: send run_signed tasks")
        return super().find_class(module, name)


def _loads(data: Any, *, buffers: Any = ()) -> Any:
    try:
        return PlainUnpickler(io.BytesIO(data), buffers=buffers).load()
    except pickle.UnpicklingError as error:
        if not _gates:
            raise
        return Task("refused", _refuse, str(error))  # a worker that raised here would end; the task shall fail instead


def _refuse(why: str) -> None:
    print("refused:", why, flush=True)
    raise PermissionError(why)


def _enums(module: str) -> SimpleNamespace:
    if module != Status.__module__:
        raise pickle.UnpicklingError(f"{module} may not be named in a message")
    return SimpleNamespace(Status=Status)


def close_side_doors() -> None:
    """Before a worker or client is made in this process: Dask unpickles plain values and signed tasks only."""
    of_dask.pickle = SimpleNamespace(**{**vars(pickle), "loads": _loads})  # all of Dask's unpickling goes through that module
    of_messages.import_allowed_module = _enums  # the other way in which a message can name anything


def keep_handlers(worker: Any) -> None:
    """Of what a scheduler can have a worker do keep what tasks need: `run`, `upload_file`, actors and plugins bring in code."""
    for name in set(worker.handlers) - WORKER_HANDLERS:
        del worker.handlers[name]


# --- whoever wants something run --------------------------------------------------------------------------------------


def seal(desk: WorkDesk, name: str, function: Callable[[], Any], **fields: Any) -> tuple[bytes, bytes]:
    """Envelope and artifact of a function without arguments (functools.partial gives it some); see `WorkDesk.new_workload`."""
    artifact = cloudpickle.dumps(function)
    told = Artifact(sha256(artifact), len(artifact), ArtifactType.TASK)
    return desk.sign(desk.new_workload(name, told, **fields)).pack(), artifact


# --- the worker -------------------------------------------------------------------------------------------------------


class Gate:
    """What this process checks tasks with: a worker's desk, and how often each workload ran here."""

    def __init__(self, desk: WorkDesk) -> None:
        self._desk = desk
        self._token = trio.lowlevel.current_trio_token()
        self._ran: dict[bytes, int] = {}

    def check(self, envelope: bytes, artifact: bytes) -> None:
        """From any thread. Raises Refused."""
        trio.from_thread.run_sync(functools.partial(self._check, envelope, artifact), trio_token=self._token)

    def _check(self, envelope: bytes, artifact: bytes) -> None:
        signed = SignedWorkload.unpack(envelope)
        self._desk.check_workload(signed)
        told = signed.says.artifact
        if told.type is not ArtifactType.TASK:
            raise Refused(Reason.UNSUPPORTED, "this workload is no task for Dask")
        expected = ExpectedBytes("the task", told.hash, told.size)
        expected.take(artifact)
        expected.finish()
        ran = self._ran.get(signed.hash, 0)
        if ran >= signed.says.runs:
            raise Refused(Reason.RUN_COUNT, f"this ran here {ran} times already")
        self._ran[signed.hash] = ran + 1


_gates: list[Gate] = []


def set_gate(gate: Gate) -> None:
    """Before the worker starts. Without one everything is refused."""
    _gates[:] = [gate]


def run_signed(envelope: bytes, artifact: bytes) -> tuple[str, Any]:
    """The task: ("done", value), ("refused", reason: text) or ("failed", text). The artifact is unpickled after all checks."""
    try:
        if not _gates:
            raise Refused(Reason.NOT_ALLOWED, "this process runs no signed work")
        _gates[0].check(envelope, artifact)
    except Refused as error:
        return "refused", f"{error.reason.name}: {error.detail}"
    try:
        return "done", cloudpickle.loads(artifact)()
    except Exception as error:  # noqa: BLE001 - whatever the work raises is for whoever wanted it
        return "failed", repr(error)
