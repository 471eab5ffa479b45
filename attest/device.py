"""One thread that owns a slow device: jobs run there one by one, callers wait outside, never longer than a limit.

Nobody else touches the device, so a library whose context is not thread-safe is safe here. A caller that has given up
takes its job along unless it has begun. The thread does not keep the process alive: a device that hangs must not stop
an exit.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from overlay.errors import InternalError, LocalProtocolError, OverlayError

T = TypeVar("T")

STILL_THERE: Final = "see whether the device or its emulator still runs"


@dataclass(slots=True)
class _Task:
    job: Callable[[], object]
    done: threading.Event = field(default_factory=threading.Event)
    given_up: bool = False
    result: object = None
    error: Exception | None = None
    finished: bool = False

    def run(self, expected: tuple[type[Exception], ...]) -> None:
        """Do the job; an unexpected exception is a bug: it ends the thread, and the caller hears of it at once."""
        try:
            self.result = self.job()
            self.finished = True
        except expected as error:
            self.error = error
        finally:
            self.done.set()


class DeviceThread:
    """Runs jobs in one thread. `expected` are the exceptions that a job may raise; they reach the caller."""

    def __init__(self, name: str, *, expected: tuple[type[Exception], ...], farewell: Callable[[], None]) -> None:
        self._name = name
        self._expected = expected
        self._farewell = farewell
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def call(self, job: Callable[[], T], *, timeout: float) -> T:
        """Run the job and give its result; blocks up to `timeout` seconds, queueing included.

        Raises:
            OverlayError: no answer in time.
            Exception: one of `expected`, from the job.
        """
        if self._closed or not self._thread.is_alive():
            raise LocalProtocolError(f"{self._name} is closed")
        task = _Task(job)
        self._tasks.put(task)
        if not task.done.wait(timeout):
            task.given_up = True
            raise OverlayError(f"{self._name} did not answer within {timeout:g} s", hint=STILL_THERE)
        if task.error is not None:
            raise task.error
        if not task.finished:
            raise InternalError(f"a job of {self._name} failed unexpectedly")
        return task.result  # type: ignore[return-value]

    def close(self, *, timeout: float = 1.0) -> None:
        """End after the jobs that wait; blocks at most `timeout` seconds. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._tasks.put(None)
        self._thread.join(timeout)

    def _work(self) -> None:
        try:
            while (task := self._tasks.get()) is not None:
                if not task.given_up:
                    task.run(self._expected)
        finally:
            self._farewell()
