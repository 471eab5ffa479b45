"""Telemetry over real links: what is measured arrives, is shown under its author, and what is not proven never is."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import trio

from overlay.app.client import connect_local
from overlay.app.telemetry.names import BATCH, MISSING
from overlay.app.telemetry.sending import Sending
from overlay.core.keys import NodeId
from overlay.core.telemetry import anchors_seen
from overlay.core.telemetry.asks import Ask
from overlay.core.telemetry.records import Kind
from overlay.core.wire import decode, encode
from overlay.errors import HostLacks, NotAllowed, UsageError
from overlay.testing import mesh
from tests.shell.telemetry_kit import (
    HUB,
    counted,
    get,
    needs_prometheus_client,
    needs_psutil,
    refused,
    sample,
    until,
    values,
    world,
)


def edited(raw: bytes) -> bytes:
    """The same head over other records."""
    batch = decode(raw, limit=len(raw))
    batch[2] = [bytes([batch[2][0][0] ^ 1]) + batch[2][0][1:], *batch[2][1:]]
    return encode(batch)


def batch_of(stream: Sending, seq: int) -> bytes:
    """As the sender keeps it."""
    (cut,) = stream._machine.receive(Ask(stream.stream, seq, 1))
    return cut.raw


@needs_prometheus_client
async def test_what_is_recorded_is_counted_shown_and_exported_under_author_and_level() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    async with world(page=True) as it:
        it.stream.record([sample("door_open", 1, door='7"b\\\n'), sample("visits_total", 12, Kind.COUNTER)])
        await counted(it.hub, "visits_total", "alice", 12)
        status, text = await trio.to_thread.run_sync(get, it.page)
        assert status == 200
        families = {family.name: family for family in text_string_to_metric_families(text)}
        (door,) = families["door_open"].samples
        assert (door.value, door.labels) == (1, {"door": '7"b\\\n', "author": "alice", "level": "1"})
        assert families["visits"].type == "counter"
        assert families["overlay_telemetry_batches"].samples[0].labels == {"author": "alice", "level": "1", "stream": "test"}
        assert await trio.to_thread.run_sync(get, it.page, "/") == (404, "look at /metrics\n")


async def test_a_metric_edited_in_flight_is_in_quarantine_and_in_no_sum() -> None:
    async with world() as it:
        hub = await it.mallory.wait_peer("hub")
        it.stream.record([sample("heat", 20)])
        await counted(it.hub, "heat", "alice", 20)
        await hub.call(BATCH, edited(batch_of(it.stream, 0)))
        await refused(it.hub, "mallory", "TELEMETRY_REPEATED")
        assert values(await it.hub.telemetry.report(), "heat") == {"alice": 20}


async def test_whoever_hands_over_a_batch_of_another_is_not_its_author() -> None:
    async with mesh("hub", "alice", "mallory") as (hub, alice, mallory), hub.telemetry.collect():
        link = await mallory.wait_peer("hub")
        async with alice.telemetry.send("test", to=("node:mallory",), host=False, node=False) as stream:
            stream.record([sample("heat", 20)])
            await until(lambda: stream._machine.size == 1)
            await link.call(BATCH, edited(batch_of(stream, 0)))
            await refused(hub, "mallory", "TELEMETRY_ROOT")
            assert values(await hub.telemetry.report(), "heat") == {}
            await link.call(BATCH, batch_of(stream, 0))
            assert values(await hub.telemetry.report(), "heat") == {"alice": 20}
            (kept,) = (await hub.telemetry.report(kept=True)).kept
            assert (kept.sender, kept.author, kept.reason) == ("mallory", "alice", "TELEMETRY_ROOT")


async def test_an_author_that_does_not_count_any_more_is_in_no_graph() -> None:
    async with world() as it:
        it.stream.record([sample("heat", 20)])
        await counted(it.hub, "heat", "alice", 20)
        await it.hub.authority.revoke(["alice"])

        async def is_gone() -> bool:
            report = await it.hub.telemetry.report()
            return values(report, "heat") == {} and report.streams == ()

        await until(is_gone)


async def test_a_batch_of_a_revoked_author_does_not_count_whoever_hands_it_over() -> None:
    async with mesh("hub", "alice", "mallory") as (hub, alice, mallory), hub.telemetry.collect():
        async with alice.telemetry.send("test", to=("node:mallory",), host=False, node=False) as stream:
            stream.record([sample("heat", 20)])
            await until(lambda: stream._machine.size == 1)
            await hub.authority.revoke(["alice"])
            await until(lambda: "alice" not in {peer.name for peer in hub.peers})
            await (await mallory.wait_peer("hub")).call(BATCH, batch_of(stream, 0))
        await refused(hub, "mallory", "REVOKED")
        assert values(await hub.telemetry.report(), "heat") == {}


async def test_an_author_below_the_level_of_the_collector_does_not_count() -> None:
    async with (
        mesh("hub", "alice") as (hub, alice),
        hub.telemetry.collect(level=2),
        alice.telemetry.send("test", to=HUB, host=False, node=False) as stream,
    ):
        stream.record([sample("heat", 20)])
        await refused(hub, "alice", "LEVEL_TOO_LOW")
        assert values(await hub.telemetry.report(), "heat") == {}


async def test_what_an_authors_log_says_and_nobody_has_sent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors_seen, "WITHHELD_AFTER", 0.0)
    async with (
        mesh("hub", "alice", "mallory") as (hub, alice, _mallory),
        hub.telemetry.collect(expect=("node:alice",)),
    ):
        async with alice.telemetry.send("test", to=("node:mallory",), host=False, node=False) as stream:
            stream.record([sample("heat", 20)])

        async def is_told() -> bool:
            return (await hub.telemetry.report()).contradicted == (("alice", "TELEMETRY_WITHHELD", 1),)

        await until(is_told)


async def test_a_collector_counts_what_it_measures_itself() -> None:
    async with mesh("hub") as (hub,), hub.telemetry.send("test", to=HUB, host=False, node=False) as stream:
        stream.record([sample("heat", 20)])
        await until(lambda: stream._machine.size == 1)
        async with hub.telemetry.collect():
            stream.record([sample("heat", 21)])
            await counted(hub, "heat", "hub", 21)
            (row,) = (await hub.telemetry.report()).streams
            assert (row.batches, row.missing) == (2, 0)


async def test_batches_from_before_a_collector_began_are_fetched() -> None:
    async with mesh("hub", "alice") as (hub, alice), alice.telemetry.send("test", to=HUB, host=False, node=False) as stream:
        for number in range(3):
            stream.record([sample("step", number)])
            await until(lambda: stream._machine.size == number + 1)  # noqa: B023
        async with hub.telemetry.collect():
            await counted(hub, "step", "alice", 2)
            (row,) = (await hub.telemetry.report()).streams
            assert (row.batches, row.missing) == (3, 0)


async def test_a_batch_that_was_lost_is_asked_for_and_comes() -> None:
    async with world() as it:
        link = await it.mallory.wait_peer("hub")
        it.stream._cursors[it.hub.node_id] = 1  # as if the hub had had the first
        it.stream.record([sample("step", 0)])
        await until(lambda: it.stream._machine.size == 1)
        it.stream.record([sample("step", 1)])
        await counted(it.hub, "step", "alice", 1)
        (row,) = (await it.hub.telemetry.report()).streams
        assert (row.batches, row.missing) == (2, 0)
        assert link.name == "hub"


async def test_only_whom_it_is_meant_for_gets_batches_again() -> None:
    async with (
        mesh("hub", "alice", "mallory") as (hub, alice, mallory),
        alice.telemetry.send("test", to=HUB, host=False, node=False) as stream,
    ):
        stream.record([sample("heat", 20)])
        await until(lambda: stream._machine.size == 1)
        ask = Ask(stream.stream, 0, 5).pack()
        found = {}
        for node in (hub, mallory):
            async with (await node.wait_peer("alice")).call_stream(MISSING, ask) as parts:
                found[node.name] = [part async for part in parts]
        assert found == {"hub": [batch_of(stream, 0)], "mallory": []}


async def test_a_node_that_does_not_collect_takes_nothing() -> None:
    async with mesh("hub", "alice") as (hub, alice):
        with pytest.raises(NotAllowed):
            await (await alice.wait_peer("hub")).call(BATCH, b"x")
        with pytest.raises(UsageError, match="collects no telemetry"):
            await hub.telemetry.report()
        async with hub.telemetry.collect():
            with pytest.raises(UsageError, match="collects already"):
                async with hub.telemetry.collect():
                    pass


async def test_anchors_stand_in_the_log_of_their_sender() -> None:
    async with mesh("hub", "alice") as (hub, alice), hub.telemetry.collect():
        async with alice.telemetry.send("test", to=HUB, host=False, node=False) as stream:
            stream.record([sample("heat", 20)])
            await counted(hub, "heat", "alice", 20)
        (entry,) = [one for one in await alice.audit.read(node="alice") if one.type == "telemetry"]
        assert entry.body["streams"][0][0] == "test"


@needs_psutil
async def test_host_and_node_are_measured() -> None:
    async with mesh("hub", "alice") as (hub, alice), hub.telemetry.collect(), alice.telemetry.send(to=HUB):
        await counted(hub, "overlay_links", "alice", 1)
        names = {row.series.name for row in (await hub.telemetry.report()).rows}
        assert {"host_cpu_seconds_total", "host_memory_available_bytes", "host_disk_free_bytes", "host_load1"} <= names


@needs_prometheus_client
async def test_a_registry_of_the_user_is_read_and_its_labels_do_not_hide_ours() -> None:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    registry = CollectorRegistry()
    Counter("orders", "Orders.", ["author"], registry=registry).labels("eve").inc(3)
    Gauge("nothing", "Not a number.", registry=registry).set(float("nan"))
    Histogram("wait_seconds", "Waiting.", registry=registry, buckets=(1, 2)).observe(1.5)
    async with (
        mesh("hub", "alice") as (hub, alice),
        hub.telemetry.collect(listen="0") as page,
        alice.telemetry.send("shop", to=HUB, host=False, node=False, registry=registry) as stream,
    ):
        await counted(hub, "wait_seconds_count", "alice", 1)
        assert stream.left_out == 1
        _, text = await trio.to_thread.run_sync(get, page)
        assert re.search(r'^orders_total\{author="alice",exported_author="eve",level="1"\} 3\.0$', text, re.MULTILINE)
        assert 'wait_seconds_bucket{author="alice",le="2.0",level="1"} 1.0' in text


@needs_prometheus_client
async def test_what_a_collector_says_of_itself_cannot_be_said_by_others() -> None:
    async with world(page=True) as it:
        it.stream.record([sample("overlay_telemetry_quarantined_total", 99, Kind.COUNTER), sample("heat", 1)])
        await counted(it.hub, "heat", "alice", 1)
        _, text = await trio.to_thread.run_sync(get, it.page)
        assert "99" not in [line.rpartition(" ")[2] for line in text.splitlines()]
        assert "99.0" not in text


async def test_another_process_sees_the_same() -> None:
    async with world() as it:
        it.stream.record([sample("heat", 20)])
        await counted(it.hub, "heat", "alice", 20)
        async with connect_local(it.hub.folder) as node:
            report = await node.telemetry.report(kept=True)
            assert report.rows == (await it.hub.telemetry.report()).rows


@pytest.mark.parametrize("url", ["ftp://host", "http://", "nonsense", "http://host:99999"])
async def test_an_endpoint_that_is_none_is_refused_with_a_hint(url: str) -> None:
    async with mesh("hub") as (hub,):
        with pytest.raises(UsageError, match="not an OTLP endpoint"):
            async with hub.telemetry.collect(otlp=url):
                pass


@needs_prometheus_client
async def test_a_page_that_cannot_be_opened_is_said() -> None:
    async with mesh("hub") as (hub,), hub.telemetry.collect(listen="0") as page:
        port = page.split(":")[2].split("/")[0]
        assert page.startswith("http://127.0.0.1:")
        async with mesh("other") as (other,):
            with pytest.raises(HostLacks, match="cannot listen"):
                async with other.telemetry.collect(listen=port):
                    pass


class _Talker:
    """A peer that answers a question with batches without end."""

    def __init__(self, node_id: NodeId, raw: bytes) -> None:
        self.node_id, self.raw, self.sent = node_id, raw, 0

    @asynccontextmanager
    async def call_stream(self, *_: object, timeout: float) -> AsyncIterator[AsyncIterator[bytes]]:
        async def parts() -> AsyncIterator[bytes]:
            while self.sent < 1000:
                self.sent += 1
                await trio.lowlevel.checkpoint()
                yield self.raw

        assert timeout > 0
        yield parts()


async def test_whoever_answers_with_more_than_was_asked_for_is_not_listened_to() -> None:
    async with world() as it:
        it.stream.record([sample("heat", 20)])
        await counted(it.hub, "heat", "alice", 20)
        collecting, alice = it.hub.telemetry._collecting, await it.hub.wait_peer("alice")
        assert collecting is not None
        talker = _Talker(alice.node_id, batch_of(it.stream, 0))
        collecting._engine = SimpleNamespace(peers=[talker], parts=it.hub.engine.parts, emit=it.hub.engine.emit)  # type: ignore[assignment]
        try:
            await collecting._ask(alice.node_id, Ask(it.stream.stream, 1, 3))
        finally:
            collecting._engine = it.hub.engine
        assert talker.sent == 3
