"""Tells that this node itself is in quarantine, by an order or a fork proof that it has heard of, and when that is over.

The engine keeps such a node out of everything (`Node.kept_out_until`); it goes on by itself when the quarantine ends.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol

import trio

from overlay.events import NodeEvent, QuarantineBegan, QuarantineEnded
from overlay.registry import Reason

PEERS_WITHIN: Final = 1.0  # seconds in which peers end the links, and say that they did; then we do: our guess
LOOK: Final = 60.0  # seconds at most until the calendar is looked at again, which may be set meanwhile: our guess


class Engine(Protocol):
    """What is needed of the node."""

    @property
    def kept_out_until(self) -> datetime | None:
        """Until when it is in quarantine; None if it is not."""
        ...

    def close_links(self, reason: Reason) -> None:
        """Say GOODBYE on every link."""
        ...

    def emit(self, event: NodeEvent) -> None:
        """Tell observers."""
        ...


class OwnQuarantine:
    """Of one node, for as long as it runs."""

    def __init__(self, engine: Engine, at: Callable[[], datetime]) -> None:
        self._engine = engine
        self._at = at
        self._told: datetime | None = None
        self._news = trio.Event()

    @property
    def warnings(self) -> tuple[str, ...]:
        """For every status."""
        until = self._engine.kept_out_until
        if until is not None:
            when = f"{until:%Y-%m-%d %H:%M} UTC"
            return (f"this node is in quarantine until {when}: it stays out of everything until then",)
        return ()

    def trust_moved(self) -> None:
        """There may be another quarantine."""
        self._news.set()

    async def run(self) -> None:
        """Tell of its beginning and its end, until cancelled."""
        while True:
            until = self._engine.kept_out_until
            if until is not None and until != self._told:
                self._engine.emit(QuarantineBegan(until=until.isoformat()))
                await trio.sleep(PEERS_WITHIN)
                self._engine.close_links(Reason.QUARANTINED)
            elif until is None and self._told is not None:
                self._engine.emit(QuarantineEnded())
            self._told = until
            left = LOOK if until is None else min(LOOK, max(0.0, (until - self._at()).total_seconds()))
            with trio.move_on_after(left):
                await self._news.wait()
            self._news = trio.Event()
