"""Rows about streams: bulk data and round trips, against TLS and bare TCP over trio, in turns within one run."""

import statistics
import time
from collections.abc import Awaitable, Callable

import trio

import overlay
from bench import tls
from bench.ends import Other, two_ends
from bench.peer import ACK, BLOCK, PATTERN
from bench.row import Row, row

BULK = 512 * 1024 * 1024  # bytes of one run
TLS_WRITE = 64 * 1024
PINGS = 100  # in a row, then the other's turn: a machine is not equally fast all the time
TURNS = 20  # of each, in one run
PING = bytes(range(64))

Send = Callable[[bytes], Awaitable[None]]


async def _blocks(send: Send, size: int, total: int) -> None:
    """Write the pattern in pieces of this size."""
    view = memoryview(PATTERN)
    for start in range(0, total, size):
        at = start % BLOCK
        await send(view[at : at + size])  # type: ignore[arg-type]  # all take any buffer


async def _stream(peer: overlay.Peer, *, signed: bool, total: int = BULK, handler: str = "sink") -> float:
    """GB/s from the first write until the other has all of it and the end."""
    async with peer.open_stream(handler, signed=signed) as stream:
        began = time.perf_counter()
        await _blocks(stream.send_all, BLOCK, total)
        await stream.send_eof()
        answer = await stream.receive_some()
        seconds = time.perf_counter() - began
    assert answer == ACK, answer
    return total / seconds / 1e9


async def _socket(stream: trio.abc.Stream, size: int, total: int = BULK) -> float:
    began = time.perf_counter()
    await stream.send_all(total.to_bytes(8, "big"))
    await _blocks(stream.send_all, size, total)
    answer = await stream.receive_some(1)
    seconds = time.perf_counter() - began
    assert answer == ACK, answer
    return total / seconds / 1e9


async def _tls(other: Other) -> float:
    async with tls.connected(other.bulk_tls_port, tls.context(other.certificates, "client")) as stream:
        return await _socket(stream, TLS_WRITE)


async def _tcp(other: Other) -> float:
    """The faster of 64 KiB writes and ours."""
    rates = []
    for size in (TLS_WRITE, BLOCK):
        async with await trio.open_tcp_stream("127.0.0.1", other.bulk_tcp_port) as stream:
            rates.append(await _socket(stream, size))
    return max(rates)


async def bulk(runs: int) -> list[Row]:
    """Half a GiB in one stream, with fresh keys each second."""
    unsigned, signed, secure, plain = [], [], [], []
    async with two_ends() as (_, peer, other):
        for handler in ("sink", "hashing sink"):  # the second looks at every byte, and is not timed
            await _stream(peer, signed=False, handler=handler)
            await _stream(peer, signed=True, handler=handler)
        for _ in range(runs):
            unsigned.append(await _stream(peer, signed=False))
            secure.append(await _tls(other))
            signed.append(await _stream(peer, signed=True))
            plain.append(await _tcp(other))
    return [
        row("bulk_vs_tls", "GB/s", unsigned, secure),
        row("bulk_signed_vs_tls", "GB/s", signed, secure),
        row("bulk_vs_tcp", "GB/s", unsigned, plain),
    ]


async def _round_trips(send: Send, receive: Callable[[], Awaitable[bytes]]) -> list[float]:
    """Microseconds of 64 bytes there and back."""
    times = []
    for _ in range(PINGS):
        began = time.perf_counter()
        await send(PING)
        answer = await receive()
        times.append((time.perf_counter() - began) * 1e6)
        assert answer == PING, answer
    return times


async def ping(runs: int) -> list[Row]:
    """64 bytes on a stream that is open, segments unsigned, against the same on TLS: medians."""
    ours, secure = [], []
    async with two_ends() as (_, peer, other):
        context = tls.context(other.certificates, "client")
        async with peer.open_stream("echo", signed=False) as stream, tls.connected(other.echo_tls_port, context) as secured:
            for _ in range(runs + 1):
                one, two = [], []
                for _ in range(TURNS):
                    one += await _round_trips(stream.send_all, stream.receive_some)
                    two += await _round_trips(secured.send_all, secured.receive_some)
                ours.append(statistics.median(one))
                secure.append(statistics.median(two))
            ends = trio.current_time() + 2.5
            while trio.current_time() < ends:
                await _round_trips(stream.send_all, stream.receive_some)
    return [row("ping_rtt_vs_tls", "us", ours[1:], secure[1:])]
