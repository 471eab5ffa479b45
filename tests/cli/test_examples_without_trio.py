"""The examples for plain threads and for asyncio, between two nodes."""

import sys
from pathlib import Path

import pytest

from tests.cli.node_kit import Machine, make_pair
from tests.cli.script_kit import ROOT


@pytest.mark.parametrize(("serving", "asking"), [("blocking_serve", "aio_ask"), ("aio_serve", "blocking_ask")])
async def test_one_serves_and_the_other_asks(tmp_path: Path, serving: str, asking: str) -> None:
    alice, bob = await make_pair(tmp_path)
    serve = [sys.executable, str(ROOT / "examples" / f"{serving}.py")]
    async with alice.running() as first:
        bob = Machine(bob.state, {**bob.settings, "OVERLAY_SEEDS": f"127.0.0.1:{first.port}"})
        async with bob.process(serve) as service:
            await service.wait_line(lambda line: line == "serving as bob")
            assert (await alice.example(asking, "bob", "hello")).output == "HELLO\n"
            assert await service.wait_line(lambda line: line == "alice at level 1 asks")
            assert (await bob.overlay("stop", "--json")).json["stopped"]
