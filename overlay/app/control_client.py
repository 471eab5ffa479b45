"""The client's end of the control socket: requests out, answers to whoever waits for them; `client.py` makes a node of it."""

import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import trio

from overlay.app import wire_json as wire
from overlay.app.control_socket import CREDIT, LineReader
from overlay.core.keys import NodeId
from overlay.errors import HostLacks, OverlayError, UsageError
from overlay.net.peer import Peer
from overlay.net.stream import Stream

HELLO_TIMEOUT: Final = 5.0  # seconds; our guess: a node answers at once
HOW_TO_START: Final = 'start it with "overlay run"'
T = TypeVar("T")


class Connection:
    """The client's end of the control socket: requests out, answers to whoever waits for them."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.peers: tuple[Peer, ...] = ()
        self._stream = stream
        self._reader = LineReader(stream)
        self._lines, self._queue = trio.open_memory_channel[bytes](math.inf)  # at most one a request, and its credits
        self._next = 0
        self._waiting: dict[int, trio.MemorySendChannel[Mapping[str, Any]]] = {}
        self._changed = trio.Event()
        self._end: OverlayError | None = None

    async def greet(self, folder: Path) -> Mapping[str, Any]:
        """What the node says of itself, and who its peers are."""
        with trio.move_on_after(HELLO_TIMEOUT):
            hello: Mapping[str, Any] = _unasked(await self._next_message(), "hello", dict)
            self._set_peers(_unasked(await self._next_message(), "peers", list))
            return hello
        raise HostLacks(f"the node in {folder} does not answer", hint="look at it, or stop it and start it again")

    async def _next_message(self) -> Mapping[str, Any]:
        """Raises OverlayError at the end."""
        line = await self._reader.next_line()
        if line is None:
            raise OverlayError("the node has closed the connection", hint=HOW_TO_START)
        return wire.unpack(line)

    async def read(self) -> None:
        """Hand out answers until the node goes; whoever waits then gets an error."""
        try:
            while True:
                self._hand_out(await self._next_message())
        except OverlayError as error:
            self._end = error
        for answers in tuple(self._waiting.values()):
            answers.close()
        self._notify()

    async def write(self) -> None:
        """The only task that writes, so that whoever is cancelled leaves no half line behind."""
        try:
            async for line in self._queue:
                await self._stream.send_all(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # `read` finds out, too

    def _hand_out(self, message: Mapping[str, Any]) -> None:
        if "peers" in message or "refused" in message:
            self._set_peers(_unasked(message, "peers", list))
            return
        answers = self._waiting.get(wire.number_of(message, "id"))
        if answers is None:
            return  # cancelled in between
        try:
            answers.send_nowait(message)
        except trio.WouldBlock:
            wire.malformed("more items than there was credit for")

    def _set_peers(self, peers: list[Any]) -> None:
        self.peers = tuple(Peer(wire.read_peer(one), self) for one in peers)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_change(self) -> None:
        """Until the peers change. Raises OverlayError when the node has gone."""
        self.check()
        await self._changed.wait()
        self.check()

    def check(self) -> None:
        """Raises OverlayError if the node has gone."""
        if self._end is not None:
            raise OverlayError(str(self._end), hint=self._end.hint) from self._end

    # --- requests ---------------------------------------------------------------------------------------------------

    async def ask(self, method: str, /, **params: Any) -> Any:
        """The result of one request. Raises what the node raised, or OverlayError when it has gone."""
        async with self.request(method, **params) as answers:
            return await answers.result()

    @asynccontextmanager
    async def request(self, method: str, /, **params: Any) -> "AsyncIterator[Answers]":
        """The answers to a request; leaving the block early cancels it."""
        self.check()
        self._next += 1
        number = self._next
        self._waiting[number], answers_out = trio.open_memory_channel[Mapping[str, Any]](CREDIT + 1)
        answers = Answers(self, number, answers_out)
        try:
            self.send({"id": number, "method": method, "params": params})
            yield answers
        finally:
            del self._waiting[number]
            if not answers.ended:
                self.send({"cancel": number})

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue a line. Raises Refused(TOO_LARGE)."""
        self._lines.send_nowait(wire.pack(message))

    # --- calls (CallPort) -----------------------------------------------------------------------------------------------

    async def call(self, peer: NodeId, method: str, body: bytes, timeout: float) -> bytes:  # noqa: ASYNC109
        """See `Peer.call`."""
        return _body(await self.ask("call", **_call_fields(peer, method, body, timeout)))

    def open_stream(self, peer: NodeId, name: str, body: bytes, *, signed: bool) -> AbstractAsyncContextManager[Stream]:
        """See `Peer.open_stream`; the control socket carries none."""
        del peer, name, body, signed
        raise UsageError("streams are not carried over the control socket", hint="open the node in this process: open_node()")

    @asynccontextmanager
    async def call_stream(
        self, peer: NodeId, method: str, body: bytes, timeout: float  # noqa: ASYNC109
    ) -> "AsyncIterator[AsyncIterator[bytes]]":
        """See `Peer.call_stream`."""
        async with self.request("call_stream", **_call_fields(peer, method, body, timeout)) as answers:
            yield Items(answers, _body)


def _call_fields(peer: NodeId, method: str, body: bytes, timeout: float) -> dict[str, Any]:
    timeout = min(timeout, wire.SECONDS_MAX)
    return {"node": str(peer), "method": method, "body": wire.base64_text(body), "timeout": timeout}


def _body(value: Any) -> bytes:
    return wire.bytes_of({"body": value}, "body")


def _unasked(message: Mapping[str, Any], key: str, kind: type) -> Any:
    """What the node says by itself; raises its refusal, or Refused(MALFORMED)."""
    if "refused" in message:
        raise wire.read_error(message["refused"])
    value = message.get(key)
    return value if isinstance(value, kind) else wire.malformed(key)


class Answers:
    """What comes back for one request: items, and in the end a result or an error."""

    def __init__(
        self, connection: Connection, number: int, messages: trio.MemoryReceiveChannel[Mapping[str, Any]]
    ) -> None:
        self.ended = False
        self._connection = connection
        self._number = number
        self._messages = messages
        self._taken = 0

    async def _next(self) -> Mapping[str, Any]:
        """The next message; raises the error that ends the request."""
        try:
            message = await self._messages.receive()
        except trio.EndOfChannel:
            self.ended = True
            self._connection.check()
            raise
        self.ended = "item" not in message
        if "error" in message:
            raise wire.read_error(message["error"])
        return message

    async def result(self) -> Any:
        """The result of a request that has no items."""
        message = await self._next()
        return message["result"] if "result" in message else wire.malformed("result")

    def __aiter__(self) -> "Answers":
        return self

    async def __anext__(self) -> Any:
        message = await self._next()
        if "item" not in message:
            raise StopAsyncIteration
        self._taken += 1
        if self._taken % (CREDIT // 2) == 0:
            self._connection.send({"credit": self._number, "items": CREDIT // 2})
        return message["item"]


class Items(Generic[T]):
    """Items of a request as values."""

    def __init__(self, answers: Answers, read: Callable[[Any], T]) -> None:
        self._answers = answers
        self._read = read

    def __aiter__(self) -> "Items[T]":
        return self

    async def __anext__(self) -> T:
        return self._read(await anext(self._answers))
