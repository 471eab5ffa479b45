"""Two nodes made and run with the commands alone, used by the commands and by the examples."""

import base64
import json
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.cli.node_kit import Machine, Process, make_pair
from tests.cli.script_kit import OVERLAY, ROOT


@asynccontextmanager
async def linked(folder: Path) -> AsyncIterator[tuple[Machine, Machine, Process, Process]]:
    """alice and bob, running and linked."""
    alice, bob = await make_pair(folder)
    async with alice.running() as first, bob.running("--seed", f"127.0.0.1:{first.port}") as second:
        for process in (first, second):
            await process.wait(lambda event: event["event"] == "peer-up")
        yield alice, bob, first, second


async def test_two_nodes_talk_publish_and_keep_one_log(tmp_path: Path) -> None:
    async with linked(tmp_path) as (alice, bob, *_):
        status = (await alice.overlay("status", "--json")).json
        assert (status["running"], status["name"], status["mesh_name"]) == (True, "alice", "test")
        assert [(link["name"], link["level"]) for link in status["links"]] == [("bob", 1)]
        assert "bob" in (await alice.overlay("status")).output

        refused = await alice.overlay("call", "bob", "shout", "hello", code=1)
        assert "overlay: error: the peer has no service 'shout'" in refused.errors
        absent = await alice.overlay("call", "carol", "shout", "--wait", "0.1", code=1)
        assert "overlay: error: there is no link to carol" in absent.errors

        published = (await alice.overlay("publish", "news", "-", "--json", input=b"stop press \xff")).json
        assert (published["topic"], published["seq"], published["peers"]) == ("news", 0, 1)
        item = (await bob.overlay("subscribe", "news", "--count", "1", "--json")).json
        assert (item["author"]["name"], base64.b64decode(item["body"]), item["text"]) == ("alice", b"stop press \xff", None)

        entry = (await alice.overlay("audit", "append", "door.opened", '{"door": "7b"}', "--wait", "--json")).json
        assert entry["replicated"] == 1
        tail = await bob.overlay("audit", "tail", "--node", "alice", "-n", "1", "--json")
        assert tail.json["hash"] == entry["hash"]
        assert tail.json["body"] == {"type": "door.opened", "value": {"door": "7b"}}
        assert "door.opened" in (await bob.overlay("audit", "tail")).output
        assert (await bob.overlay("audit", "verify", "--json")).json["holds"]


async def test_the_examples_work_between_two_nodes(tmp_path: Path) -> None:
    alice, bob = await make_pair(tmp_path)
    serve = [sys.executable, str(ROOT / "examples" / "serve.py")]
    async with alice.running() as first:
        bob = Machine(bob.state, {**bob.settings, "OVERLAY_SEEDS": f"127.0.0.1:{first.port}", "PYTHONUNBUFFERED": "1"})
        async with bob.process(serve) as service:
            await service.wait_line(lambda line: line == "serving as bob")
            assert (await alice.example("ask", "bob", "hello")).output == "HELLO\n"
            assert await service.wait_line(lambda line: line == "alice at level 1 asks")
            assert (await alice.example("newsroom", "stop press", "1")).output == "alice 1 stop press\n"
            assert (await bob.example("newsroom", "indeed", "2")).output.splitlines() == [
                "alice 1 stop press", "bob 1 indeed"
            ]
            notary = (await alice.example("notary", "7b")).output.splitlines()
            assert notary[0].endswith("is durable here")
            assert notary[1] == "and held by 1 peer"


WHOLE_PROGRAMS = {"dask_cluster.py", "dask_mesh.py", "dask_signed.py", "work_scheduler.py"}  # they show more than an embedding


async def test_every_example_has_less_than_thirty_lines() -> None:
    examples = [path for path in sorted((ROOT / "examples").glob("*.py")) if path.name not in WHOLE_PROGRAMS]
    assert len(examples) >= 4
    assert [path.name for path in examples if len(path.read_text().splitlines()) >= 30] == []


async def test_a_second_node_in_the_same_folder_is_told_whose_it_is(tmp_path: Path) -> None:
    alice, _ = await make_pair(tmp_path)
    async with alice.running():
        errors = (await alice.overlay("run", code=5)).errors
        assert "is in use by process" in errors
        assert "overlay.connect_local()" in errors


async def test_a_node_ends_in_order_and_its_log_can_be_read_afterwards(tmp_path: Path) -> None:
    async with linked(tmp_path) as (alice, bob, first, second):
        await alice.overlay("audit", "append", "door.opened", "1", "--wait")
        code, _ = await first.end(signal.SIGTERM)
        assert code == 0
        gone = await second.wait(lambda event: event["event"] == "peer-down")
        assert (gone["name"], gone["reason"]) == ("alice", "SHUTDOWN")
        code, seconds = await second.end(signal.SIGINT)
        assert code == 130
        assert seconds < 2
        tail = await alice.overlay("audit", "tail", "--json")
        assert "no node runs" in tail.errors
        assert '"door.opened"' in tail.output
        assert (await bob.overlay("audit", "verify")).code == 0


async def test_a_node_can_be_stopped_and_started_by_command(tmp_path: Path) -> None:
    alice, _ = await make_pair(tmp_path)
    for _ in range(2):
        async with alice.running():
            assert (await alice.overlay("stop", "--json")).json["stopped"]
            assert not (await alice.overlay("status", "--json", code=3)).json["running"]
    assert "no node runs" in (await alice.overlay("stop", code=3)).errors


async def test_a_node_starts_again_after_it_was_killed(tmp_path: Path) -> None:
    alice, _ = await make_pair(tmp_path)
    async with alice.running() as process:
        await alice.overlay("status")
        await process.end(signal.SIGKILL)
    assert (alice.state / "control.sock").exists()
    async with alice.running():  # over the socket and the lock of the dead one
        assert (await alice.overlay("status", "--json")).json["running"]


async def test_an_edited_entry_is_named_by_verify(tmp_path: Path) -> None:
    async with linked(tmp_path) as (alice, bob, first, second):
        entry = (await alice.overlay("audit", "append", "door.opened", '"7b"', "--wait", "--json")).json
        await first.end(signal.SIGTERM)
        await second.end(signal.SIGTERM)
    with sqlite3.connect(bob.state / "audit.sqlite3") as store:
        (raw,) = store.execute("SELECT raw FROM entries WHERE hash = ?", (bytes.fromhex(entry["hash"]),)).fetchone()
        edited = raw.replace(b"7b", b"8b")
        assert edited != raw
        store.execute("UPDATE entries SET raw = ? WHERE raw = ?", (edited, raw))
    store.close()
    result = await bob.overlay("audit", "verify", code=1)
    assert f"entry {entry['seq']}" in result.errors
    found = (await bob.overlay("audit", "verify", "--json", code=1)).json
    faults = [log["fault"] for log in found["logs"] if log["fault"]]
    assert [fault["seq"] for fault in faults] == [entry["seq"]]


async def test_tail_follows(tmp_path: Path) -> None:
    async with linked(tmp_path) as (alice, bob, *_):
        command = [*OVERLAY, "audit", "tail", "-f", "-n", "0", "--json"]
        async with bob.process([*command, "--node", "alice"]) as follower:
            with trio.fail_after(30):
                number = 0
                while not follower.lines:  # it says nothing when it is ready
                    await alice.overlay("audit", "append", "tick", str(number))
                    number += 1
            assert json.loads(follower.lines[0])["body"]["type"] == "tick"
            assert (await follower.end(signal.SIGINT))[0] == 130


async def test_tail_shows_hashes_by_their_beginnings_and_what_users_wrote_as_it_is(tmp_path: Path) -> None:
    alice, _ = await make_pair(tmp_path)
    digest = json.dumps("0123456789abcdef" * 8)
    async with alice.running():
        await alice.overlay("audit", "append", "file.seen", digest)
        opening, *_, last = (await alice.overlay("audit", "tail")).output.splitlines()
        whole = (await alice.overlay("audit", "tail", "--json")).output
    assert re.search(r' log_open .*"leaf": "[0-9a-f]{16}… \(\d+ bytes\)"', opening)
    assert not re.search("[0-9a-f]{64}", opening)
    assert last.endswith(f' application {{"type": "file.seen", "value": {digest}}}')
    assert re.search('"leaf": "[0-9a-f]{400}', whole)


async def test_an_entry_that_waits_for_a_peer_is_said_to_be_durable(tmp_path: Path) -> None:
    alice, bob = await make_pair(tmp_path)
    append = ["sh", "-c", 'exec "$0" "$@" 2>&1', *OVERLAY, "audit", "append", "tick", "--wait"]
    async with alice.running() as first, alice.process(append) as waiting:
        await waiting.wait_line(lambda line: "is durable here, and no peer is linked" in line)
        async with bob.running("--seed", f"127.0.0.1:{first.port}"):
            assert (await waiting.wait_line(lambda line: "held by" in line)).endswith(", held by 1 peer")
