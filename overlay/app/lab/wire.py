"""Somebody on the wire: forwards TCP connections, and on SIGUSR1 changes one bit of the next bytes of each opener.

Runs as a program on a host of the lab: `python wire.py LISTEN-HOST TARGET-HOST TARGET-PORT`; prints its port.
"""

import signal
import sys

import trio


class Wire:
    """One forwarder."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._flip = False

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled: each SIGUSR1 spoils what comes next."""
        with trio.open_signal_receiver(signal.SIGUSR1) as signals:
            task_status.started()
            async for _ in signals:
                self._flip = True

    async def carry(self, opener: trio.SocketStream) -> None:
        """Both ways until one side ends."""
        async with opener, await trio.open_tcp_stream(*self._target) as target, trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, target, opener, nursery.cancel_scope)
            await self._copy(opener, target, nursery.cancel_scope, spoil=True)

    async def _copy(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope, *, spoil: bool = False
    ) -> None:
        try:
            while data := bytearray(await source.receive_some(65_536)):
                if spoil and self._flip:
                    self._flip = False
                    data[-1] ^= 1
                await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()


async def main(listen: str, host: str, port: int) -> None:
    """Forward until killed."""
    wire = Wire(host, port)
    async with trio.open_nursery() as nursery:
        await nursery.start(wire.watch)
        listeners = await trio.open_tcp_listeners(0, host=listen)
        sys.stdout.write(f"{listeners[0].socket.getsockname()[1]}\n")
        sys.stdout.flush()
        await trio.serve_listeners(wire.carry, listeners)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
