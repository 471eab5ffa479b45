"""Natural batching of transient publications: what queued while the last batch was signed and sent is the next one.

Nobody waits for a timer: a lone message leaves at the next turn of the loop.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final, Protocol

import trio

from overlay.core.batches import SignedBatch, sign_batch, size_of
from overlay.core.identity import LocalIdentity
from overlay.core.limits import BATCH_COUNT_MAX, BATCH_MESSAGES_MAX
from overlay.core.mesh.chains import next_hlc
from overlay.core.mesh.transients import KIND

PATIENCE: Final = 0.25  # seconds that publishers wait for a peer that takes nothing, once; then it loses some: our guess


class Taker(Protocol):
    """A link, as far as the pace needs it."""

    def may_write(self) -> bool:
        """Whether its connection takes bytes now."""
        ...

    async def wait_may_write(self) -> None:
        """Until it may be so, or the link has ended."""
        ...


class Pace:
    """No faster than the links take it, except for those that take nothing: they are waited for once, until they move again."""

    def __init__(self) -> None:
        self._stuck: set[Taker] = set()

    async def wait(self, links: Iterable[Taker]) -> None:
        """Until every link has taken what was sent, or the patience is over."""
        busy = {link for link in links if not link.may_write()}
        self._stuck &= busy
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(PATIENCE):
            for link in busy - self._stuck:
                await link.wait_may_write()
            return
        self._stuck |= {link for link in busy if not link.may_write()}


class TransientSender:
    """A queue of one batch, and what signs it. `run` sends; without it nothing leaves."""

    def __init__(
        self, *, mesh_id: bytes, identity: Callable[[], LocalIdentity], calendar: Callable[[], datetime],
        send: Callable[[SignedBatch], None], links: Callable[[], Iterable[Taker]],
    ) -> None:
        self._mesh_id = mesh_id
        self._identity = identity
        self._calendar = calendar
        self._send = send
        self._links = links
        self._pace = Pace()
        self._hlc = 0
        self._queue: list[bytes] = []
        self._size = 0
        self._wake = trio.Event()
        self._room = trio.lowlevel.ParkingLot()

    async def put(self, message: bytes) -> bool:
        """Queue a message; waits while a whole batch is queued. Whether it is the first of its batch."""
        size = size_of(message)
        if self._fits(size):
            await trio.lowlevel.checkpoint_if_cancelled()
        while not self._fits(size):
            await self._room.park()
        self._queue.append(message)
        self._size += size
        if len(self._queue) > 1:
            return False
        self._wake.set()
        return True

    def _fits(self, size: int) -> bool:
        return self._size + size <= BATCH_MESSAGES_MAX and len(self._queue) < BATCH_COUNT_MAX

    async def run(self) -> None:
        """Sign and send until cancelled; what is queued then still leaves."""
        try:
            while True:
                await self._wake.wait()
                self._flush()
                await self._pace.wait(self._links())
        except trio.Cancelled:
            self._flush()
            raise

    def _flush(self) -> None:
        messages, self._queue, self._size = self._queue, [], 0
        self._wake = trio.Event()
        self._room.unpark_all()
        if messages:
            hlc = next_hlc(self._hlc, self._calendar())
            self._hlc = hlc + len(messages) - 1
            self._send(sign_batch(self._identity(), self._mesh_id, kind=KIND, hlc=hlc, messages=messages))
