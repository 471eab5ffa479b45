"""Everything that passes the LAN of a lab is recorded, and searched for what nobody on a LAN may see."""

import base64
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import pytest
import trio

from overlay.app.client import connect_local
from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine, without_settings
from overlay.app.lab.options import Choice, LabOptions
from overlay.app.lab.staging import enrol
from overlay.app.lab.world import World
from overlay.core.certificates import verify_leaf
from overlay.net.background import background
from overlay.net.system import wall_clock
from overlay.store.identity import load_session_keys
from overlay.store.membership import load_certificate, load_mesh
from overlay.store.state import StateFolder
from tests.network.lab_kit import ROOT

pytestmark = [
    pytest.mark.network,
    pytest.mark.tpm,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="this host lacks tshark: install the Debian package tshark"),
]

MESH = "ochre-lantern-meadow"
NAMES = ("quartz-heron", "velvet-badger", "copper-walrus")
SERVER = "marble-otter"
PLAIN = b"plain-marker-5d1e7c"
CALLED = b"call-marker-c0ffee71"
PUBLISHED = b"publication-marker-8a2f"
TOPIC = "topic-of-tin-whistles"
BLOCK = 16  # bytes: nothing as long as this is met by chance
HANDSHAKE = 4096  # bytes each way, at most
EXAMPLE = ROOT / "examples" / "serve.py"
WITHIN = 60.0

Texts = Mapping[str, Callable[[bytes], bytes]]
ENCODINGS: Texts = {
    "raw": bytes,
    "lower case": bytes.lower,
    "upper case": bytes.upper,
    "hex": lambda secret: secret.hex().encode(),
    "upper hex": lambda secret: secret.hex().upper().encode(),
    "base32": lambda secret: base64.b32encode(secret).rstrip(b"=").lower(),
    "upper base32": lambda secret: base64.b32encode(secret).rstrip(b"="),
}


@dataclass(frozen=True)
class Capture:
    """A pcap file, as it is and as tshark understands it."""

    path: Path

    def fields(self, wanted: str, *names: str) -> list[list[str]]:
        """Some fields of the packets that a display filter takes."""
        chosen = [word for name in names for word in ("-e", name)]
        argv = ["tshark", "-n", "-r", str(self.path), "-Y", wanted, "-T", "fields", *chosen]
        ran = subprocess.run(argv, capture_output=True, text=True, check=True)
        return [line.split("\t") for line in ran.stdout.splitlines()]

    def streams(self) -> dict[tuple[int, int, str], bytes]:
        """What TCP carried, put together again: by sender, receiver and connection."""
        parts: dict[tuple[int, int, str], dict[int, bytes]] = defaultdict(dict)
        names = ("ip.src", "ipv6.src", "ip.dst", "ipv6.dst", "tcp.stream", "tcp.seq", "tcp.payload")
        for old_from, new_from, old_to, new_to, stream, seq, payload in self.fields("tcp.len > 0", *names):
            ends = number_of(old_from or new_from), number_of(old_to or new_to)
            parts[*ends, stream][int(seq)] = bytes.fromhex(payload)
        return {key: b"".join(part for _, part in sorted(found.items())) for key, found in parts.items()}

    def carried(self) -> set[tuple[int, int]]:
        """Who sent records to whom: more than a handshake has."""
        sizes: dict[tuple[int, int], int] = defaultdict(int)
        for (sender, receiver, _), data in self.streams().items():
            sizes[sender, receiver] += len(data)
        return {pair for pair, size in sizes.items() if size > HANDSHAKE}

    def announcers(self) -> set[int]:
        """Who answered for our service over mDNS."""
        wanted = 'udp.port == 5353 && dns.flags.response == 1 && dns.resp.name contains "_overlay._tcp"'
        return {number_of(old or new) for old, new in self.fields(wanted, "ip.src", "ipv6.src")}

    def finds(self, secrets: Mapping[str, bytes]) -> set[tuple[str, str]]:
        """Which secrets are in it, and in which form; in the packets, and in what TCP carried."""
        places = [self.path.read_bytes(), *self.streams().values()]
        return {
            (name, form)
            for name, secret in secrets.items()
            for form, encode in ENCODINGS.items()
            if any(block in place for block in blocks(encode(secret)) for place in places)
        }


def number_of(address: str) -> int:
    """Which host it is: 10.77.0.3 and fe80::77:3 are the third."""
    return int(address.rpartition(".")[2]) if "." in address else int(address.rpartition(":")[2], 16)


def blocks(text: bytes) -> set[bytes]:
    """Pieces of a text that cover it: whoever leaks a longer run of it, leaks one of them whole."""
    return {text[max(0, end - BLOCK) : end] for end in (*range(BLOCK, len(text), BLOCK), len(text))}


# --- the secrets ----------------------------------------------------------------------------------------------------


def secrets_of(machines: Iterable[Machine]) -> dict[str, bytes]:
    """All that these members have, and none of which a stranger on the LAN may see."""
    secrets = {"mesh name": MESH.encode(), "call": CALLED, "publication": PUBLISHED, "topic": TOPIC.encode()}
    for machine in machines:
        with StateFolder.open(machine.state, exclusive=False) as folder:
            mesh, stored, keys = load_mesh(folder), load_certificate(folder), load_session_keys(folder)
        assert mesh is not None
        assert stored is not None
        assert keys is not None
        certificate = verify_leaf(stored.leaf, stored.chain, mesh.root, wall_clock())
        assert certificate.name == machine.name
        secrets |= {"mesh id": mesh.root.mesh_id, "gate key": mesh.gate_key, "root": mesh.root.der, "policy": mesh.policy}
        own = {
            "name": machine.name.encode(), "id": certificate.node_id, "leaf": stored.leaf,
            "identity public key": certificate.identity.public_key, "endorsement": keys.endorsement,
            "static public key": keys.noise.public, "static private key": keys.noise_private,
            "message public key": keys.message.public_key, "message seed": keys.message_seed,
        }  # fmt: skip
        secrets |= {f"{what} of {machine.name}": secret for what, secret in own.items()}
    return secrets


# --- the lab --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def lan(folder: Path) -> AsyncIterator[tuple[World, Lab]]:
    """Three machines, not started yet, with keys and evidence that change every two seconds."""
    options = LabOptions(nodes=len(NAMES), rekey_after=2, attest_every=2)
    async with World.create(folder, nodes=0) as world, background() as tasks:
        await world.add_hosts(len(NAMES), tpm=True, names=NAMES)
        yield world, Lab(world, Choice("tpm", "namespaces"), options, tasks, lambda _: None)


async def serve(lab: Lab) -> Machine:
    """A fourth machine, on which the example runs and serves."""
    (host,) = await lab.world.add_hosts(tpm=True, names=[SERVER])
    server = await enrol(lab.recipe, host)
    settings = {"STATE": str(server.state), "LISTEN": f"{server.host.address}:0", "TCTI": server.host.tcti or ""}
    settings |= {"EVIDENCE": "tpm", "REKEY_AFTER": "2", "ATTEST_EVERY": "2"}
    variables = {f"OVERLAY_{name}": value for name, value in settings.items()}
    env = without_settings(os.environ) | variables | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    server.child = server.host.spawn([sys.executable, str(EXAMPLE)], env=env)
    assert await anext(server.child.lines, server.last_words()) == f"serving as {SERVER}"
    return server


async def talk(machines: list[Machine]) -> None:
    """A call and a publication, both of which arrive."""
    caller, publisher, reader = machines[:3]
    async with connect_local(caller.state) as node:
        peer = await node.wait_peer(SERVER)
        assert await peer.call("shout", CALLED) == CALLED.upper()
    async with connect_local(publisher.state) as node, connect_local(reader.state) as other:
        await node.wait_members(4)
        async with other.subscribe(TOPIC) as items:
            await node.publish(TOPIC, PUBLISHED)
            assert (await anext(items)).body == PUBLISHED


async def stop_all(machines: Iterable[Machine]) -> None:
    """In order, so that goodbyes are recorded, too."""
    async with trio.open_nursery() as nursery:
        for machine in machines:
            nursery.start_soon(machine.stop)


async def test_a_lan_shows_who_talks_to_whom_and_nothing_else(tmp_path: Path) -> None:
    main, control = Capture(tmp_path / "main.pcap"), Capture(tmp_path / "control.pcap")
    with trio.fail_after(WITHIN):
        async with lan(tmp_path) as (world, lab):
            async with world.capture(main.path):
                await lab.begin(MESH)
                machines = [*lab.machines, await serve(lab)]
                await talk(machines)
                await lab.wait_proven()
                await world.send_plain(*world.hosts[:2], PLAIN)
                await stop_all(machines)
            secrets = secrets_of(machines)
            async with world.capture(control.path):
                everything = [encode(secret) for secret in secrets.values() for encode in ENCODINGS.values()]
                await world.send_plain(*world.hosts[:2], b"\n".join(everything))

    everyone = {host.number for host in world.hosts}
    assert main.announcers() == everyone
    assert main.carried() == set(permutations(everyone, 2))
    assert ("plain", "raw") in main.finds({"plain": PLAIN})
    assert control.finds(secrets) == {(name, form) for name in secrets for form in ENCODINGS}
    assert main.finds(secrets) == set()
