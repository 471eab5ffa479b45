"""Rows about forwarded services: bulk data against `ssh -L` and stunnel, and PostgreSQL's benchmark against its own TLS."""

import re
import subprocess
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import trio

import overlay
from bench import tunnels
from bench.databases import postgres, program
from bench.ends import two_ends
from bench.row import Row, row
from overlay.errors import HostLacks

BULK = 512 * 1024 * 1024  # bytes of one run, and of each of those compared with
CLIENTS = 4  # of pgbench: our guess, twice the cores
SCALE = 10  # of its tables: more than clients, as its manual wants it
TRANSACTIONS = 250  # of each client, in one run: seven statements each
LOOKS = 1000  # of each client, `select` by key
MEMBER = ("member",)


async def forwarding(runs: int) -> list[Row]:
    """A program sends to a local port; a sink on the other core takes it. Against the faster of two well-known tunnels."""
    signed, unsigned, others = [], [], []
    async with two_ends() as (node, _peer, other):
        folder = other.folder.parent
        with ExitStack() as stack:
            ports = _tunnels(stack, folder, other.certificates, other.bulk_tcp_port)
            async with (
                overlay.connect_local(folder / "bob") as bob,
                bob.expose("sink", f"127.0.0.1:{other.bulk_tcp_port}", allow=MEMBER),
                node.forward("sink") as address, node.forward("sink", signed=False) as bare,
            ):  # fmt: skip
                for _ in range(runs):
                    signed.append(await _rate(_port(address)))
                    unsigned.append(await _rate(_port(bare)))
                    others.append(max([await _rate(port) for port in ports]))
    return [row("forward_vs_tunnel", "GB/s", unsigned, others), row("forward_signed_vs_tunnel", "GB/s", signed, others)]


def _tunnels(stack: ExitStack, folder: Path, certificates: Path, target: int) -> list[int]:
    """Those that this host has. Raises HostLacks if there is none."""
    ports, lacks = [], HostLacks("no tunnel to compare with")
    for one in (tunnels.stunnel(folder, certificates, target), tunnels.ssh(folder, target)):
        try:
            ports.append(stack.enter_context(one))
        except HostLacks as error:
            lacks = error
    if not ports:
        raise lacks
    return ports


async def _rate(port: int) -> float:
    return await trio.to_thread.run_sync(partial(tunnels.rate, port, BULK))


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


async def database(runs: int) -> list[Row]:
    """pgbench over a forward and over PostgreSQL's own TLS, in turns: its usual transactions, and `select` by key alone."""
    usual: tuple[list[float], list[float]] = ([], [])
    looks: tuple[list[float], list[float]] = ([], [])
    async with two_ends() as (node, _peer, other):
        with postgres(other.certificates, core=tunnels.other_core()) as port:
            async with (
                overlay.connect_local(other.folder.parent / "bob") as bob,
                bob.expose("db", f"127.0.0.1:{port}", allow=MEMBER), node.forward("db") as address,
            ):  # fmt: skip
                _pgbench(port, "require", "-i", "-q", "-s", str(SCALE))
                for _ in range(runs):
                    for found, words in ((usual, ("-t", str(TRANSACTIONS))), (looks, ("-S", "-t", str(LOOKS)))):
                        for rates, at, tls in zip(found, (_port(address), port), ("disable", "require"), strict=True):
                            rates.append(await trio.to_thread.run_sync(partial(_transactions, at, tls, *words)))
    return [row("pgbench_vs_tls", "transactions/s", *usual), row("pgbench_select_vs_tls", "transactions/s", *looks)]


def _transactions(port: int, tls: str, *words: str) -> float:
    found = _pgbench(port, tls, "-c", str(CLIENTS), *words)
    match = re.search(r"tps = ([0-9.]+)", found)
    assert match is not None, found
    return float(match[1])


def _pgbench(port: int, tls: str, *words: str) -> str:
    command = [program("pgbench"), *words, f"host=127.0.0.1 port={port} user=app dbname=postgres sslmode={tls}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}).stdout
