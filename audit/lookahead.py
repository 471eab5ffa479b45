"""The next entries of a log are judged by other processes, before it is known that those before them hold.

Each takes for granted what the file records of the entry before its part, and which key is in force. Whoever joins the parts in
order compares that with what it has found, and judges a part itself that does not fit: so a lie in the file costs time only.
Threads would not do: the interpreter changes hands with every signature, and that takes as long as what they gain.
"""

import math
import os
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

from audit.chain import ChainState
from audit.fast_chain import Run
from audit.part_worker import Part, pack_task, read_part, receive, send
from overlay.core.certificates import Root
from overlay.errors import Refused

PART: Final = 1024  # entries: our guess, some 60 ms of work
AHEAD: Final = 3  # parts for each process: our guess


class Lookahead:
    """Processes that judge parts of one log at a time. A context manager."""

    def __init__(self, path: Path, root: Root, workers: int) -> None:
        self._path = path
        self._root = root
        self._count = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="overlay-verify")
        self._local = threading.local()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._run: Run | None = None  # what the waiting parts take for granted
        self._waiting: deque[tuple[int, Future[Part]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.kill()
            worker.communicate()

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
        while len(self._waiting) < self._count * AHEAD and start < size:
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
        """In a thread of the pool, which waits for its own worker. A worker that fails leaves the part to be judged here."""
        nothing = Part(start, b"", 0, [], 0)
        try:
            worker = self._worker()
            assert worker.stdin is not None and worker.stdout is not None
            send(cast(BinaryIO, worker.stdin), pack_task(self._path, number, start, PART, run))
            answer = receive(cast(BinaryIO, worker.stdout))
            return nothing if answer is None else read_part(start, answer)
        except (OSError, ValueError, Refused):
            return nothing

    def _worker(self) -> "subprocess.Popen[bytes]":
        """This thread's own process."""
        worker: subprocess.Popen[bytes] | None = getattr(self._local, "worker", None)
        if worker is None:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            command = [sys.executable, "-m", "audit.part_worker"]
            worker = subprocess.Popen(  # noqa: S603 (our own module, by the interpreter that runs)
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )
            self._local.worker = worker
            self._workers.append(worker)
        return worker
