"""Work on real nodes: carol signs and places, bob runs. What runs are real processes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import trio

from overlay.app.local import LocalNode
from overlay.app.work import contract
from overlay.app.work.desk import WorkDesk
from overlay.app.work.worker import Worker
from overlay.core.wire import sha256
from overlay.core.work.envelopes import Assignment, SignedPlacement, SignedResult, SignedWorkload
from overlay.core.work.result import WorkResult
from overlay.core.work.workload import Artifact, RunLimits
from overlay.errors import NotAllowed
from overlay.events import NodeEvent
from overlay.net.node import StreamHandler
from overlay.net.stream import Stream
from overlay.registry import ArtifactType
from overlay.testing import mesh

ROLES = {"carol": ("scheduler", "submit"), "bob": ("worker",)}
LIMITS = RunLimits(seconds=20, memory=512 * 1024 * 1024, processes=16, output=1024 * 1024)
SLEEP = b"import time\nprint('begun', flush=True)\ntime.sleep(600)\n"
WITHIN = 30.0


@dataclass
class Crew:
    """The nodes, and what bob has told."""

    alice: LocalNode
    carol: LocalNode
    bob: LocalNode
    files: dict[bytes, Callable[[Stream], Awaitable[None]]]
    events: list[NodeEvent] = field(default_factory=list)
    news: trio.Event = field(default_factory=trio.Event)

    @property
    def desk(self) -> WorkDesk:
        return WorkDesk(self.carol)

    def observe(self, event: NodeEvent) -> None:
        self.events.append(event)
        self.news.set()
        self.news = trio.Event()

    async def wait_event(self, kind: type[NodeEvent]) -> Any:
        with trio.fail_after(WITHIN):
            while not any(isinstance(event, kind) for event in self.events):
                await self.news.wait()
        return next(event for event in self.events if isinstance(event, kind))

    def sign(
        self, code: bytes, *, limits: RunLimits = LIMITS, kind: ArtifactType = ArtifactType.PYTHON, size: int | None = None,
        **fields: Any,
    ) -> SignedWorkload:
        """Signed work that runs this code; carol has it for whoever asks."""
        artifact = Artifact(sha256(code), len(code) if size is None else size, kind)
        self.files.setdefault(artifact.hash, sends(code))
        work = self.desk.new_workload("job", artifact, life=timedelta(minutes=30), limits=limits, **fields)
        return self.desk.sign(work)

    async def place(self, signed: SignedWorkload, run: int = 1) -> SignedPlacement:
        """On bob. Raises Refused."""
        placement = self.desk.place(signed, self.bob.node_id, run=run)
        await self.hand_over(signed, placement)
        return placement

    async def hand_over(self, signed: SignedWorkload, placement: SignedPlacement) -> None:
        peer = await self.carol.wait_peer("bob")
        contract.check_answer(await peer.call(contract.ASSIGN, Assignment(signed, placement).pack()))

    async def result(self, placement: SignedPlacement) -> WorkResult:
        """Its checked result, when it is over."""
        peer = await self.carol.wait_peer("bob")
        question, carried = contract.pack_hash(placement.hash), None
        with trio.fail_after(WITHIN):
            while carried is None:
                carried = contract.unpack_result(await peer.call(contract.RESULT, question))
        signed = SignedResult.unpack(carried)
        self.desk.check_result(signed, placement)
        return signed.says

    async def run(self, code: bytes, **options: Any) -> WorkResult:
        """From its signature to its result."""
        return await self.result(await self.place(self.sign(code, **options)))

    async def output(self, result: WorkResult, name: str = "stdout") -> bytes:
        """What it has written, fetched from bob."""
        (file,) = [one for one in result.files if one.name == name]
        peer = await self.carol.wait_peer("bob")
        found = bytearray()
        async with peer.open_stream(contract.BYTES, contract.pack_hash(file.hash), signed=False) as stream:
            while data := await stream.receive_some(65_536):
                found += data
        assert (sha256(bytes(found)), len(found)) == (file.hash, file.size)
        return bytes(found)

    async def logged(self) -> list[str]:
        """What bob's log says of work, in order."""
        return [entry.body["event"] for entry in await self.bob.audit.read(node="bob") if entry.type == "work"]


def sends(data: bytes) -> Callable[[Stream], Awaitable[None]]:
    """A source that sends these bytes."""

    async def send(stream: Stream) -> None:
        await stream.send_all(data)

    return send


@asynccontextmanager
async def crew() -> AsyncIterator[Crew]:
    """Alice has founded the mesh; carol's files are whatever a test says."""
    files: dict[bytes, Callable[[Stream], Awaitable[None]]] = {}

    async def serve(stream: Stream) -> None:
        source = files.get(contract.unpack_hash(stream.body))
        if source is None:
            raise NotAllowed("there is no such file")
        await source(stream)

    handlers: dict[str, StreamHandler] = {contract.BYTES: serve}
    async with mesh(
        "alice", "carol", "bob", roles=ROLES, workers=("bob",), streams={"carol": handlers}
    ) as (alice, carol, bob):
        found = Crew(alice, carol, bob, files)
        bob.engine.observe(found.observe)
        yield found


def worker_of(found: Crew) -> Worker:
    """Bob's."""
    worker = found.bob.work._worker
    assert worker is not None
    return worker
