"""PostgreSQL and Redis on one machine, their clients on another, and between them two nodes and two commands."""

import json
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.cli.node_kit import Machine, Process, make_pair
from tests.cli.script_kit import OVERLAY
from tests.cli.service_kit import needs_postgres, needs_redis, postgres, postgres_program, redis


@asynccontextmanager
async def across(folder: Path, port: int, *, rule: str = "role:worker") -> AsyncIterator[tuple[Machine, Machine, int, Process]]:
    """alice with the service of that port, bob, where it is at bob's, and the command that exposes it."""
    alice, bob = await make_pair(folder)
    async with alice.running() as first, bob.running("--seed", f"127.0.0.1:{first.port}") as second:
        await second.wait(lambda event: event["event"] == "peer-up")
        expose = [*OVERLAY, "expose", "db", "--to", f"127.0.0.1:{port}", "--allow", rule, "--json"]
        forward = [*OVERLAY, "forward", "db", "--json"]
        async with alice.process(expose) as exposing, bob.process(forward) as forwarding:
            await exposing.wait(lambda line: line["service"] == "db")
            address = (await forwarding.wait(lambda line: line["service"] == "db"))["listen"]
            yield alice, bob, int(address.rpartition(":")[2]), exposing


async def program(*words: str, code: int | None = 0) -> str:
    """What a program prints, errors too."""
    with trio.fail_after(60):
        done = await trio.run_process(
            words, check=False, capture_stdout=True, stderr=subprocess.STDOUT, env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere"}
        )
    text = done.stdout.decode()
    assert code is None or done.returncode == code, text
    return text


@needs_postgres
async def test_psql_on_one_node_talks_to_postgresql_on_another(tmp_path: Path) -> None:
    with postgres() as port:
        async with across(tmp_path, port) as (alice, bob, here, exposing):
            place = ("-h", "127.0.0.1", "-p", str(here), "-U", "app", "postgres")
            sql = "create table t as select n, repeat('x', 1000) as x from generate_series(1, 5000) n; select sum(n) from t"
            assert "12502500" in await program(postgres_program("psql"), "-qAt", "-c", sql, *place)
            rows = await program(postgres_program("psql"), "-qAt", "-c", "copy t to stdout", *place)
            assert len(rows.splitlines()) == 5000
            await program(postgres_program("pgbench"), "-i", "-q", *place)
            found = await program(postgres_program("pgbench"), "-c", "8", "-t", "50", *place)
            assert "transactions actually processed: 400/400" in found
            status = (await bob.overlay("status", "--json")).json
            (service,) = status["services"]
            assert (service["kind"], service["name"], service["failed"], service["broken"]) == ("forwarded", "db", 0, 0)
            assert service["received"] > 5_000_000
            assert re.search(r"db +exposed +127\.0\.0\.1:\d+", (await alice.overlay("status")).output)

            code, _ = await exposing.end(signal.SIGINT)
            assert code == 130
            assert "server closed the connection" in await program(postgres_program("psql"), "-c", "select 1", *place, code=2)


@needs_redis
async def test_redis_and_its_benchmark_work_across_two_nodes(tmp_path: Path) -> None:
    with redis() as port:
        async with across(tmp_path, port) as (_, bob, here, _):
            place = ("-h", "127.0.0.1", "-p", str(here))
            assert await program("redis-cli", *place, "set", "colour", "green") == "OK\n"
            assert await program("redis-cli", *place, "get", "colour") == "green\n"
            found = await program("redis-benchmark", *place, "-n", "2000", "-c", "20", "-P", "4", "-t", "set,get", "-q")
            assert found.count("requests per second") == 2
            assert (await bob.overlay("status", "--json")).json["services"][0]["broken"] == 0


@needs_redis
async def test_a_node_that_no_rule_names_gets_no_connection(tmp_path: Path) -> None:
    with redis() as port:
        async with across(tmp_path, port, rule="role:operator") as (alice, _, here, _):
            found = await program("redis-cli", "-h", "127.0.0.1", "-p", str(here), "ping", code=None)
            assert "PONG" not in found
            entries = (await alice.overlay("audit", "tail", "--json")).output.splitlines()
            assert not any(json.loads(line)["type"] == "refusal" for line in entries)  # it was not even offered to bob


async def test_bad_words_are_told_before_any_node_is_asked(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "nobody")
    for words, hint in (
        (("expose", "db", "--to", "5432", "--allow", "member"), "host:port"),
        (("expose", "db", "--to", "127.0.0.1:1", "--allow", "everybody"), "role:ROLE"),
        (("expose", "DB", "--to", "127.0.0.1:1", "--allow", "member"), "a to z"),
        (("forward", "db", "70000"), "host:port"),
        (("forward", "db", "unix:relative"), "absolute"),
    ):
        errors = (await machine.overlay(*words, code=2)).errors
        assert hint in errors, errors


async def test_the_settings_expose_and_forward_for_good(tmp_path: Path) -> None:
    alice, bob = await make_pair(tmp_path)
    with_service = ("--expose", "svc=127.0.0.1:9 member")
    async with alice.running(*with_service) as first, bob.running("--seed", f"127.0.0.1:{first.port}", "--forward", "svc=0"):
        (exposed,) = (await alice.overlay("status", "--json")).json["services"]
        (forwarded,) = (await bob.overlay("status", "--json")).json["services"]
    assert (exposed["kind"], exposed["place"]) == ("exposed", "127.0.0.1:9")
    assert (forwarded["kind"], forwarded["name"]) == ("forwarded", "svc")
