"""Connecting to somebody who has several addresses: they are tried one after the other, a quarter of a second apart.

The first that connects wins, and the others are closed ("Happy Eyeballs", RFC 8305, sections 4 and 5).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import trio

from overlay.core.limits import ATTEMPT_DELAY, CONNECT_WITHIN
from overlay.core.mesh.found import Address

Missed = Callable[[Address], None]


def dial_order(
    addresses: Iterable[Address], misses: Mapping[Address, int], worked: Address | None = None
) -> tuple[Address, ...]:
    """What to try first: where it worked before, then by failures in a row; among equals IPv6 and IPv4 take turns.

    The order of the caller decides the rest, and which family begins (RFC 8305, section 4).
    """
    ranked: dict[int, list[Address]] = {}
    for address in dict.fromkeys(addresses):
        ranked.setdefault(-1 if address == worked else misses.get(address, 0), []).append(address)
    return tuple(address for rank in sorted(ranked) for address in _take_turns(ranked[rank]))


def _take_turns(addresses: Sequence[Address]) -> list[Address]:
    begins = _is_six(addresses[0])
    first = [address for address in addresses if _is_six(address) is begins]
    second = [address for address in addresses if _is_six(address) is not begins]
    common = min(len(first), len(second))
    turns = [address for pair in zip(first, second, strict=False) for address in pair]
    return [*turns, *first[common:], *second[common:]]


def _is_six(address: Address) -> bool:
    return ":" in address[0]


async def connect_any(
    addresses: Sequence[Address], *, delay: float = ATTEMPT_DELAY, within: float = CONNECT_WITHIN, missed: Missed | None = None
) -> tuple[Address, trio.SocketStream] | None:
    """The first of these addresses that connects, with its stream; None if none does. Small packets are not held back.

    Args:
        addresses: in the order in which to begin; link-local ones with their interface, `fe80::1%eth0`.
        delay: seconds until the next one is tried, too; at once when one has failed.
        within: seconds for each.
        missed: told of each address that refused, or did not answer in time. Those that lost the race are not named.
    """
    race = Race(within, missed)
    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(race.run, address, failed, nursery.cancel_scope)
                with trio.move_on_after(delay):
                    await failed.wait()
    except BaseException:
        await race.close()
        raise
    return race.won


class Race:
    """Some attempts, of which one wins."""

    def __init__(self, within: float, missed: Missed | None) -> None:
        self.won: tuple[Address, trio.SocketStream] | None = None
        self._within = within
        self._missed = missed

    async def run(self, address: Address, failed: trio.Event, others: trio.CancelScope) -> None:
        """One attempt."""
        stream = await self._connect(address)
        if stream is None:
            failed.set()
            if self._missed is not None:
                self._missed(address)
        elif self.won is None:
            self.won = address, stream
            others.cancel()
        else:
            await trio.aclose_forcefully(stream)  # both in the same turn of the event loop

    async def _connect(self, address: Address) -> trio.SocketStream | None:
        with trio.move_on_after(self._within):
            try:
                return await trio.open_tcp_stream(*address)
            except (OSError, UnicodeError):  # the latter from names that no resolver takes
                return None
        return None

    async def close(self) -> None:
        """Nobody wants it any more."""
        if self.won is not None:
            await trio.aclose_forcefully(self.won[1])
