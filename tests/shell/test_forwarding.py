"""Existing services across the mesh: programs on both sides see a plain connection, and only those come through who may."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from overlay.app.api import NodeApi
from overlay.app.client import connect_local
from overlay.app.local import LocalNode
from overlay.core.forwarding import pack_opening
from overlay.errors import HostLacks, UsageError
from overlay.net.statistics import ServiceStatistics
from overlay.registry import Reason
from overlay.testing import mesh
from tests.shell.forward_kit import Serve, Service, connect, count_then_say, echo, read_all, service, until

EVERYBODY = ("member",)


@asynccontextmanager
async def forwarded(
    alice: NodeApi, bob: NodeApi, found: Service, *, allow: tuple[str, ...] = EVERYBODY, signed: bool = True
) -> AsyncIterator[str]:
    """Alice's service at an address of Bob's."""
    async with alice.expose("svc", found.address, allow=allow), bob.forward("svc", signed=signed) as address:
        yield address


@dataclass(frozen=True, slots=True)
class Across:
    """A service of Alice's, and where it is at Bob's."""

    alice: LocalNode
    bob: LocalNode
    found: Service
    address: str


@asynccontextmanager
async def across(serve: Serve, *, signed: bool = True, rekey_after: float = 60.0) -> AsyncIterator[Across]:
    """Both nodes and both ends."""
    async with (
        mesh("alice", "bob", rekey_after=rekey_after) as (alice, bob), service(serve) as found,
        forwarded(alice, bob, found, signed=signed) as address,
    ):  # fmt: skip
        yield Across(alice, bob, found, address)


def figures(node: LocalNode) -> ServiceStatistics:
    (found,) = node.statistics().services
    return found


async def settled(node: LocalNode) -> ServiceStatistics:
    """When no connection is open any more."""
    await until(lambda: figures(node).open == 0)
    return figures(node)


@pytest.mark.parametrize("signed", [True, False])
async def test_bytes_pass_both_ways_and_are_counted(signed: bool) -> None:
    data = os.urandom(3 * 1024 * 1024)
    async with across(echo, signed=signed) as it:
        stream = await connect(it.address)
        async with stream, trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(data)
                await stream.send_eof()

            nursery.start_soon(send)
            with trio.fail_after(20):
                assert await read_all(stream) == data
        assert await it.found.wait_ends(1) == ["in order"]
        at_bob, at_alice = await settled(it.bob), await settled(it.alice)
    assert (at_bob.sent, at_bob.received, at_bob.broken) == (len(data), len(data), 0)
    assert (at_alice.sent, at_alice.received, at_alice.connections) == (len(data), len(data), 1)


async def test_one_side_may_end_and_still_be_answered() -> None:
    async with across(count_then_say) as it, await connect(it.address) as stream:
        await stream.send_all(bytes(100_000))
        await stream.send_eof()
        with trio.fail_after(10):
            assert await read_all(stream) == b"100000"


async def test_a_service_that_speaks_first_and_ends_first_is_heard_to_its_end() -> None:
    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 ready\r\n")

    async with across(greet) as it, await connect(it.address) as stream:
        with trio.fail_after(10):
            assert await read_all(stream) == b"220 ready\r\n"


async def test_a_member_without_the_role_is_reset_and_that_is_counted_told_and_logged() -> None:
    async with (
        mesh("alice", "bob", "carol", roles={"carol": ("worker",)}) as (alice, bob, carol), service(echo) as found,
        alice.expose("svc", found.address, allow=["role:worker"]),
    ):  # fmt: skip
        async with carol.forward("svc") as address, await connect(address) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        async with bob.forward("svc", peer="alice") as address, await connect(address) as stream:
            with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        assert figures(alice).refused == 1
        async with alice.audit.follow() as entries:
            with trio.fail_after(10):
                said = [one for one in await alice.audit.read() if one.type == "refusal"] or [
                    await anext(one async for one in entries if one.type == "refusal")
                ]
    assert said[0].body["reason"] == "not_allowed"
    assert len(found.ends) == 1  # the refused connection never came to the service


async def test_whoever_may_not_use_a_service_hears_the_same_as_where_there_is_none() -> None:
    async with (
        mesh("alice", "bob") as (alice, bob), service(echo) as found,
        alice.expose("svc", found.address, allow=["role:worker"]),
    ):  # fmt: skip
        texts = []
        for name in ("svc", "nothing"):
            async with bob.engine.open_stream(alice.node_id, "forward", pack_opening(name), signed=True) as one:
                with pytest.raises(trio.BrokenResourceError) as error:
                    await one.receive_some()
                texts.append(str(error.value))
    assert texts[0] == texts[1]


async def test_bytes_that_name_no_service_are_refused() -> None:
    async with mesh("alice", "bob") as (alice, bob), bob.engine.open_stream(alice.node_id, "forward", b"?", signed=True) as one:
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError, match="not allowed"):
            await one.receive_some()


async def test_a_service_that_is_down_resets_its_caller_and_works_again_when_it_is_up() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with (
        mesh("alice", "bob") as (alice, bob),
        alice.expose("svc", f"127.0.0.1:{port}", allow=EVERYBODY), bob.forward("svc") as address,
    ):  # fmt: skip
        async with await connect(address) as stream:
            with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        assert figures(alice).failed == figures(bob).failed == 1
        (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
        async with listener, await connect(address) as stream:
            with trio.fail_after(10):
                async with await listener.accept() as accepted:
                    await accepted.send_all(b"up")
                assert await stream.receive_some() == b"up"


async def test_a_service_that_resets_is_a_reset_for_its_caller_too() -> None:
    async def slam(stream: trio.SocketStream) -> None:
        await stream.send_all(b"half of it")
        await stream.receive_some()
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        stream.socket.close()

    async with across(slam) as it, await connect(it.address) as stream:
        with trio.fail_after(10):
            assert await stream.receive_some() == b"half of it"
            await stream.send_all(b"go on")
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        assert (await settled(it.bob)).broken == (await settled(it.alice)).broken == 1


async def test_a_caller_that_resets_is_a_reset_for_the_service_too() -> None:
    async with mesh("alice", "bob") as (alice, bob), service(echo) as found, forwarded(alice, bob, found) as address:
        stream = await connect(address)
        await stream.send_all(b"hello")
        await stream.receive_some()
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        stream.socket.close()
        assert await found.wait_ends(1) == ["reset"]


async def test_a_reader_that_does_not_read_holds_up_its_own_connection_only() -> None:
    async def pour(stream: trio.SocketStream) -> None:
        kind = await stream.receive_some(1)
        while kind == b"p":
            await stream.send_all(bytes(65_536))
        await stream.send_all(b"quick")

    async with across(pour) as it, await connect(it.address) as slow:
        await slow.send_all(b"p")
        last = -1
        with trio.fail_after(20):
            while figures(it.alice).sent != last or last <= 0:  # until nothing moves any more
                last = figures(it.alice).sent
                await trio.sleep(0.2)
            async with await connect(it.address) as quick:
                await quick.send_all(b"q")
                assert await read_all(quick) == b"quick"


async def test_a_thousand_connections_at_once_each_get_their_own_answer() -> None:
    async with across(echo, signed=False) as it:
        answers: dict[int, bytes] = {}
        all_open = trio.Event()

        async def one(number: int) -> None:
            async with await connect(it.address) as stream:
                await stream.send_all(b"%d" % number)
                answers[number] = await stream.receive_some()
                if len(answers) == 1000:
                    all_open.set()
                await all_open.wait()  # nobody leaves before all are there

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(1000):
                    nursery.start_soon(one, number)
        assert answers == {number: b"%d" % number for number in range(1000)}


async def test_connections_go_on_while_links_get_fresh_keys() -> None:
    async with across(echo, rekey_after=1.0) as it, await connect(it.address) as stream:
        (first,) = it.bob.statistics().links
        with trio.fail_after(20):
            while it.bob.statistics().links[0].epoch < first.epoch + 3:
                await stream.send_all(b"tick")
                assert await stream.receive_some() == b"tick"
                await trio.sleep(0.05)


async def test_connections_end_with_the_link_and_never_hang() -> None:
    async with across(echo) as it, await connect(it.address) as stream:
        await stream.send_all(b"hello")
        await stream.receive_some()
        link = it.bob.engine.pool.links[it.alice.node_id]
        link.close(Reason.SHUTDOWN)
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert await it.found.wait_ends(1) == ["reset"]


async def test_what_is_no_longer_exposed_ends_its_connections() -> None:
    async with mesh("alice", "bob") as (alice, bob), service(echo) as found, bob.forward("svc") as address:
        async with alice.expose("svc", found.address, allow=EVERYBODY):
            stream = await connect(address)
            await stream.send_all(b"hello")
            await stream.receive_some()
        async with stream:
            with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


async def test_another_member_that_offers_the_service_is_asked_when_the_first_one_cannot() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        down = f"127.0.0.1:{free.getsockname()[1]}"
    async with (
        mesh("alice", "bob", "carol") as (alice, bob, carol), service(echo) as found,
        alice.expose("svc", down, allow=EVERYBODY), carol.expose("svc", found.address, allow=EVERYBODY),
        bob.forward("svc") as address, await connect(address) as stream,
    ):  # fmt: skip
        await stream.send_all(b"hello")
        with trio.fail_after(10):
            assert await stream.receive_some() == b"hello"
        assert figures(alice).failed == 1


async def test_unix_sockets_at_both_ends_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "svc.sock"
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await listener.bind(str(tmp_path / "target.sock"))
    listener.listen(8)
    async with mesh("alice", "bob") as (alice, bob), trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, [trio.SocketListener(listener)])
        async with alice.expose("svc", f"unix:{tmp_path}/target.sock", allow=EVERYBODY):
            async with bob.forward("svc", f"unix:{path}") as address, await connect(address) as stream:
                assert path.stat().st_mode & 0o777 == 0o600
                await stream.send_all(b"hello")
                with trio.fail_after(10):
                    assert await stream.receive_some() == b"hello"
                with pytest.raises(HostLacks, match="another process"):
                    async with bob.forward("svc", f"unix:{path}"):
                        raise AssertionError
            assert not path.exists()
        nursery.cancel_scope.cancel()


async def test_what_lies_at_the_path_of_a_socket_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    async with mesh("alice") as (alice,):
        with pytest.raises(HostLacks, match="cannot listen"):
            async with alice.forward("svc", f"unix:{path}"):
                raise AssertionError
    assert path.read_text() == "data"


async def test_a_name_is_exposed_once() -> None:
    async with mesh("alice") as (alice,), alice.expose("svc", "127.0.0.1:1", allow=EVERYBODY):
        with pytest.raises(UsageError, match="already"):
            async with alice.expose("svc", "127.0.0.1:2", allow=EVERYBODY):
                raise AssertionError


async def test_other_processes_expose_and_forward_for_as_long_as_they_are_there() -> None:
    async with (
        mesh("alice", "bob") as (alice, bob), service(echo) as found,
        connect_local(alice.folder) as far_alice, connect_local(bob.folder) as far_bob,
    ):  # fmt: skip
        async with forwarded(far_alice, far_bob, found) as address, await connect(address) as stream:
            await stream.send_all(b"hello")
            with trio.fail_after(10):
                assert await stream.receive_some() == b"hello"
            assert (await far_alice.status()).services[0].open == 1
        await until(lambda: not alice.statistics().services and not bob.statistics().services)


async def test_a_member_that_loses_its_role_loses_its_connections_and_gets_no_new_ones() -> None:
    async with (
        mesh("alice", "bob", roles={"bob": ("worker",)}) as (alice, bob),
        service(echo) as found,
        forwarded(alice, bob, found, allow=("role:worker",)) as address,
        await connect(address) as stream,
    ):
        await stream.send_all(b"hello")
        await stream.receive_some()
        await alice.authority.grant("bob", ["watcher"], only=True)
        await until(lambda: bool(bob.seat.keeper.orders_that_count()))
        await bob.authority.renew()
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        async with await connect(address) as another:
            with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
                await another.receive_some()
