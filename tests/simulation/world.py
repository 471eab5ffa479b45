"""A world for simulations: one clock and one queue of events, a seed for all chance, and wires that are slow, break and part.

Nothing here knows what nodes are: they give their addresses to links, and are told what comes and what goes. Whatever happens
follows from the seed, so a run that fails prints it, and the same seed plays the same run again.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from overlay.registry import FrameType

RECORD = 26  # bytes that a record adds to a frame's body: length, header, tag (docs/protocol/records.md)
DELAY = (0.001, 0.05)  # seconds on a wire
AGAIN = (0.2, 3.0)  # seconds until a broken link is open again


class End(Protocol):
    """Who holds one end of a link."""

    address: int

    def link_opened(self, other: "End") -> None:
        """There is a link."""
        ...

    def link_closed(self, other: "End") -> None:
        """There is none any more; what was on its way is lost."""
        ...

    def heard(self, other: "End", frame: FrameType, body: bytes) -> None:
        """A frame has come."""
        ...


@dataclass(slots=True)
class Link:
    """Two ends; frames of one direction arrive in order."""

    ends: tuple[End, End]
    open: bool = False
    wanted: bool = True  # whether it opens again by itself
    life: int = 0  # how often it has been opened
    arrives: dict[int, float] = field(default_factory=dict)  # by who sends: when the last frame under way arrives


class World:
    """Time, chance and wires."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.now = 0.0
        self.sent: Counter[FrameType] = Counter()  # bytes by kind of frame
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._links: dict[tuple[int, int], Link] = {}
        self._sides: dict[int, int] = {}  # by address: which part of a world that is parted

    # --- time -------------------------------------------------------------------------------------------------------

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do this later."""
        heapq.heappush(self._queue, (self.now + seconds, next(self._order), act))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until(lambda: False, seconds)

    def run_until(self, done: Callable[[], bool], seconds: float, *, every: float = 0.25) -> bool:
        """Let time pass until this is so, looked at every so often, or so much time is over; whether it is so."""
        end, look = self.now + seconds, self.now + every
        while self._queue and self._queue[0][0] <= end:
            time, _, act = heapq.heappop(self._queue)
            if time >= look:
                self.now, look = max(self.now, min(look, time)), time + every
                if done():
                    heapq.heappush(self._queue, (time, next(self._order), act))
                    return True
            self.now = time
            act()
        self.now = end
        return done()

    @contextmanager
    def told(self) -> Iterator["World"]:
        """What fails in here says with which seed."""
        try:
            yield self
        except Exception as error:
            error.add_note(f"seed {self.seed}, at {self.now:.3f} s of the simulation")
            raise

    # --- wires ------------------------------------------------------------------------------------------------------

    def link(self, one: End, other: End) -> None:
        """From now on these two have a link whenever they can."""
        key = _key(one, other)
        self._links[key] = link = Link((one, other))
        self._open(link)

    def unlink(self, one: End, other: End) -> None:
        """They have none any more."""
        link = self._links.pop(_key(one, other), None)
        if link is not None:
            self._close(link)
            link.wanted = False

    def neighbours(self, one: End) -> list[End]:
        """Whoever should have a link to this one."""
        return [end for link in self._links.values() if one in link.ends for end in link.ends if end is not one]

    def send(self, one: End, other: End, frame: FrameType, body: bytes) -> None:
        """Over an open link; else nothing happens."""
        link = self._links.get(_key(one, other))
        if link is None or not link.open:
            return
        self.sent[frame] += len(body) + RECORD
        arrives = max(link.arrives.get(one.address, 0.0), self.now + self.chance.uniform(*DELAY))
        link.arrives[one.address], life = arrives, link.life

        def arrive() -> None:
            if link.open and link.life == life:
                other.heard(one, frame, body)

        heapq.heappush(self._queue, (arrives, next(self._order), arrive))

    def break_one(self) -> None:
        """Some link breaks, and is open again after a while."""
        links = [link for link in self._links.values() if link.open]
        if links:
            link = self.chance.choice(links)
            self._close(link)
            self.after(self.chance.uniform(*AGAIN), lambda: self._open(link))

    def down(self, one: End) -> None:
        """All links of this one break; see `up`."""
        for link in list(self._links.values()):
            if one in link.ends:
                self._close(link)

    def up(self, one: End) -> None:
        """They are open again."""
        for link in list(self._links.values()):
            if one in link.ends:
                self._open(link)

    def part(self, sides: Iterable[Iterable[End]]) -> None:
        """Nothing passes between these any more."""
        self._sides = {end.address: side for side, ends in enumerate(sides) for end in ends}
        for link in self._links.values():
            if self._apart(link):
                self._close(link)

    def heal(self) -> None:
        """The world is one again."""
        self._sides = {}
        for link in list(self._links.values()):
            self._open(link)

    def _apart(self, link: Link) -> bool:
        one, other = (self._sides.get(end.address, 0) for end in link.ends)
        return one != other

    def _open(self, link: Link) -> None:
        if link.open or not link.wanted or self._apart(link) or not all(map(_is_up, link.ends)):
            return
        link.open, link.life, link.arrives = True, link.life + 1, {}
        one, other = link.ends
        one.link_opened(other)
        other.link_opened(one)

    def _close(self, link: Link) -> None:
        if not link.open:
            return
        link.open = False
        one, other = link.ends
        one.link_closed(other)
        other.link_closed(one)


def _key(one: End, other: End) -> tuple[int, int]:
    return min(one.address, other.address), max(one.address, other.address)


def _is_up(end: End) -> bool:
    return bool(getattr(end, "up", True))
