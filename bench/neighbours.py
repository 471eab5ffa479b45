"""Rows about how often a TPM has to work: nodes in one process, one swtpm, and every quote of it counted."""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

import overlay
from bench.row import Row, row
from overlay.app.compose import Assembly
from overlay.app.enrol import admit, found_mesh, install, make_request
from overlay.app.lab.tpms import start_tpm
from overlay.app.tpm import missing, open_tpm
from overlay.core.evidence import Binding, Evidence, Prover
from overlay.core.policy import Policy
from overlay.errors import HostLacks
from overlay.events import NodeEvent, PeerAttested
from overlay.registry import EvidenceKind
from overlay.store.state import StateFolder

JOINED = 50
FEW, MANY = 5, 100
ROUNDS = 3
EVERY = 12.0  # seconds between two rounds: nonces are then waited for as long as by default


@dataclass
class Counter:
    """Takes the place of a prover, and counts what it is asked for."""

    quotes: int = 0
    prover: Prover | None = None
    kind: EvidenceKind = EvidenceKind.TPM

    def prove(self, bindings: Sequence[Binding]) -> list[Evidence]:
        """As the real one does."""
        assert self.prover is not None
        self.quotes += 1
        return self.prover.prove(bindings)

    def alter(self, assembly: Assembly) -> Assembly:
        """A node whose quotes are counted."""
        self.prover = assembly.parts.prover(assembly.parts.identity)
        return replace(assembly, parts=replace(assembly.parts, prover=lambda _identity: self))


@dataclass
class Neighbours:
    """A machine with a TPM, and others that it meets when it starts."""

    folder: Path
    tcti: str
    heard: list[int] = field(default_factory=list)  # rounds in which the first of the others has seen evidence
    news: trio.Event = field(default_factory=trio.Event)

    def enrol(self) -> None:
        """All folders; blocks."""
        with StateFolder.create(self.folder / "alice") as folder, open_tpm(self.tcti) as tpm:
            found_mesh(folder, "alice", "bench", Policy.default(), tpm)
        for number in range(MANY):
            with StateFolder.create(self.folder / str(number)) as folder:
                install(folder, admit(self.folder / "alice", make_request(folder, None), f"n{number}", ("worker",)), None)

    def hear(self, event: NodeEvent) -> None:
        """An observer of the first of the others."""
        if isinstance(event, PeerAttested):
            self.heard.append(event.round)
            self.news.set()
            self.news = trio.Event()

    @asynccontextmanager
    async def met(self, count: int, attest_every: float) -> AsyncIterator[Counter]:
        """The machine has started and is linked to so many others, which do not know each other."""
        counter = Counter()
        config = overlay.Config(listen=("127.0.0.1", 0), mdns=False, evidence="software", attest_every=attest_every)
        async with AsyncExitStack() as stack:
            seeds = []
            for number in range(count):
                observers = [self.hear] if number == 0 else []
                opened = overlay.open_node(self.folder / str(number), config=config, observers=observers)
                node = await stack.enter_async_context(opened)
                seeds.append(f"127.0.0.1:{node.port}")
            own = replace(config, evidence="tpm", tcti=self.tcti, seeds=tuple(seeds))
            alice = await stack.enter_async_context(overlay.open_node(self.folder / "alice", config=own, alter=counter.alter))
            await alice.wait_members(count + 1)
            yield counter

    async def rounds(self, count: int) -> float:
        """Quotes for each round."""
        async with self.met(count, EVERY) as counter:
            self.heard.clear()
            await self.news.wait()
            first, before = self.heard[-1], counter.quotes
            while self.heard[-1] < first + ROUNDS:
                await self.news.wait()
            return (counter.quotes - before) / (self.heard[-1] - first)


async def neighbours(runs: int) -> list[Row]:
    """Quotes that a start among fifty members takes, and those of a round among a hundred, against those among five."""
    if (lacking := missing()) is not None:
        raise HostLacks(lacking)
    with tempfile.TemporaryDirectory(prefix="ob-") as name:
        path = Path(name)
        tpm = await start_tpm(path / "tpm")
        try:
            found = Neighbours(path, tpm.tcti)
            await trio.to_thread.run_sync(found.enrol)
            joined = []
            for _ in range(runs):
                async with found.met(JOINED, 60.0) as counter:
                    joined.append(float(counter.quotes))
            rounds = row("quotes_a_round_vs_few_peers", "quotes", [await found.rounds(MANY)], [await found.rounds(FEW)])
            return [row("quotes_to_meet_50", "quotes", joined), rounds]
        finally:
            await tpm.child.end()
