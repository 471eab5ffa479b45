"""How programs, inputs and outputs get from node to node: a stream of bytes for a hash. The reader hashes them itself."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import trio

from overlay.app.work.contract import BYTES, pack_hash, unpack_hash
from overlay.app.work.staging import Stage, Staged
from overlay.errors import NotAllowed, OverlayError, PeerUnreachable, Refused
from overlay.net.peer import Peer
from overlay.net.stream import Stream
from overlay.registry import Reason
from overlay.store.artifacts import ArtifactStore, Kept

CHUNK: Final = 256 * 1024
QUIET_AFTER: Final = 30.0  # seconds in which nothing comes: our guess


class Want(Protocol):
    """A file as a workload names it."""

    @property
    def hash(self) -> bytes:
        """SHA-256."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...


class Delivery:
    """Of one node: what it has, for members that know a hash, and what it fetches."""

    def __init__(self, folder: Path) -> None:
        self._store = ArtifactStore(folder)

    async def keep(self, path: Path) -> Kept:
        """Raises UsageError, HostLacks."""
        return await trio.to_thread.run_sync(self._store.keep, path)

    async def keep_open(self, source: BinaryIO) -> Kept:
        """From where it stands to its end. Raises HostLacks."""
        return await trio.to_thread.run_sync(self._store.keep_open, source)

    async def forget(self, at: datetime) -> None:
        """What is old."""
        await trio.to_thread.run_sync(self._store.forget, at)

    async def serve(self, stream: Stream) -> None:
        """A member asks for a file by its hash. Raises NotAllowed."""
        try:
            source = self._store.open(unpack_hash(stream.body))
        except (Refused, KeyError):
            raise NotAllowed("there is no such file") from None
        with source:
            while data := await _read(source):
                await stream.send_all(data)

    async def stage(self, stage: Stage, what: str, want: Want, peers: Sequence[Peer]) -> Staged:
        """From our own store, else from the first of these that has it; checked as it comes.

        Raises:
            Refused: ARTIFACT_MISMATCH for other bytes, also of the first that has any; BUSY.
            PeerUnreachable: nobody has it.
        """
        async with AsyncExitStack() as stack:
            source = await self._open(stack, want.hash, peers)
            if source is None:
                raise PeerUnreachable(f"nobody has {what}", hint="whoever signed the work, or its scheduler, keeps it")
            return await stage.take(what, want.hash, want.size, source)

    async def fetch(self, want: Want, peers: Sequence[Peer], path: Path) -> None:
        """An output, into a new file that is there only if it is right. Raises Refused, OverlayError."""
        stage = Stage(most=max(want.size, 1))
        staged = await self.stage(stage, path.name, want, peers)
        try:
            await trio.to_thread.run_sync(_write, staged, path)
        finally:
            stage.drop(staged)

    async def _open(self, stack: AsyncExitStack, digest: bytes, peers: Sequence[Peer]) -> AsyncIterator[bytes] | None:
        try:
            source = self._store.open(digest)
        except KeyError:
            return await self._ask(stack, digest, peers)
        stack.enter_context(source)
        return await stack.enter_async_context(aclosing(_chunks(source)))

    async def _ask(self, stack: AsyncExitStack, digest: bytes, peers: Sequence[Peer]) -> AsyncIterator[bytes] | None:
        for peer in peers:
            async with AsyncExitStack() as trial:
                try:
                    stream = await trial.enter_async_context(peer.open_stream(BYTES, pack_hash(digest), signed=False))
                    first = await _receive(stream)
                except (OverlayError, trio.BrokenResourceError):
                    continue
                stack.push_async_exit(trial.pop_all())
                return await stack.enter_async_context(aclosing(_rest(first, stream)))
        return None


async def _rest(first: bytes, stream: Stream) -> AsyncGenerator[bytes, None]:
    data = first
    while data:
        yield data
        data = await _receive(stream)


async def _receive(stream: Stream) -> bytes:
    try:
        with trio.fail_after(QUIET_AFTER):
            return await stream.receive_some(CHUNK)
    except trio.TooSlowError:
        raise Refused(Reason.TIMEOUT, "it stopped coming") from None


async def _chunks(source: BinaryIO) -> AsyncGenerator[bytes, None]:
    while data := await _read(source):
        yield data


async def _read(source: BinaryIO) -> bytes:
    return await trio.to_thread.run_sync(source.read, CHUNK)


def _write(staged: Staged, path: Path) -> None:
    with open(staged.descriptor, "rb", closefd=False) as source, path.open("xb") as target:
        while data := source.read(CHUNK):
            target.write(data)
