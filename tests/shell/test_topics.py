"""Topics between whole nodes: what is kept comes to whoever comes late, once and in its author's order."""

from collections import defaultdict
from pathlib import Path

import pytest
import trio

from overlay.app.api import NodeApi, TopicItem
from overlay.app.subscriptions import TopicItems
from overlay.core.batches import parse_proof
from overlay.errors import UsageError
from overlay.testing import mesh
from tests.shell.folder_kit import enrolled, started


async def first(node: NodeApi, topic: str, count: int) -> list[TopicItem]:
    """So many items of a topic, from its beginning."""
    async with node.subscribe(topic) as items:
        with trio.fail_after(10):
            return [await anext(items) for _ in range(count)]


async def test_who_subscribes_late_gets_what_was_kept_in_its_order_and_then_what_comes() -> None:
    async with mesh("alice", "bob") as (alice, bob):
        for number in range(3):
            published = await alice.publish("news", bytes([number]))
            assert (published.seq, published.peers) == (number, 1)
        async with bob.subscribe("news") as items:
            with trio.fail_after(10):
                found = [await anext(items) for _ in range(3)]
                await alice.publish("news", b"late")
                found.append(await anext(items))
        assert [item.body for item in found] == [b"\0", b"\1", b"\2", b"late"]
        assert {(item.author.name, item.author.level) for item in found} == {("alice", 1)}


async def test_a_node_that_joins_late_gets_what_was_kept_even_of_who_has_gone(tmp_path: Path) -> None:
    folders = enrolled(tmp_path, "alice", "bob", "carol")
    async with started(folders[0]) as alice:
        async with started(folders[2], alice.node) as carol:
            for number in range(3):
                await carol.node.publish("news", b"carol %d" % number)
            assert len(await first(alice.node, "news", 3)) == 3
        async with started(folders[1], alice.node) as bob:
            found = await first(bob.node, "news", 3)
    assert [(item.author.name, item.seq, item.body) for item in found] == [
        ("carol", number, b"carol %d" % number) for number in range(3)
    ]
    assert {item.author.level for item in found} == {1}  # not linked: what her certificate says


async def test_what_was_published_before_a_restart_is_still_there_and_the_numbers_go_on(tmp_path: Path) -> None:
    (folder,) = enrolled(tmp_path, "alice")
    async with started(folder) as alice:
        await alice.node.publish("news", b"before")
    async with started(folder) as alice:
        assert (await alice.node.publish("news", b"after")).seq == 1
        assert [item.body for item in await first(alice.node, "news", 2)] == [b"before", b"after"]


async def test_two_authors_at_once_are_each_heard_in_their_own_order() -> None:
    heard: dict[str, list[bytes]] = defaultdict(list)
    async with mesh("alice", "bob", "carol") as (alice, bob, carol), carol.subscribe("news") as items:

        async def speak(node: NodeApi) -> None:
            for number in range(20):
                await node.publish("news", b"%d" % number)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(speak, alice)
                nursery.start_soon(speak, bob)
                for _ in range(40):
                    item = await anext(items)
                    heard[item.author.name].append(item.body)
    wanted = [b"%d" % number for number in range(20)]
    assert heard == {"alice": wanted, "bob": wanted}


async def test_one_topic_does_not_hear_another() -> None:
    async with mesh("alice", "bob") as (alice, bob), bob.subscribe("news") as items:
        await alice.publish("weather", b"rain")
        await alice.publish("news", b"stop press")
        with trio.fail_after(10):
            assert (await anext(items)).body == b"stop press"


async def test_a_transient_publication_reaches_who_listens() -> None:
    async with mesh("alice", "bob") as (alice, bob), bob.subscribe("now") as items:
        await alice.publish("now", b"first, kept: now bob knows alice's log")
        with trio.fail_after(10):
            assert (await anext(items)).seq == 0
            assert (await alice.publish("now", b"tick", transient=True)).peers == 1
            item = await anext(items)
        assert (item.body, item.seq) == (b"tick", None)


async def test_a_transient_publication_is_not_kept() -> None:
    async with mesh("alice", "bob") as (alice, bob):
        async with bob.subscribe("now") as items:
            await alice.publish("now", b"kept")
            with trio.fail_after(10):
                assert (await anext(items)).body == b"kept"
                await alice.publish("now", b"gone", transient=True)
                assert (await anext(items)).body == b"gone"
            await alice.publish("now", b"kept, too")
        for node in (alice, bob):
            assert [item.body for item in await first(node, "now", 2)] == [b"kept", b"kept, too"]


async def test_a_cancelled_wait_for_an_item_loses_nothing() -> None:
    async with mesh("alice") as (alice,), alice.subscribe("news") as items:
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(items)
        await alice.publish("news", b"one")
        with trio.fail_after(5):
            assert (await anext(items)).body == b"one"


async def test_a_subscriber_that_is_far_behind_loses_only_what_does_not_fit() -> None:
    async with mesh("alice") as (alice,), alice.subscribe("now") as slow, alice.subscribe("now") as quick:
        for number in range(300):  # of 32 KiB: more than the 8 MiB that may wait
            body = number.to_bytes(4, "big") * 8192
            await alice.publish("now", body, transient=True)
            assert (await anext(quick)).body == body
        assert isinstance(slow, TopicItems)
        found = [(await anext(slow)).body[:4] for _ in range(300 - slow.dropped)]
    assert 200 < len(found) < 300
    assert found == [number.to_bytes(4, "big") for number in range(len(found))]


async def test_many_at_once_arrive_whole_and_in_their_order_and_each_can_be_shown() -> None:
    bodies = [b"%d" % number for number in range(5000)]
    async with mesh("alice", "bob") as (alice, bob), bob.subscribe("now") as items:
        await alice.publish("now", b"kept: now bob knows alice's log")
        with trio.fail_after(20):
            assert (await anext(items)).seq == 0
            for body in bodies:
                assert (await alice.publish("now", body, transient=True)).peers == 1
            found = [await anext(items) for _ in bodies]
        assert [item.body for item in found] == bodies
        proof = parse_proof(found[-1].proof())
        assert proof.message.endswith(bodies[-1])
        assert proof.path  # it shared its signature with others


async def test_what_was_published_last_leaves_before_the_node_ends(tmp_path: Path) -> None:
    folders = enrolled(tmp_path, "alice", "bob")
    async with started(folders[0]) as bob, bob.node.subscribe("now") as items:
        async with started(folders[1], bob.node) as alice:
            await alice.node.publish("now", b"kept")
            with trio.fail_after(10):
                await anext(items)
            await alice.node.publish("now", b"goodbye", transient=True)
        with trio.fail_after(10):
            assert (await anext(items)).body == b"goodbye"


@pytest.mark.parametrize(("topic", "size"), [("", 1), ("x" * 129, 1), ("news", 60 * 1024)])
@pytest.mark.parametrize("transient", [False, True])
async def test_what_cannot_be_published_is_the_callers_error(topic: str, size: int, transient: bool) -> None:
    async with mesh("alice") as (alice,):
        with pytest.raises(UsageError):
            await alice.publish(topic, bytes(size), transient=transient)
        assert (await alice.publish("news", b"next")).seq == 0
