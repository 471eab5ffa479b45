"""The next entries of a log are judged in other threads, before it is known that those before them hold.

Each takes for granted what the file records of the entry before its part, and which key is in force. Whoever joins the parts in
order compares that with what it has found, and judges a part itself that does not fit: so a lie in the file costs time only.
Threads are enough: nearly all of the work is libsodium's, which lets go of the interpreter.
"""

import math
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from audit.chain import ChainState
from audit.fast_chain import Run
from audit.store import AuditStore
from overlay.core.certificates import Root
from overlay.registry import GENESIS

PART: Final = 1024  # entries: our guess, some 60 ms of work
AHEAD: Final = 3  # parts for each thread: our guess


@dataclass(frozen=True, slots=True)
class Part:
    """What one thread has found of the entries from `start` on, if the log stands before them as it is recorded."""

    start: int
    last: bytes
    hlc: int
    hashes: list[bytes]
    end_hlc: int


class Lookahead:
    """Threads that judge parts of one log at a time. A context manager."""

    def __init__(self, path: Path, root: Root, threads: int) -> None:
        self._path = path
        self._root = root
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="overlay-verify")
        self._local = threading.local()
        self._stores: list[AuditStore] = []
        self._run: Run | None = None  # what the waiting parts take for granted
        self._waiting: deque[tuple[int, Future[Part]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        for store in self._stores:
            store.close()

    def go_on(self, state: ChainState, number: int, size: int) -> tuple[ChainState, list[bytes]]:
        """The state after the next part, and the hashes of its entries; none if the next ones have to be judged one by one.

        Args:
            number: of the log in its file.
            size: where the log ends.
        """
        if state.key is None:
            return state, []
        run = Run.under(state, state.key, self._root)
        self._drop(math.inf if run != self._run else state.size)
        self._run = run
        start = self._waiting[-1][0] + PART if self._waiting else state.size
        while len(self._waiting) < self._threads * AHEAD and start < size:
            self._waiting.append((start, self._pool.submit(self._judge, run, number, start)))
            start += PART
        if self.next_start != state.size:
            return state, []
        part = self._waiting.popleft()[1].result()
        if not part.hashes or (part.last, part.hlc) != (state.last, state.hlc):
            return state, []
        after = replace(state, tree=state.tree.extend(part.hashes), last=part.hashes[-1], hlc=part.end_hlc)
        return after, part.hashes

    @property
    def next_start(self) -> float:
        """Where the next part begins: up to there entries may be judged one by one. Infinite if none waits."""
        return self._waiting[0][0] if self._waiting else math.inf

    def _drop(self, before: float) -> None:
        """Parts that begin before this entry come too late."""
        while self.next_start < before:
            self._waiting.popleft()[1].cancel()

    def _judge(self, run: Run, number: int, start: int) -> Part:
        store = self._store()
        last, hlc = store.recorded(number, start - 1) if start else (GENESIS, 0)
        hashes, end = run.follow(store.block(number, start, PART), start, last, hlc)
        return Part(start, last, hlc, hashes, end)

    def _store(self) -> AuditStore:
        """This thread's own connection."""
        store: AuditStore | None = getattr(self._local, "store", None)
        if store is None:
            store = self._local.store = AuditStore.open_readonly(self._path)
            self._stores.append(store)
        return store
