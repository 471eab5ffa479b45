"""PostgreSQL and Redis as their users have them: their own servers, clients and benchmark programs."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY_RUNS_AS = "nobody"  # PostgreSQL refuses to be root
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]

needs_postgres = pytest.mark.skipif(not POSTGRES, reason="this host lacks PostgreSQL: install the Debian package postgresql")
needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="this host lacks Redis: install the Debian package redis-server"
)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def postgres_program(name: str) -> str:
    """One of PostgreSQL's programs."""
    return str(POSTGRES[0] / name)


@contextmanager
def postgres() -> Iterator[int]:
    """A server with an empty database `postgres`, whose user `app` needs no password: its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="overlay-postgres-") as name:
        data = Path(name) / "data"
        user = NOBODY_RUNS_AS if os.geteuid() == 0 else None
        if user is not None:
            os.chown(name, pwd.getpwnam(user).pw_uid, -1)

        def run(program: str, *words: str) -> None:
            subprocess.run(
                [postgres_program(program), *words], user=user, cwd=name, check=True, capture_output=True, env={"PATH": "/bin"}
            )

        run("initdb", "-D", str(data), "-U", "app", "-A", "trust", "-N")
        settings = f"-p {port} -k {name} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "-D", str(data), "-w", "-l", f"{name}/log", "-o", settings, "start")
        try:
            yield port
        finally:
            run("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")


@contextmanager
def redis() -> Iterator[int]:
    """An empty server that keeps nothing: its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="overlay-redis-") as name:
        words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", name]
        server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        try:
            subprocess.run(
                ["sh", "-c", f"for _ in $(seq 100); do redis-cli -p {port} ping && exit 0; sleep 0.1; done; exit 1"],
                check=True, capture_output=True,
            )  # fmt: skip
            yield port
        finally:
            server.terminate()
            server.wait()
