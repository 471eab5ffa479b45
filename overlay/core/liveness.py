"""Signs of life of one link: when to ask for one, when the peer is dead, and what its clock says (PING, PONG)."""

import math
from dataclasses import dataclass

from overlay.core.limits import PING_AFTER, PINGS_MISSED
from overlay.core.wire import UInt, make_map, open_map
from overlay.errors import Refused
from overlay.registry import Reason

_WALL = UInt()  # milliseconds since 1970 by the sender's clock; nothing is decided by it


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping of ours: monotonic times of both, and both wall clocks in Unix milliseconds."""

    sent: float
    received: float
    own_wall: int  # when the ping was sent
    peer_wall: int

    @property
    def round_trip(self) -> float:
        """Seconds."""
        return self.received - self.sent


class Liveness:
    """Asks after 15 s without a record; the peer is dead when three pings, or one probe, had no answer."""

    def __init__(self, now: float) -> None:
        self._ping_at = now + PING_AFTER
        self._pings = 0
        self._probe_ends = math.inf
        self._number = 0
        self._asked: tuple[int, float, int] | None = None  # the last ping: number, when, our wall clock

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        return min(self._ping_at, self._probe_ends)

    def heard(self, now: float) -> None:
        """A record of the peer has decrypted."""
        self._pings, self._ping_at, self._probe_ends = 0, now + PING_AFTER, math.inf

    def probe(self, now: float, within: float) -> None:
        """Without a sign of life by then the peer is dead; send a `ping`."""
        self._probe_ends = now + within

    def tick(self, now: float) -> bool:
        """Whether a ping is due. Raises Refused(DEAD)."""
        if now >= self._probe_ends:
            raise Refused(Reason.DEAD, "no sign of life when asked")
        if now < self._ping_at:
            return False
        if self._pings == PINGS_MISSED:
            raise Refused(Reason.DEAD, f"{self._pings} pings were not answered")
        self._pings, self._ping_at = self._pings + 1, now + PING_AFTER
        return True

    def ping(self, now: float, wall: int) -> bytes:
        """The body of the next PING."""
        self._number += 1
        self._asked = self._number, now, wall
        return make_map(self._number, wall)

    def on_ping(self, body: bytes, wall: int) -> bytes:
        """The body of the PONG that answers. Raises Refused(MALFORMED)."""
        number, _ = open_map(body, UInt(), _WALL, limit=64)
        return make_map(number, wall)

    def on_pong(self, body: bytes, now: float) -> Pong | None:
        """What the answer to our last ping tells. Raises Refused(MALFORMED)."""
        number, wall = open_map(body, UInt(), _WALL, limit=64)
        if self._asked is None or number != self._asked[0]:
            return None
        (_, sent, own_wall), self._asked = self._asked, None
        return Pong(sent, now, own_wall, int(wall))
