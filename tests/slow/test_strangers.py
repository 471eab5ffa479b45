"""A flood by strangers for more than a minute, over real connections: two entries in the log, and no more."""

import secrets
from pathlib import Path

import pytest
import trio

from overlay.app.local import LocalNode
from overlay.core.gate import NO_TAG, make_hello
from overlay.registry import Mode
from tests.shell.folder_kit import enrolled, started

pytestmark = pytest.mark.slow
LASTS = 70.0  # seconds: a minute ends in them once
AT_ONCE = 8


async def knock(node: LocalNode, kind: int) -> None:
    """A connection that says something wrong, and waits to be thrown out."""
    stream = await trio.open_tcp_stream("127.0.0.1", node.port)
    async with stream:
        ephemeral = secrets.token_bytes(32)
        gate_key = secrets.token_bytes(32) if kind == 0 else node.engine.parts.gate_keys[0]
        hello = make_hello(gate_key, Mode.MEMBER, NO_TAG, ephemeral) if kind < 2 else secrets.token_bytes(19)
        try:
            await stream.send_all(hello + ephemeral + secrets.token_bytes(400))
            with trio.move_on_after(1.0):
                await stream.receive_some(1)
        except trio.BrokenResourceError:
            return


async def test_a_flood_by_strangers_grows_the_log_by_two_entries(tmp_path: Path) -> None:
    (folder,) = enrolled(tmp_path, "alice")
    async with started(folder) as alice:
        while not any(one.type == "lifecycle" for one in await alice.node.audit.read()):  # noqa: ASYNC110 (an entry tells nobody)
            await trio.sleep(0.05)  # its start is written soon
        before, knocks = len(await alice.node.audit.read()), 0

        async def flood(kind: int) -> None:
            nonlocal knocks
            while True:
                await knock(alice.node, kind)
                knocks += 1

        with trio.move_on_after(LASTS):
            async with trio.open_nursery() as nursery:
                for number in range(AT_ONCE):
                    nursery.start_soon(flood, number % 3)
        grown = (await alice.node.audit.read())[before:]
        assert knocks > 500
        assert alice.node.engine.refused > 100
        assert [one.type for one in grown] == ["refusal"] * len(grown)
        assert 1 <= len(grown) <= 2
