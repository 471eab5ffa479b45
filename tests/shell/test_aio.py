"""`overlay.aio`: real nodes, used from asyncio. Every test is a plain function that runs a loop of its own."""

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import overlay.aio as aio
import overlay.blocking as blocking
from overlay.errors import NotAllowed, OverlayError, RemoteError, StateInUse, StreamReset, UsageError
from overlay.events import NodeEvent, PeerDown
from overlay.net.request import Request
from overlay.registry import Reason
from tests.shell.bridge_kit import CONFIG, PATIENCE, Heard, Pair, pair, script, seeded
from tests.shell.folder_kit import ALONE

__all__ = ["pair"]

Linked = tuple[aio.LocalNode, aio.LocalNode, aio.Peer]


async def shout(request: Request) -> bytes:
    await asyncio.sleep(0)
    return request.body.upper()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """In a loop of its own, and in time."""
    asyncio.run(asyncio.wait_for(test(), 3 * PATIENCE))


@asynccontextmanager
async def linked(pair: Pair, **services: aio.Service) -> AsyncIterator[Linked]:
    """alice, who serves this, and bob, and what bob has of alice."""
    async with (
        aio.open_node(pair.alice, config=ALONE, services={"shout": shout, **services}) as alice,
        aio.open_node(pair.bob, config=seeded(alice.port)) as bob,
    ):
        await alice.wait_peer("bob")
        yield alice, bob, await bob.wait_peer("alice")


# --- what a node can do ---------------------------------------------------------------------------------------------


def test_two_nodes_see_each_other_and_call_each_other(pair: Pair) -> None:
    async def test() -> None:
        async with linked(pair) as (alice, bob, peer):
            assert (peer.name, peer.node_id, peer.level) == ("alice", alice.node_id, 1)
            assert [one.name for one in await bob.wait_members(2)] == ["alice"]
            assert [one.name for one in await bob.peers()] == ["alice"]
            assert (bob.name, bob.mesh_name, bob.mesh_id) == ("bob", "home", alice.mesh_id)
            assert await peer.call("shout", b"hello") == b"HELLO"
            assert [link.name for link in (await bob.status()).links] == ["alice"]

    run(test)


def test_what_one_publishes_the_other_reads(pair: Pair) -> None:
    async def test() -> None:
        async with linked(pair) as (alice, bob, _):
            assert (await alice.publish("news", b"one")).seq == 0
            async with bob.subscribe("news") as news:
                await alice.publish("news", b"two")
                assert (await anext(news)).body == b"one"
                async for item in news:
                    assert item.body == b"two"
                    break

    run(test)


def test_an_entry_is_appended_replicated_read_and_followed(pair: Pair) -> None:
    async def test() -> None:
        async with linked(pair) as (alice, bob, _), bob.audit.follow() as entries:
            entry = await alice.audit.append("door.opened", {"door": "7b"})
            assert await alice.audit.wait_replicated(entry) == 1
            assert entry.hash in [one.hash for one in await bob.audit.read(node="alice")]
            assert await bob.audit.wait_witnessed(entry) == "1 of 1, tolerates 0 liars"
            while (await anext(entries)).hash != entry.hash:
                pass

    run(test)


def test_a_program_shares_the_node_that_runs_here(pair: Pair) -> None:
    async def test() -> None:
        async with linked(pair) as (_, bob, _), aio.connect_local(pair.bob) as again:
            assert await (await again.wait_peer("alice")).call("shout", b"hello") == b"HELLO"
            assert (again.name, again.mesh_id, len(await again.peers())) == ("bob", bob.mesh_id, 1)
            await again.stop()
            await bob.wait_stopped()

    run(test)


def test_observers_and_signal_handlers_run_in_the_loop(pair: Pair) -> None:
    async def test() -> None:
        heard: asyncio.Queue[tuple[NodeEvent, asyncio.AbstractEventLoop]] = asyncio.Queue()

        def observe(event: NodeEvent) -> None:
            heard.put_nowait((event, asyncio.get_running_loop()))

        async with aio.open_node(pair.alice, config=ALONE, observers=[observe]) as alice:
            assert (await heard.get())[1] is asyncio.get_running_loop()
            asyncio.get_running_loop().call_soon(alice.ask_to_stop)
            await alice.wait_stopped()

    run(test)


# --- errors and services --------------------------------------------------------------------------------------------


def test_errors_are_those_of_the_library(pair: Pair) -> None:
    async def fail(_: Request) -> bytes:
        raise ValueError("no such door")

    async def refuse(_: Request) -> bytes:
        raise NotAllowed("not you")

    async def give_up(_: Request) -> bytes:
        raise asyncio.CancelledError

    async def test() -> None:
        async with linked(pair, fail=fail, refuse=refuse, give_up=give_up) as (_, bob, peer):
            with pytest.raises(RemoteError, match="ValueError: no such door"):
                await peer.call("fail")
            with pytest.raises(NotAllowed):
                await peer.call("refuse")
            with pytest.raises(RemoteError, match="the service was cancelled"):
                await peer.call("give_up")
            with pytest.raises(StateInUse):
                async with aio.open_node(pair.bob):
                    pass
            with pytest.raises(OverlayError):
                async with bob.subscribe(""):
                    pass
            assert await peer.call("shout", b"still there") == b"STILL THERE"

    run(test)


def test_a_service_that_ends_its_program_does_not_break_the_node(pair: Pair) -> None:
    async def leave(_: Request) -> bytes:
        raise SystemExit(3)

    async def test() -> None:
        async with linked(pair, leave=leave) as (_, _, peer):
            await peer.call("leave")

    with pytest.raises(SystemExit) as found:
        run(test)
    assert found.value.code == 3
    run(lambda: _open_and_close(pair))


async def _open_and_close(pair: Pair) -> None:
    async with aio.open_node(pair.alice, config=ALONE), aio.open_node(pair.bob, config=ALONE):
        pass


def test_services_run_at_once_in_the_loop_and_may_use_their_node(pair: Pair) -> None:
    async def test() -> None:
        met, home = asyncio.Barrier(3), asyncio.get_running_loop()
        nodes: list[aio.LocalNode] = []

        async def meet(request: Request) -> bytes:
            assert asyncio.get_running_loop() is home
            await met.wait()
            return (await nodes[0].wait_peer(request.peer.name)).name.encode()

        async with linked(pair, meet=meet) as (alice, _, peer):
            nodes.append(alice)
            *answers, _ = await asyncio.gather(peer.call("meet"), peer.call("meet"), met.wait())
            assert answers == [b"bob", b"bob"]

    run(test)


def test_a_service_is_cancelled_when_its_node_is_closed_and_has_a_moment_to_clean_up(pair: Pair) -> None:
    async def test() -> None:
        began, told = asyncio.Event(), []

        async def stay(_: Request) -> bytes:
            began.set()
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0)
                told.append("cleaned up")
            return b""

        async with linked(pair, stay=stay) as (_, _, peer):
            call = asyncio.create_task(peer.call("stay"))
            await began.wait()
        assert told == ["cleaned up"]
        with pytest.raises(OverlayError):
            await call

    run(test)


def test_a_service_that_ignores_its_cancellation_does_not_hold_up_the_node(pair: Pair) -> None:
    async def test() -> None:
        began, release = asyncio.Event(), asyncio.Event()

        async def stay(_: Request) -> bytes:
            began.set()
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return b""

        async with linked(pair, stay=stay) as (_, _, peer):
            call = asyncio.create_task(peer.call("stay"))
            await began.wait()
        release.set()
        with pytest.raises(OverlayError):
            await call

    run(test)


# --- cancellation ---------------------------------------------------------------------------------------------------


def test_a_task_that_is_cancelled_leaves_nothing_behind_in_trio(pair: Pair) -> None:
    async def test() -> None:
        async with aio.open_node(pair.alice, config=ALONE) as alice:
            waiting = asyncio.create_task(alice.wait_peer("bob"))
            await alice.status()  # trio has begun with the other
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await asyncio.to_thread(_tasks_of, alice) == 0

    run(test)


def _tasks_of(node: aio.LocalNode) -> int:
    """How many operations of others run in its trio, this one aside."""

    async def count() -> int:
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        return len(nursery.child_tasks) - 1

    return node._portal.start(count).done.result(PATIENCE)


def test_many_cancellations_and_results_at_once_end_each_task_once(pair: Pair) -> None:
    async def test() -> None:
        async with linked(pair) as (_, _, peer):
            calls = [asyncio.create_task(peer.call("shout", b"%d" % number)) for number in range(60)]
            for turn, call in enumerate(calls):
                if turn % 3 == 0:
                    await asyncio.sleep(0)
                if turn % 2:
                    call.cancel()
            found = await asyncio.gather(*calls, return_exceptions=True)
            for number, answer in enumerate(found):
                assert answer == b"%d" % number or (number % 2 and isinstance(answer, asyncio.CancelledError))

    run(test)


def test_an_item_that_comes_when_nobody_waits_any_more_is_not_lost(pair: Pair) -> None:
    async def test() -> None:
        async with aio.open_node(pair.alice, config=ALONE) as alice, alice.subscribe("news") as news:
            for number in range(20):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(news), 0.001)
                await alice.publish("news", bytes([number]))
                assert (await anext(news)).body == bytes([number])

    run(test)


def test_two_tasks_that_share_a_subscription_get_each_item_once(pair: Pair) -> None:
    async def test() -> None:
        async with aio.open_node(pair.alice, config=ALONE) as alice, alice.subscribe("news") as news:

            async def read() -> list[bytes]:
                return [(await anext(news)).body for _ in range(10)]

            readers = [asyncio.create_task(read()) for _ in range(2)]
            for number in range(20):
                await alice.publish("news", bytes([number]))
            found = [body for reader in readers for body in await reader]
            assert sorted(found) == [bytes([number]) for number in range(20)]

    run(test)


def test_an_opening_that_is_cancelled_is_given_up(pair: Pair) -> None:
    async def test() -> None:
        async def opened() -> None:
            async with aio.open_node(pair.alice, config=ALONE):
                raise AssertionError("it opened in one turn of the loop")

        opening = asyncio.create_task(opened())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await _open_and_close(pair)  # the folder is free

    run(test)


def test_a_cancelled_block_closes_its_node_first(pair: Pair) -> None:
    async def test() -> None:
        heard = Heard()
        async with aio.open_node(pair.alice, config=ALONE, observers=[heard]) as alice:

            async def stay() -> None:
                async with aio.open_node(pair.bob, config=seeded(alice.port)) as bob:
                    await bob.wait_peer("alice")
                    await asyncio.Event().wait()

            staying = asyncio.create_task(stay())
            await alice.wait_peer("bob")
            staying.cancel()
            staying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await staying
            assert (await asyncio.to_thread(heard.wait, PeerDown)).reason is Reason.SHUTDOWN

    run(test)


# --- answers in parts, and streams ----------------------------------------------------------------------------------


def test_an_async_generator_answers_in_parts(pair: Pair) -> None:
    async def test() -> None:
        ended = asyncio.Event()

        async def count(request: Request) -> AsyncGenerator[bytes, None]:
            try:
                for number in range(int(request.body)):
                    await asyncio.sleep(0)
                    yield b"%d" % number
            finally:
                ended.set()

        async def break_off(_: Request) -> AsyncGenerator[bytes, None]:
            yield b"one"
            raise ValueError("and no more")

        async with linked(pair, count=count, break_off=break_off) as (_, _, peer):
            async with peer.call_stream("count", b"3") as parts:
                assert [part async for part in parts] == [b"0", b"1", b"2"]
            await ended.wait()
            async with peer.call_stream("break_off") as parts:
                assert await anext(parts) == b"one"
                with pytest.raises(RemoteError, match="and no more"):
                    await anext(parts)
            ended.clear()
            async with peer.call_stream("count", b"1000000") as parts:
                assert await anext(parts) == b"0"
            await ended.wait()  # who leaves the block ends the generator

    run(test)


async def echo(stream: aio.Stream) -> None:
    """What comes, louder."""
    await stream.send_all(f"{stream.peer.name} {stream.name} {stream.body.decode()} {stream.signed}\n".encode())
    async for data in stream:
        await stream.send_all(data.upper())
    await stream.send_eof()
    with pytest.raises(UsageError, match="closed for sending"):
        await stream.send_all(b"x")


async def refuse_stream(stream: aio.Stream) -> None:
    raise NotAllowed(stream.name)


async def impatient(stream: aio.Stream) -> None:
    """Give up waiting again and again, and lose nothing."""
    found = b""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.receive_some(1), 0.001)
    await stream.send_all(b"go on ")
    while len(found) < 6:
        reading = asyncio.create_task(stream.receive_some(1))
        await asyncio.sleep(0)
        reading.cancel()
        found += b"".join(data for data in await asyncio.gather(reading, return_exceptions=True) if isinstance(data, bytes))
    await stream.send_all(found)


@asynccontextmanager
async def linked_for_streams(pair: Pair) -> AsyncIterator[aio.Peer]:
    """What bob has of alice, who has these handlers."""
    handlers = {"echo": echo, "refuse": refuse_stream, "impatient": impatient}
    async with (
        aio.open_node(pair.alice, config=ALONE, streams=handlers) as alice,
        aio.open_node(pair.bob, config=seeded(alice.port)) as bob,
    ):
        yield await bob.wait_peer("alice")


@pytest.mark.parametrize(("name", "answer"), [("echo", b"bob echo first True\nABCDEF"), ("impatient", b"go on abcdef")])
def test_a_stream_is_read_and_written_in_the_loop(pair: Pair, name: str, answer: bytes) -> None:
    async def test() -> None:
        async with linked_for_streams(pair) as peer, peer.open_stream(name, b"first") as stream:
            found = await stream.receive_some()
            await stream.send_all(b"abc")
            await stream.send_all(bytearray(b"def"))
            await stream.send_eof()
            async for data in stream:
                found += data
            assert found == answer

    run(test)


def test_a_stream_that_is_refused_says_so(pair: Pair) -> None:
    async def test() -> None:
        async with linked_for_streams(pair) as peer:
            async with peer.open_stream("refuse") as stream:
                with pytest.raises(StreamReset, match="not allowed"):
                    await stream.receive_some()
            with pytest.raises(UsageError, match="the stream is closed"):
                await stream.receive_some()

    run(test)


# --- the end --------------------------------------------------------------------------------------------------------


def test_whatever_is_used_after_its_block_says_so(pair: Pair) -> None:
    async def test() -> None:
        async with linked(pair) as (_, bob, peer):
            async with bob.subscribe("news") as news:
                pass
            with pytest.raises(UsageError, match="the subscription is closed"):
                await anext(news)
            late = bob.subscribe("news")
            waiting = asyncio.create_task(bob.wait_peer("nobody"))
            await bob.status()
        for use in (bob.status, lambda: peer.call("shout"), lambda: bob.audit.append("x"), late.__aenter__, lambda: waiting):
            with pytest.raises(UsageError, match="the node is closed"):
                await use()

    run(test)


def test_a_node_whose_loop_has_ended_answers_no_calls_and_says_goodbye_when_it_is_garbage(pair: Pair) -> None:
    kept: list[object] = []

    async def forget(port: int) -> None:
        opened = aio.open_node(pair.bob, config=seeded(port), services={"shout": shout}, observers=[kept.append])
        bob = await opened.__aenter__()
        await bob.wait_peer("alice")
        kept.append(bob)

    heard = Heard()
    with blocking.open_node(pair.alice, config=ALONE, observers=[heard]) as alice:
        asyncio.run(forget(alice.port))
        with pytest.raises(RemoteError, match="loop is closed"):
            alice.wait_peer("bob", timeout=PATIENCE).call("shout")
        kept.clear()
        gc.collect()
        assert heard.wait(PeerDown).reason is Reason.SHUTDOWN


WAITS = CONFIG + """
import asyncio, overlay.aio
async def stay(request):
    print("called", flush=True)
    await asyncio.Event().wait()
async def main():
    async with overlay.aio.open_node(sys.argv[1], config=config, services={"stay": stay}) as node:
        await node.wait_peer("alice")
        print("linked", flush=True)
        await node.wait_peer("nobody")
asyncio.run(main())
"""


def test_ctrl_c_ends_the_node(pair: Pair, tmp_path: Path) -> None:
    async def test() -> None:
        heard = Heard()
        async with aio.open_node(pair.alice, config=ALONE, observers=[heard]) as alice:
            with script(WAITS, str(pair.bob), f"127.0.0.1:{alice.port}", home=tmp_path) as bob:
                await asyncio.to_thread(bob.wait_line, "linked")
                call = asyncio.create_task((await alice.wait_peer("bob")).call("stay"))
                await asyncio.to_thread(bob.wait_line, "called")
                assert await asyncio.to_thread(bob.interrupt) < 2
                code, errors = bob.end()
                assert (code, errors.splitlines()[-1]) == (-2, "KeyboardInterrupt")
                assert (await asyncio.to_thread(heard.wait, PeerDown)).reason is Reason.SHUTDOWN
                with pytest.raises(OverlayError):
                    await call

    run(test)


FORGETS = CONFIG + """
import asyncio, overlay.aio
async def main():
    node = overlay.aio.open_node(sys.argv[1], config=config)
    await (await node.__aenter__()).wait_peer("alice")
    print("linked", flush=True)
    kept.append(node)
kept = []
asyncio.run(main())
"""


def test_a_forgotten_node_says_goodbye_when_the_interpreter_ends(pair: Pair, tmp_path: Path) -> None:
    async def test() -> None:
        heard = Heard()
        async with aio.open_node(pair.alice, config=ALONE, observers=[heard]) as alice:
            with script(FORGETS, str(pair.bob), f"127.0.0.1:{alice.port}", home=tmp_path) as bob:
                await asyncio.to_thread(bob.wait_line, "linked")
                code, _ = await asyncio.to_thread(bob.end)
                assert code == 0
                assert (await asyncio.to_thread(heard.wait, PeerDown)).reason is Reason.SHUTDOWN

    run(test)
