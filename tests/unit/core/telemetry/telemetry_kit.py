"""Senders and a collector of telemetry, and batches that nobody honest makes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from overlay.core.batches import leaves_of
from overlay.core.keys import NodeId
from overlay.core.merkle import root_of
from overlay.core.mesh.topics import Author
from overlay.core.telemetry.batch import Head, parse_batch, sign_batch
from overlay.core.telemetry.collector import TelemetryCollector
from overlay.core.telemetry.events import Counted, TelemetryEvent
from overlay.core.telemetry.quarantine import Quarantined
from overlay.core.telemetry.records import Kind, Sample, Series
from overlay.core.telemetry.sender import Cut, TelemetrySender
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import GENESIS, Reason
from tests.unit.core.authority_kit import Member, make_member, make_mesh
from tests.unit.core.session_kit import local

MESH = make_mesh()
ALICE, BOB = make_member(MESH, "alice"), make_member(MESH, "bob")
AT = MESH.at
STREAM = bytes(range(16))
LOAD = Series.of("load", {"core": "0"})


def author(member: Member) -> Author:
    life = member.peer.endorsement
    return Author(
        node_id=member.node_id, name=member.name, message_public=member.message.public_key,
        not_before=life.not_before, not_after=life.not_after, logs=(),
    )  # fmt: skip


class Known:
    """Members by their endorsements; tests change what counts of them."""

    def __init__(self, *members: Member, level: int = 1) -> None:
        self.members = {member.kid: author(member) for member in members}
        self.levels = {member.node_id: level for member in members}
        self.refused: dict[NodeId, Reason] = {}
        self.fails = False

    def author_of(self, kid: bytes) -> Author | None:
        return self.members.get(kid)

    def level(self, one: Author, at: datetime) -> int:
        if self.fails:
            raise ZeroDivisionError
        if one.node_id in self.refused:
            raise Refused(self.refused[one.node_id])
        return self.levels[one.node_id]


class World:
    """One collector, and its clock."""

    def __init__(self, *members: Member, **options: Any) -> None:
        self.known = Known(*(members or (ALICE, BOB)))
        self.collector = TelemetryCollector(MESH.mesh_id, self.known, **options)
        self.now = 1000.0
        self.at = AT

    def wait(self, seconds: float) -> list[TelemetryEvent]:
        self.now += seconds
        self.at += timedelta(seconds=seconds)
        return self.collector.tick(self.now, self.at)

    def give(self, raw: bytes, sender: Member = ALICE) -> list[TelemetryEvent]:
        return self.collector.receive(raw, sender.node_id, self.now, self.at)

    def refused(self, raw: bytes, sender: Member = ALICE) -> Reason:
        """Hand over a batch that must not count."""
        before = self.totals()
        (event,) = self.give(raw, sender)
        assert isinstance(event, Quarantined)
        assert self.totals() == before
        assert list(self.collector.quarantine)[-1:] == [event] or event.reason is Reason.TOO_MANY
        return event.reason

    def counts(self, raw: bytes, sender: Member = ALICE) -> list[int]:
        """Hand over a batch that must count; the numbers of all that count now."""
        events = self.give(raw, sender)
        assert events and all(isinstance(event, Counted) for event in events)
        return [event.seq for event in events if isinstance(event, Counted)]

    def totals(self) -> dict[tuple[NodeId, str], float]:
        return {(who, one.series.name): one.total for who, one in self.collector.aggregates}


def sender(member: Member = ALICE, *, stream: bytes = STREAM, name: str = "host") -> TelemetrySender:
    return TelemetrySender(name, stream, own=local(member), mesh_id=MESH.mesh_id, now=0.0)


def cut(one: TelemetrySender, *values: float, at: float | None = None, series: Series = LOAD) -> bytes:
    """The next batch of a sender, with these values."""
    at = AT.timestamp() if at is None else at
    one.record([Sample(series, Kind.GAUGE, value, at) for value in values], 0.0)
    (made,) = one.tick(2.0, at)
    assert isinstance(made, Cut)
    return made.raw


def forged(records: Sequence[bytes], member: Member = ALICE, mesh_id: bytes | None = None, **changes: Any) -> bytes:
    """Well signed by a member, with another head than its records ask for."""
    head = Head(
        author=member.node_id, name="host", stream=STREAM, seq=0, prev=GENESIS, at=int(AT.timestamp() * 1000),
        count=len(records), dropped=0, root=root_of(leaves_of(records)),
    )  # fmt: skip
    raw, _ = sign_batch(replace(head, **changes), records, own=local(member), mesh_id=mesh_id or MESH.mesh_id)
    return raw


def with_records(raw: bytes, records: Sequence[bytes]) -> bytes:
    """The same head beside other records: what one who hands it on can do."""
    return make_map(parse_batch(raw).signed.raw, list(records))


def records_of(raw: bytes) -> list[bytes]:
    return list(parse_batch(raw).records)
