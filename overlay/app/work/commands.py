"""What `overlay work` asks of the node: signing with its keys, keeping files, checking, fetching. Values are as in JSON."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from overlay.app.local import LocalNode
from overlay.app.wire_json import malformed
from overlay.app.work.contract import ASSIGN, check_answer
from overlay.app.work.delivery import Delivery
from overlay.app.work.description import read_description
from overlay.app.work.desk import WorkDesk
from overlay.app.work.worker import Worker
from overlay.core.work.checks import check_originators
from overlay.core.work.envelopes import Assignment, SignedPlacement, SignedResult, SignedWorkload
from overlay.errors import PeerUnreachable, Refused, UsageError
from overlay.store.work import StoredRun, WorkStore

Options = Mapping[str, Any]
TEXT_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class _File:
    hash: bytes
    size: int


class WorkCommands:
    """Of one node."""

    def __init__(self, node: LocalNode, delivery: Delivery, worker: Worker | None, store: WorkStore | None) -> None:
        self._node = node
        self._desk = WorkDesk(node)
        self._delivery = delivery
        self._worker = worker
        self._store = store
        self._commands: Final[Mapping[str, Callable[[Options], Awaitable[dict[str, Any]]]]] = {
            "sign": self._sign, "countersign": self._countersign, "verify": self._verify, "result": self._check_result,
            "fetch": self._fetch, "status": self._status,
            "place": self._place,
        }  # fmt: skip

    async def ask(self, command: str, options: Options) -> dict[str, Any]:
        """Raises OverlayError."""
        perform = self._commands.get(command)
        if perform is None:
            raise UsageError(f"the running node knows no command {command!r} about work", hint="restart it")
        return await perform(options)

    async def _sign(self, options: Options) -> dict[str, Any]:
        """A description and its folder; the files that it names are kept for workers."""
        description = await trio.to_thread.run_sync(read_description, Path(_text(options, "path")))
        artifact = await self._delivery.keep(description.artifact)
        inputs = {name: await self._delivery.keep(path) for name, path in description.inputs.items()}
        signed = self._desk.sign(description.workload(self._desk, artifact, inputs))
        return _shown(signed) | {"carried": _pack(signed.pack())}

    async def _countersign(self, options: Options) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        signed = self._desk.countersign(SignedWorkload.unpack(_bytes(options, "carried")))
        return _shown(signed) | {"carried": _pack(signed.pack())}

    async def _verify(self, options: Options) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        signed = SignedWorkload.unpack(_bytes(options, "carried"))
        peers = check_originators(signed, self._desk.view, self._desk.at)
        return _shown(signed) | {"signers": [peer.name for peer in peers]}

    async def _place(self, options: Options) -> dict[str, Any]:
        """As a scheduler: sign a placement, and hand both to the worker. Raises Refused: why it does not take them."""
        signed, run = SignedWorkload.unpack(_bytes(options, "carried")), options.get("run")
        if isinstance(run, bool) or not isinstance(run, int):
            malformed("run")
        worker = self._desk.worker(_text(options, "worker"))
        placement = self._desk.place(signed, worker, run=run)
        peer = next(one for one in self._node.peers if one.node_id == worker)
        check_answer(await peer.call(ASSIGN, Assignment(signed, placement).pack()))
        return {"placement": placement.hash.hex(), "carried": _pack(placement.pack())}

    async def _check_result(self, options: Options) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        result = SignedResult.unpack(_bytes(options, "result"))
        placement = SignedPlacement.unpack(_bytes(options, "placement"))
        worker = self._desk.check_result(result, placement)
        says = result.says
        if says.workload != bytes.fromhex(_text(options, "workload")):
            raise UsageError("this result is of other work")
        return {
            "worker": worker.name, "node": str(worker.node_id), "run": says.run, "state": says.state.name.lower(),
            "number": says.number, "reason": None if says.reason is None else says.reason.name,
            "started": says.started.isoformat(), "ended": says.ended.isoformat(),
            "files": [{"name": one.name, "hash": one.hash.hex(), "size": one.size} for one in says.files],
        }  # fmt: skip

    async def _fetch(self, options: Options) -> dict[str, Any]:
        wanted, size = _text(options, "node"), options.get("size")
        if not isinstance(size, int):
            malformed("size")
        peer = next((one for one in self._node.peers if str(one.node_id) == wanted), None)
        if peer is None and wanted != str(self._node.node_id):
            raise PeerUnreachable("there is no link to the worker", hint="`overlay status` shows who is linked")
        path = Path(_text(options, "path"))
        if await trio.Path(path).exists():
            raise UsageError(f"{path} is there already")
        want = _File(bytes.fromhex(_text(options, "hash")), size)
        await self._delivery.fetch(want, [] if peer is None else [peer], path)
        return {"path": str(path)}

    async def _status(self, options: Options) -> dict[str, Any]:
        if self._store is None or self._worker is None:
            raise UsageError("this node is no worker", hint="`overlay work run`, or `work = true` in its settings")
        live = {run.key for run in self._worker.runs}
        stored = await trio.to_thread.run_sync(self._store.runs)
        return {"runs": [_row(one, live=one.record.placement in live) for one in stored]}


def _shown(signed: SignedWorkload) -> dict[str, Any]:
    says = signed.says
    return {
        "workload": signed.hash.hex(), "name": says.name, "originators": [str(one) for one in says.signers],
        "complete": signed.is_complete, "ends": says.not_after.isoformat(), "runs": says.runs,
        "artifact": says.artifact.hash.hex(), "size": says.artifact.size,
    }  # fmt: skip


def _row(one: StoredRun, *, live: bool) -> dict[str, Any]:
    found = {"workload": one.record.workload.hex(), "run": one.record.run, "placement": one.record.placement.hex()}
    if one.result is None:
        return found | {"state": "running" if live else "unknown", "number": None}
    try:
        says = SignedResult.unpack(one.result).says
    except Refused:
        return found | {"state": "damaged", "number": None}
    return found | {"state": says.state.name.lower(), "number": says.number}


def _text(options: Options, key: str) -> str:
    value = options.get(key)
    return value if isinstance(value, str) and len(value) <= TEXT_MAX else malformed(key)


def _bytes(options: Options, key: str) -> bytes:
    value = options.get(key)
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else malformed(key)
    except ValueError:
        malformed(key)


def _pack(data: bytes) -> str:
    return base64.b64encode(data).decode()
