"""How far the clocks of our peers are from ours, from the times in PING and PONG. It informs people and decides nothing."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median

from overlay.core.keys import NodeId
from overlay.core.limits import SKEW_MAX, SKEW_PEERS_MAX, SKEW_SAMPLES


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer: how far the peer's clock is ahead of ours, give or take half of the round trip. Seconds."""

    ahead: float
    round_trip: float


def measure(sent: float, received: float, own_wall: int, peer_wall: int) -> Sample | None:
    """What a PONG tells. None if its time is absurd.

    Args:
        sent: when the PING was sent, monotonic.
        received: when its PONG came, monotonic.
        own_wall: our clock when it was sent, Unix milliseconds.
        peer_wall: the peer's when it answered, Unix milliseconds.
    """
    round_trip = max(received - sent, 0.0)
    if abs(peer_wall - own_wall) > SKEW_MAX * 1000:
        return None
    return Sample((peer_wall - own_wall) / 1000 - round_trip / 2, round_trip)


class Skews:
    """What is known of the clocks of all peers."""

    def __init__(self) -> None:
        self._samples: dict[NodeId, deque[Sample]] = {}

    def heard(self, peer: NodeId, sample: Sample | None) -> None:
        """Remember an answer of this peer."""
        if sample is None:
            return
        samples = self._samples.pop(peer, None) or deque[Sample](maxlen=SKEW_SAMPLES)
        samples.append(sample)
        self._samples[peer] = samples
        if len(self._samples) > SKEW_PEERS_MAX:
            del self._samples[next(iter(self._samples))]

    def forget(self, peer: NodeId) -> None:
        """There is no link to it any more."""
        self._samples.pop(peer, None)

    def of(self, peer: NodeId) -> Sample | None:
        """The best of its last answers: that with the shortest round trip."""
        samples = self._samples.get(peer)
        return min(samples, key=lambda sample: sample.round_trip) if samples else None

    @property
    def peers(self) -> int:
        """Of how many peers we know it."""
        return len(self._samples)

    @property
    def median(self) -> float | None:
        """By how many seconds the peers are ahead of us, the middle one: one liar among three moves it little."""
        found = [sample.ahead for peer in self._samples if (sample := self.of(peer)) is not None]
        return median(found) if found else None


def clock_sentence(at: datetime, skews: Skews) -> str:
    """For an error about times: our time, and the peers'. `at` is aware."""
    ours = f"this machine's clock says {_time(at)}"
    ahead = skews.median
    if ahead is None:
        return f"{ours}; no peer has told its time"
    peers = "1 peer" if skews.peers == 1 else f"{skews.peers} peers"
    middle = "" if skews.peers == 1 else ", the middle one"
    return f"{ours}, {peers} say{'s' if skews.peers == 1 else ''} {_time(at + timedelta(seconds=ahead))}{middle}"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
