"""The control socket lets the right ones in, and nothing that comes through it harms the node."""

import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from overlay.app.client import connect_local
from overlay.app.control import CONNECTIONS_MAX, REQUESTS_MAX
from overlay.app.control_socket import PATH_MAX, LineReader, user_of
from overlay.app.wire_json import LINE_MAX
from overlay.errors import OverlayError, Refused, StateDamaged
from overlay.registry import Reason
from overlay.store.state import CONTROL_SOCKET, StateFolder
from tests.unit.app.node_kit import BOB, FakeNode, connected, served


class Client:
    """A client that says whatever a test wants."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._reader = LineReader(stream)

    async def say(self, *messages: Any) -> None:
        """Lines: objects as JSON, bytes as they are."""
        lines = [one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in messages]
        await self.stream.send_all(b"".join(lines))

    async def hear(self) -> Any:
        """The next message; None when the server has closed."""
        with trio.fail_after(5):
            line = await self._reader.next_line()
        return None if line is None else json.loads(line)


@asynccontextmanager
async def raw_client(folder: Path, node: FakeNode) -> AsyncIterator[Client]:
    """Connected, and past the greeting."""
    async with served(folder, node), await trio.open_unix_socket(str(folder / CONTROL_SOCKET)) as stream:
        client = Client(stream)
        assert "hello" in await client.hear()
        assert "peers" in await client.hear()
        yield client


async def test_the_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    async with served(tmp_path / "a", FakeNode()):
        status = (tmp_path / "a" / CONTROL_SOCKET).stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o600


async def test_another_user_hears_nothing(tmp_path: Path) -> None:
    nobody = frozenset({os.geteuid() + 1})
    async with served(tmp_path / "a", FakeNode(), users=nobody):
        async with await trio.open_unix_socket(str(tmp_path / "a" / CONTROL_SOCKET)) as stream:
            assert await stream.receive_some() == b""
        with pytest.raises(OverlayError, match="closed the connection"):
            async with connect_local(tmp_path / "a"):
                pass


async def test_the_kernel_says_who_connected() -> None:
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        assert user_of(trio.SocketStream(ours)) == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_root_lets_no_other_user_in_even_if_the_file_modes_do(tmp_path: Path) -> None:
    program = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.settimeout(5); sys.exit(0 if s.recv(1) == b'' else 1)"
    )
    async with served(tmp_path / "a", FakeNode()):
        for folder in (tmp_path / "a", *(tmp_path / "a").parents):
            if folder.stat().st_uid == 0 and folder != Path("/"):
                folder.chmod(0o711)
        path = tmp_path / "a" / CONTROL_SOCKET
        path.chmod(0o666)
        command = ["/usr/bin/python3", "-c", program, str(path)]
        assert (await trio.run_process(command, check=False)).returncode == 0


async def test_the_socket_of_a_dead_node_is_replaced(tmp_path: Path) -> None:
    StateFolder.create(tmp_path / "a").close()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "a" / CONTROL_SOCKET))
    dead.close()
    async with connected(tmp_path / "a", FakeNode()) as remote:
        assert remote.name == "alice"


async def test_the_socket_goes_with_the_node(tmp_path: Path) -> None:
    async with served(tmp_path / "a", FakeNode()):
        pass
    assert not (tmp_path / "a" / CONTROL_SOCKET).exists()


async def test_a_file_in_the_place_of_the_socket_is_left_as_it_is(tmp_path: Path) -> None:
    StateFolder.create(tmp_path / "a").close()
    (tmp_path / "a" / CONTROL_SOCKET).write_text("mine")
    with pytest.RaisesGroup(StateDamaged):
        async with served(tmp_path / "a", FakeNode()):
            pass
    assert (tmp_path / "a" / CONTROL_SOCKET).read_text() == "mine"


async def test_a_long_path_works(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a" * 60] * 3)
    folder.parent.mkdir(parents=True)
    assert len(os.fsencode(folder)) > PATH_MAX
    async with connected(folder, FakeNode()) as remote:
        assert remote.name == "alice"


async def test_an_unknown_method_is_an_error_of_that_request_only(tmp_path: Path) -> None:
    async with raw_client(tmp_path / "a", FakeNode()) as client:
        await client.say({"id": 1, "method": "eval", "params": {}}, {"id": 2, "method": "status"})
        answers = {answer["id"]: answer for answer in [await client.hear(), await client.hear()]}
        assert answers[1]["error"]["class"] == "UsageError"
        assert answers[2]["result"]["name"] == "alice"


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"hello\n",
        b"[]\n",
        b'{"id": 1}\n',
        b'{"id": -1, "method": "status"}\n',
        b'{"id": true, "method": "status"}\n',
        b'{"id": 1, "method": 7}\n',
        b'{"id": 1, "method": "status", "params": []}\n',
        b'{"id": 1, "method": "status", "params": {"x": NaN}}\n',
        b'{"id": 1, "method": "\\ud800"}\n',
        b'{"id": 1, "method": "status", "params": ' + b'{"x":' * 80 + b"1" + b"}" * 81 + b"\n",
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
        b'{"id": 1' + b"0" * 5000 + b"}\n",
        b'{"cancel": "all"}\n',
        b'{"credit": 1}\n',
    ],
)
async def test_a_line_that_breaks_the_protocol_ends_the_connection_and_not_the_node(
    tmp_path: Path, line: bytes
) -> None:
    async with raw_client(tmp_path / "a", FakeNode()) as client:
        await client.say(line)
        refused = await client.hear()
        assert refused["refused"]["reason"] == "MALFORMED"
        assert await client.hear() is None
        async with connect_local(tmp_path / "a") as remote:
            assert (await remote.status()).name == "alice"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("call", {"node": "bob", "method": "x", "body": "", "timeout": 1}),
        ("call", {"node": str(BOB.node_id), "method": "x", "body": "?", "timeout": 1}),
        ("call", {"node": str(BOB.node_id), "method": "x", "body": "", "timeout": 0}),
        ("call", {"node": str(BOB.node_id), "method": "x", "body": "", "timeout": True}),
        ("call", {"node": str(BOB.node_id), "method": "x" * 300, "body": "", "timeout": 1}),
        ("publish", {"topic": "t", "body": ""}),
        ("publish", {"topic": None, "body": "", "transient": False}),
        ("subscribe", {}),
        ("audit.append", {"value": 1}),
        ("audit.wait_replicated", {"node": str(BOB.node_id), "log": "zz", "seq": 0, "hash": ""}),
        ("audit.read", {"last": -1}),
        ("audit.read", {"node": 7}),
    ],
)
async def test_wrong_parameters_are_an_error_of_that_request(tmp_path: Path, method: str, params: object) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    async with raw_client(tmp_path / "a", node) as client:
        await client.say({"id": 1, "method": method, "params": params})
        assert (await client.hear())["error"]["reason"] == "MALFORMED"
        await client.say({"id": 1, "method": "status"})
        assert (await client.hear())["result"]["name"] == "alice"
    assert node.asked == []


async def test_a_line_without_end_is_cut_off(tmp_path: Path) -> None:
    async with raw_client(tmp_path / "a", FakeNode()) as client:
        await client.say(b"x" * (LINE_MAX + 1))
        assert (await client.hear())["refused"]["reason"] == "TOO_LARGE"


async def test_more_clients_than_allowed_are_turned_away(tmp_path: Path) -> None:
    async with raw_client(tmp_path / "a", FakeNode()), AsyncExitStack() as stack:
        for number in range(CONNECTIONS_MAX):
            stream = await trio.open_unix_socket(str(tmp_path / "a" / CONTROL_SOCKET))
            client = Client(await stack.enter_async_context(stream))
            heard = await client.hear()
            assert (heard is None) == (number == CONNECTIONS_MAX - 1)  # one was there before


async def test_more_requests_than_allowed_are_refused(tmp_path: Path) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    async with raw_client(tmp_path / "a", node) as client:
        call = {"node": str(BOB.node_id), "method": "never", "body": "", "timeout": 100}
        await client.say(*({"id": number, "method": "call", "params": call} for number in range(REQUESTS_MAX + 1)))
        assert (await client.hear())["refused"]["reason"] == "BUSY"


async def test_the_same_number_twice_at_once_is_refused(tmp_path: Path) -> None:
    async with raw_client(tmp_path / "a", FakeNode()) as client:
        await client.say({"id": 1, "method": "audit.follow"}, {"id": 1, "method": "status"})
        while "refused" not in (message := await client.hear()):
            assert "item" in message
        assert message["refused"]["reason"] == "MALFORMED"


async def test_a_client_that_goes_takes_its_requests_along(tmp_path: Path) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    async with served(tmp_path / "a", node):
        async with connect_local(tmp_path / "a") as remote, trio.open_nursery() as nursery:
            nursery.start_soon((await remote.wait_peer("bob")).call, "never", b"")
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await node.cancelled.wait()


async def test_a_client_that_does_not_read_does_not_hold_up_another(tmp_path: Path) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    body = "A" * 1024 * 1024
    async with raw_client(tmp_path / "a", node) as client:
        call = {"node": str(BOB.node_id), "method": "shout", "body": body, "timeout": 100}
        await client.say(*({"id": number, "method": "call", "params": call} for number in range(8)))
        async with connect_local(tmp_path / "a") as remote:
            with trio.fail_after(5):
                assert (await remote.status()).name == "alice"


async def test_a_line_is_found_however_it_is_cut() -> None:
    send, receive = trio.testing.memory_stream_one_way_pair()
    reader = LineReader(receive, limit=10)
    for part in (b"on", b"e\ntw", b"o\n", b"\nthree"):
        await send.send_all(part)
    assert [await reader.next_line() for _ in range(3)] == [b"one", b"two", b""]
    await send.send_all(b"\n")
    assert await reader.next_line() == b"three"
    await send.send_all(b"x" * 30)
    with pytest.raises(Refused) as refused, trio.fail_after(5):
        await reader.next_line()
    assert refused.value.reason is Reason.TOO_LARGE
