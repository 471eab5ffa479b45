"""Calls of a node over all its links: ours that wait for an answer, and handlers that answer others."""

from collections.abc import Mapping

import trio

from overlay.core import limits
from overlay.core.keys import NodeId
from overlay.core.rpc import CallReceived, Calls, ReplyReceived
from overlay.core.session_events import MessageReceived
from overlay.errors import DeadlineExceeded, NotAllowed, PeerUnreachable, RemoteError
from overlay.net.link import Link
from overlay.net.peer import Handler, PeerInfo, Request
from overlay.registry import ReplyStatus


class CallDesk:
    """One for each node; handlers run in its nursery."""

    def __init__(self, services: Mapping[str, Handler], nursery: trio.Nursery) -> None:
        self._services = services
        self._nursery = nursery
        self._replies: dict[bytes, trio.MemorySendChannel[ReplyReceived]] = {}

    # --- ours ---------------------------------------------------------------------------------------------------------

    async def call(self, link: Link | None, peer: NodeId, method: str, body: bytes, timeout: float, at: float) -> bytes:  # noqa: ASYNC109
        """See `Peer.call`; `at` is the calendar's time in Unix seconds."""
        if link is None or link.calls is None or not link.is_open:
            raise PeerUnreachable(f"there is no link to {peer.short}", hint="`overlay status` shows who is linked")
        token = link.calls.call(peer, link.session.next_stream(), method, body, int((at + timeout) * 1000))
        answer_in, answer_out = trio.open_memory_channel[ReplyReceived](1)
        self._replies[token] = answer_in
        link.replies.add(token)
        try:
            with trio.fail_after(timeout):
                reply = await answer_out.receive()
        except trio.TooSlowError:
            raise DeadlineExceeded(f"no answer to {method} within {timeout:g} s") from None
        except trio.EndOfChannel:
            raise PeerUnreachable("the link ended before the answer") from None
        finally:
            link.replies.discard(token)
            link.calls.forget(token)
            self._replies.pop(token, None)
        return _result(reply, method)

    def on_reply(self, calls: Calls, message: MessageReceived) -> None:
        """Hand an answer to whoever waits. Raises Refused."""
        for reply in calls.on_reply(message.body, message.stream, message.peer):
            waiting = self._replies.pop(reply.token, None)
            if waiting is not None:
                waiting.send_nowait(reply)

    def link_ended(self, link: Link) -> None:
        """Whoever waits for an answer over this link waits in vain."""
        for token in tuple(link.replies):
            waiting = self._replies.pop(token, None)
            if waiting is not None:
                waiting.close()

    # --- theirs -------------------------------------------------------------------------------------------------------

    def on_call(self, link: Link, calls: Calls, message: MessageReceived, caller: PeerInfo) -> None:
        """Start the handler of a call. Raises Refused."""
        for received in calls.on_call(message.body, message.stream, message.peer):
            self._nursery.start_soon(self._handle, link, calls, received, caller)

    async def _handle(self, link: Link, calls: Calls, received: CallReceived, caller: PeerInfo) -> None:
        """Run a handler; whatever it raises is the answer FAILED, and no reason to end the node."""
        handler = self._services.get(received.call.method)
        status, body = ReplyStatus.NO_SUCH_METHOD, b""
        if handler is not None:
            status, body = await _run_handler(handler, Request(caller, received.call.method, received.call.body))
        if not link.is_open:
            calls.abandon()
            return
        try:
            calls.reply(received, status, body)
        except PeerUnreachable:
            return


async def _run_handler(handler: Handler, request: Request) -> tuple[ReplyStatus, bytes]:
    try:
        body = await handler(request)
    except NotAllowed:
        return ReplyStatus.NOT_ALLOWED, b""
    except Exception as error:  # noqa: BLE001
        return ReplyStatus.FAILED, f"{type(error).__name__}: {error}".encode()[:4096]
    if not isinstance(body, bytes | bytearray) or len(body) > limits.BODY_MAX:
        return ReplyStatus.FAILED, b"the handler returned no bytes, or more than 1 MiB"
    return ReplyStatus.OK, bytes(body)


def _result(reply: ReplyReceived, method: str) -> bytes:
    match reply.status:
        case ReplyStatus.OK:
            return reply.body
        case ReplyStatus.FAILED:
            raise RemoteError(reply.body.decode(errors="replace"))
        case ReplyStatus.NO_SUCH_METHOD:
            raise RemoteError(f"the peer has no service {method!r}", hint="services are given to open_node() on that node")
        case ReplyStatus.NOT_ALLOWED:
            raise NotAllowed(f"the peer does not let us call {method!r}")
    raise RemoteError(f"the peer answered {reply.status.name.lower()}")
