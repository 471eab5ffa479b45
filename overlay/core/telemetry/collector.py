"""Collects telemetry: verifies each batch, in this order, before anything of it is read as a measurement. Sans-IO.

    receive    a batch: rate of its sender, size and form, signature, certificate and level of its author, sequence and previous
               batch, root, clock; only then are its records read and counted. What fails goes to quarantine
    tick       gaps that were asked for and did not fill; anchors that nothing answers to
    anchored   what an author's audit log says of its streams
    messages_to_send   (author, ask): batches that are missing

A batch may be handed over by anybody: it counts for who signed it, wherever it comes from.
"""

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, Protocol

from overlay.core.guard import asked
from overlay.core.keys import MeshId, NodeId
from overlay.core.limits import CLOCK_TOLERANCE
from overlay.core.mesh.load import Rate
from overlay.core.mesh.topics import Author
from overlay.core.telemetry.aggregates import Aggregates
from overlay.core.telemetry.anchor import Anchored
from overlay.core.telemetry.anchors_seen import AnchorsSeen
from overlay.core.telemetry.asks import Ask
from overlay.core.telemetry.batch import BATCH_MAX, VerifiedHead, parse_batch
from overlay.core.telemetry.chain import Chain, Place, StreamKey
from overlay.core.telemetry.early import EarlyBatches, Held
from overlay.core.telemetry.events import Counted, Gap, TelemetryEvent
from overlay.core.telemetry.quarantine import Quarantine, Quarantined
from overlay.errors import Refused
from overlay.registry import Reason

AGE_MAX: Final = 3600.0  # seconds a batch may be under way: our guess, what a sender keeps
RATE: Final = Rate(per_second=200, burst=1000)  # batches of one sender: our guess, 20,000 records a second in hundreds
STREAMS_MAX: Final = 64  # of one author that are not over: our guess
RATED_BYTES: Final = 4096  # of a batch count as one: our guess; a batch may hold 4,096 records, and each of them costs
SENDERS_MAX: Final = 4096  # whose rate is remembered: our guess


class Authors(Protocol):
    """What a collector knows of the members. May raise: then the answer is no."""

    def author_of(self, kid: bytes) -> Author | None:
        """Whose endorsement that is."""
        ...

    def level(self, author: Author, at: datetime) -> int:
        """The level that counts of it now. Raises Refused: REVOKED, QUARANTINED, EXPIRED and so on."""
        ...


def expects_none(_author: NodeId, _name: str) -> bool:
    """Only of streams that have come here it is known that they have to."""
    return False


class TelemetryCollector:
    """One collector. `now` is monotonic, `at` the calendar; no verb raises for what a peer did."""

    def __init__(
        self, mesh_id: MeshId, authors: Authors, *, level: int = 0, rate: Rate = RATE,
        expects: Callable[[NodeId, str], bool] = expects_none,
    ) -> None:
        """`level`: the least that an author needs. `expects`: whether a stream of that author and name has to come here."""
        self.aggregates, self.quarantine = Aggregates(), Quarantine()
        self._mesh_id, self._authors, self._level, self._rate, self._expects = mesh_id, authors, level, rate, expects
        self._chains: dict[StreamKey, Chain] = {}
        self._early, self._anchors = EarlyBatches(), AnchorsSeen()
        self._due: dict[NodeId, float] = {}
        self._asks: list[tuple[NodeId, Ask]] = []

    @property
    def chains(self) -> dict[StreamKey, Chain]:
        """All streams; for looking at only."""
        return self._chains

    @property
    def deadline(self) -> float:
        """When `tick` is due; math.inf for never."""
        return min(self._early.deadline, self._anchors.deadline)

    def messages_to_send(self) -> list[tuple[NodeId, Ask]]:
        """What is to be asked, and of whom."""
        asks, self._asks = self._asks, []
        return asks

    def receive(self, raw: bytes, sender: NodeId, now: float, at: datetime) -> list[TelemetryEvent]:
        """A batch came from a linked peer."""
        author: Author | None = None
        try:
            self._check_rate(sender, len(raw), now)
            author, batch = self._verify(raw)
            level = self._judge(author, batch, at)
            chain = self._chain_of(author, batch, now)
        except Refused as error:
            return [self._refuse(raw, sender, author, error, at)]
        events = self._put(chain, Held(author, sender, batch, raw), level, now, at)
        self._ask(now)
        return events

    def tick(self, now: float, at: datetime) -> list[TelemetryEvent]:
        """Gaps that did not fill, and anchors that nothing answers to."""
        events: list[TelemetryEvent] = []
        for key, seq in self._early.overdue(now).items():
            chain = self._chains[key]
            gap = Gap(author=key[0], name=chain.name, stream=key[1], first=chain.next, count=chain.skip_to(seq))
            events += [gap, *self._release(key, now, at)]
        self._ask(now)
        return [*events, *self._anchors.compare(self._chains, now)]

    def anchored(self, author: NodeId, streams: Iterable[Anchored], now: float) -> None:
        """The audit log of an author says so."""
        for says in streams:
            if (author, says.stream) in self._chains or self._expects(author, says.name):
                self._anchors.add(author, says, now)

    # --- checks, in order -----------------------------------------------------------------------------------------------

    def _check_rate(self, sender: NodeId, size: int, now: float) -> None:
        """Before anything costs: a flood of one sender takes nothing from the others."""
        due = self._due.get(sender, -math.inf)
        if not self._rate.allows(due, now):
            raise Refused(Reason.TOO_MANY, "more batches than one sender may send")
        if len(self._due) >= SENDERS_MAX:
            self._due = {one: then for one, then in self._due.items() if then > now}
        for _ in range(1 + size // RATED_BYTES if size <= BATCH_MAX else 1):
            due = self._rate.after(due, now)
        self._due[sender] = due

    def _verify(self, raw: bytes) -> tuple[Author, VerifiedHead]:
        """Size, form and signature."""
        if len(raw) > BATCH_MAX:
            raise Refused(Reason.TOO_LARGE, f"a batch has at most {BATCH_MAX} bytes")
        batch = parse_batch(raw)
        author = asked(lambda: self._authors.author_of(batch.kid))
        if author is None:
            raise Refused(Reason.WRONG_AUTHOR, "signed under an endorsement that we have not seen")
        return author, batch.verify(author.node_id, author.message_public, self._mesh_id)

    def _judge(self, author: Author, batch: VerifiedHead, at: datetime) -> int:
        """Its author's level, if it counts now, and its endorsement did when the batch was made."""
        made = datetime.fromtimestamp(batch.says.at / 1000, UTC)
        if not author.not_before <= made <= author.not_after:
            raise Refused(Reason.NOT_IN_FORCE, "made outside the life of its endorsement")
        level = asked(lambda: self._authors.level(author, at))
        if level < self._level:
            raise Refused(Reason.LEVEL_TOO_LOW, f"level {level}, and this collector takes {self._level} and better")
        return level

    def _check_place(self, chain: Chain, batch: VerifiedHead) -> None:
        place, seq = chain.place(batch), batch.says.seq
        if place is Place.REPEATED:
            raise Refused(Reason.TELEMETRY_REPEATED, f"batch {seq} was here before")
        if place is Place.FORKED:
            raise Refused(Reason.TELEMETRY_FORKED, f"two different batches are number {seq}")
        if place is Place.BROKEN:
            raise Refused(Reason.CHAIN_BROKEN, f"batch {seq} does not follow from the one before")

    def _check_clock(self, batch: VerifiedHead, at: datetime) -> None:
        age = at.timestamp() - batch.says.at / 1000
        if age < -CLOCK_TOLERANCE:
            raise Refused(Reason.CLOCK, f"made {-age:.0f} s in the future")
        if age > AGE_MAX + CLOCK_TOLERANCE:
            raise Refused(Reason.CLOCK, f"made {age:.0f} s ago")

    # --- where it stands in its stream ------------------------------------------------------------------------------------

    def _chain_of(self, author: Author, batch: VerifiedHead, now: float) -> Chain:
        """Its stream; a new one, if there is room. Those that are over by now make some."""
        key = author.node_id, batch.says.stream
        if key in self._chains:
            return self._chains[key]
        own = [one for one in self._chains if one[0] == author.node_id]
        over = [one for one in own if self._is_over(one, now)]
        if len(own) - len(over) >= STREAMS_MAX:
            raise Refused(Reason.TOO_MANY, f"more than {STREAMS_MAX} streams of one author")
        for one in over:
            del self._chains[one]
        return self._chains.setdefault(key, Chain(batch.says.name, heard=now))

    def _is_over(self, key: StreamKey, now: float) -> bool:
        """Whether the clock refuses by now whatever could be sent of it again."""
        return self._chains[key].heard + AGE_MAX + 2 * CLOCK_TOLERANCE < now and key not in self._early

    def _put(self, chain: Chain, one: Held, level: int, now: float, at: datetime) -> list[TelemetryEvent]:
        """Count a batch whose author counts, or let it wait for those before it."""
        key, seq = (one.author.node_id, one.batch.says.stream), one.batch.says.seq
        try:
            self._check_place(chain, one.batch)
            one.batch.verify_records()
        except Refused as error:
            if error.reason is Reason.TELEMETRY_ROOT:  # changed on its way: its author has the true one
                self._early.miss(key, now)
            return [self._refuse(one.raw, one.sender, one.author, error, at)]
        if seq > chain.next:
            self._early.hold(key, one, now)
            return []
        return [self._count(chain, one, level, now, at), *self._release(key, now, at)]

    def _count(self, chain: Chain, one: Held, level: int, now: float, at: datetime) -> TelemetryEvent:
        """The next batch of its stream: signed as it stands, so the stream goes on even where it does not count."""
        says = one.batch.says
        chain.advance(one.batch, now)
        try:
            self._check_clock(one.batch, at)
            samples = self.aggregates.add(one.author.node_id, level, says.at, one.batch.records)
        except Refused as error:
            return self._refuse(one.raw, one.sender, one.author, error, at)
        return Counted(
            author=one.author.node_id, level=level, name=says.name, stream=says.stream, seq=says.seq, samples=samples
        )

    def _release(self, key: StreamKey, now: float, at: datetime) -> list[TelemetryEvent]:
        """Those that have waited for the one that came."""
        chain, events = self._chains[key], list[TelemetryEvent]()
        while (one := self._early.take(key, chain.next)) is not None:
            seq = chain.next
            events.append(self._count_late(chain, one, now, at))
            if chain.next == seq:  # it does not count: what follows waits for one that does
                break
        self._early.moved(key, chain.next, now)
        return events

    def _count_late(self, chain: Chain, one: Held, now: float, at: datetime) -> TelemetryEvent:
        """Its author is judged anew, since it has waited."""
        try:
            level = self._judge(one.author, one.batch, at)
            self._check_place(chain, one.batch)
        except Refused as error:
            return self._refuse(one.raw, one.sender, one.author, error, at)
        return self._count(chain, one, level, now, at)

    def _ask(self, now: float) -> None:
        if now >= self._early.deadline:
            self._asks += self._early.asks(now, {key: chain.next for key, chain in self._chains.items()})

    def _refuse(self, raw: bytes, sender: NodeId, author: Author | None, error: Refused, at: datetime) -> Quarantined:
        one = Quarantined(
            at=at, sender=sender, author=None if author is None else author.node_id, reason=error.reason, detail=error.detail,
            raw=raw,
        )
        self.quarantine.add(one)
        return one
