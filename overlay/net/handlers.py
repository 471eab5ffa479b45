"""A call that runs here: its handler in its own cancel scope, and what the handler gives as messages of the answer."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AsyncExitStack

import trio

from overlay.core import limits
from overlay.core.messages import pack_failure
from overlay.core.rpc import CallReceived, Calls
from overlay.errors import NotAllowed
from overlay.net.answers import CallLink
from overlay.net.request import Handler, PeerInfo, Request
from overlay.registry import ReplyStatus

Outcome = tuple[ReplyStatus, bytes]


class Job:
    """One call of a peer. It ends early when the peer cancels, when its link ends, or when its deadline is over for certain."""

    def __init__(self, link: CallLink, calls: Calls, received: CallReceived, caller: PeerInfo) -> None:
        self.link = link
        self.calls = calls
        self.received = received
        self.caller = caller
        self._unwanted = False
        self._credit = trio.Event()
        # clocks may differ by that much, and a caller that gives up in time says so: this is for one that does not
        self._scope = trio.CancelScope(deadline=trio.current_time() + received.left + limits.CLOCK_TOLERANCE)

    @property
    def token(self) -> bytes:
        """Names the call."""
        return self.received.call.hash

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        self._unwanted = True
        self._scope.cancel()

    def credit(self) -> None:
        """Perhaps the next part may be sent."""
        self._credit.set()

    async def run(self, handler: Handler) -> Outcome:
        """Run the handler; whatever it raises becomes the answer FAILED. Parts are sent, the final message is not."""
        call = self.received.call
        try:
            with self._scope:
                if not self._scope.cancel_called:
                    request = Request(self.caller, call.method, call.body, max(self.received.left, 0.0))
                    return await self._answer(handler(request))
        except NotAllowed:
            return ReplyStatus.NOT_ALLOWED, b""
        except Exception as error:  # noqa: BLE001
            return ReplyStatus.FAILED, pack_failure(type(error).__name__, str(error))
        return (ReplyStatus.CANCELLED if self._unwanted else ReplyStatus.EXPIRED), b""

    async def _answer(self, given: Awaitable[bytes] | AsyncIterator[bytes]) -> Outcome:
        if isinstance(given, AsyncIterator):
            await self._send_parts(given)
            return ReplyStatus.OK, b""
        return ReplyStatus.OK, _checked(await given)

    async def _send_parts(self, parts: AsyncIterator[bytes]) -> None:
        """Send each part as soon as there is credit and room; meanwhile a generator waits in its `yield`."""
        async with AsyncExitStack() as stack:
            if isinstance(parts, AsyncGenerator):
                stack.push_async_callback(parts.aclose)
            async for part in parts:
                body = _checked(part)
                await self._wait_credit()
                await self.link.wait_room()
                self.calls.part(self.received, body)

    async def _wait_credit(self) -> None:
        while not self.calls.has_credit(self.received):
            self._credit = trio.Event()
            await self._credit.wait()


def _checked(body: object) -> bytes:
    """What a handler gave, if it can be sent; raises TypeError or ValueError."""
    if not isinstance(body, bytes | bytearray):
        raise TypeError("a service gives bytes")
    if len(body) > limits.BODY_MAX:
        raise ValueError(f"a service gives at most {limits.BODY_MAX} bytes at once")
    return bytes(body)
