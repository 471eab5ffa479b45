"""Calls of a node over all its links: ours that wait for an answer, and handlers that answer others.

The four `on_...` are called straight from the reader of a link and never block; what they raise ends that link.
"""

import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import trio

from overlay.core.keys import NodeId
from overlay.core.messages import deadline_of
from overlay.core.rpc import Calls
from overlay.core.session_events import MessageReceived
from overlay.errors import DeadlineExceeded, PeerUnreachable, UsageError
from overlay.net.answers import Answer, CallLink, Parts, body_of
from overlay.net.handlers import Job
from overlay.net.request import Handler, PeerInfo
from overlay.net.system import Calendar, wall_clock
from overlay.registry import ReplyStatus


class CallDesk:
    """One for each node; handlers run in its nursery."""

    def __init__(
        self, services: Mapping[str, Handler], nursery: trio.Nursery, calendar: Calendar = wall_clock,
        allows: Callable[[PeerInfo, str], bool] = lambda _caller, _service: True,
    ) -> None:
        """`allows`: whether the policy lets this caller use this service now."""
        self._services = services
        self._allows = allows
        self._nursery = nursery
        self._calendar = calendar
        self._answers: dict[bytes, Answer] = {}  # of our calls, by token
        self._jobs: dict[bytes, Job] = {}  # of our peers' calls, by their hash

    # --- ours ---------------------------------------------------------------------------------------------------------

    async def call(self, link: CallLink | None, peer: NodeId, method: str, body: bytes, timeout: float) -> bytes:  # noqa: ASYNC109
        """See `Peer.call`."""
        with trio.move_on_after(_checked(timeout)):
            answer = await self._ask(link, peer, method, body, timeout)
            try:
                return body_of(await answer.next_reply(), method)
            finally:
                self._close(answer)
        raise DeadlineExceeded(f"no answer to {method} within {timeout:g} s")

    @asynccontextmanager
    async def call_stream(
        self, link: CallLink | None, peer: NodeId, method: str, body: bytes, timeout: float  # noqa: ASYNC109
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `Peer.call_stream`. On the wire it has no deadline: parts may go on for as long as they come in time."""
        answer = None
        with trio.move_on_after(_checked(timeout)):
            answer = await self._ask(link, peer, method, body, math.inf)
        if answer is None:
            raise DeadlineExceeded(f"{method} could not be sent within {timeout:g} s")
        try:
            yield Parts(answer, timeout)
        finally:
            self._close(answer)

    async def _ask(self, link: CallLink | None, peer: NodeId, method: str, body: bytes, timeout: float) -> Answer:  # noqa: ASYNC109
        """Send a call as soon as there is room for it."""
        if link is not None and link.is_open:
            await link.wait_room()
        if link is None or link.calls is None or not link.is_open:
            raise PeerUnreachable(f"there is no link to {peer.short}", hint="`overlay status` shows who is linked")
        deadline = deadline_of(self._now(), timeout)
        token = link.calls.call(peer, link.session.next_stream(), method, body, deadline)
        answer = self._answers[token] = Answer(link, link.calls, token, method)
        return answer

    def _close(self, answer: Answer) -> None:
        del self._answers[answer.token]
        answer.close()

    def on_reply(self, calls: Calls, message: MessageReceived) -> None:
        """Hand an answer to whoever waits. Raises Refused."""
        for reply in calls.on_reply(message.body, message.stream, message.peer):
            if reply.token in self._answers:
                self._answers[reply.token].give(reply)

    # --- theirs -------------------------------------------------------------------------------------------------------

    def on_call(self, link: CallLink, calls: Calls, message: MessageReceived, caller: PeerInfo) -> None:
        """Start the handler of a call. Raises Refused."""
        with suppress(PeerUnreachable):  # it could not even be told that its call does not run
            for received in calls.on_call(message.body, message.stream, message.peer, self._now()):
                job = self._jobs[received.call.hash] = Job(link, calls, received, caller)
                self._nursery.start_soon(self._run, job)

    def on_cancel(self, link: CallLink, calls: Calls, message: MessageReceived) -> None:
        """Stop the handler of a call that nobody waits for. Raises Refused."""
        del link
        for token in calls.on_cancel(message.body, message.stream):
            self._jobs[token].cancel()

    def on_credit(self, calls: Calls, message: MessageReceived) -> None:
        """Let a handler go on that has waited for credit. Raises Refused."""
        for token in calls.on_credit(message.body, message.stream):
            self._jobs[token].credit()

    async def _run(self, job: Job) -> None:
        """Run a handler and say how it ended; when the link has ended before, nobody hears of it."""
        handler = self._services.get(job.received.call.method)
        status, body = ReplyStatus.NO_SUCH_METHOD, b""
        if handler is not None and not self._allows(job.caller, job.received.call.method):
            status = ReplyStatus.NOT_ALLOWED
        elif handler is not None:
            status, body = await job.run(handler)
        if job.link.is_open:
            await job.link.wait_room()
        del self._jobs[job.token]
        if not job.link.is_open:
            job.calls.abandon(job.received)
            return
        with suppress(PeerUnreachable):
            job.calls.reply(job.received, status, body)

    # --- links --------------------------------------------------------------------------------------------------------

    def link_ended(self, link: CallLink) -> None:
        """Whoever waits for an answer over this link waits in vain, and so do its handlers work."""
        for token in tuple(link.replies):
            self._answers[token].lose()
        for token in () if link.calls is None else link.calls.running:
            self._jobs[token].cancel()

    def _now(self) -> float:
        """The calendar's time in Unix seconds."""
        return self._calendar().timestamp()


def _checked(timeout: float) -> float:
    if not timeout >= 0:
        raise UsageError("a timeout is a number of seconds from 0")
    return timeout
