"""Real multicast: finders in network namespaces around a bridge, and on loopback."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from discovery.interfaces import Interface, list_interfaces
from discovery.mdns import MdnsFinder
from overlay.app.lab import namespaces
from overlay.app.lab.processes import Child
from overlay.app.lab.world import Host, World
from overlay.core.keys import NodeId, base32
from overlay.core.mesh.found import AnnouncementFacts, Candidate
from overlay.errors import HostLacks

pytestmark = pytest.mark.network

ROOT = Path(__file__).parents[2]
KEY, OTHER_KEY = b"gate key of the mesh, 32 bytes !", b"gate key of another, 32 bytes !!"
IDS = {name: NodeId(name.encode().ljust(32, b"*")) for name in ("alice", "bob", "mallory")}

FINDER = """
import json, secrets, signal, sys, trio
from functools import partial
from discovery.mdns import MdnsFinder
from overlay.core.keys import NodeId
from overlay.core.mesh.found import AnnouncementFacts

async def main(own, key, announce, *known):
    ids = [NodeId(bytes.fromhex(text)) for text in known]
    facts = AnnouncementFacts(port=4711, tag=secrets.token_bytes(8), node_id=NodeId(bytes.fromhex(own)),
                              gate_keys=(bytes.fromhex(key),), known=lambda: ids)
    def say(one):
        node = one.node_id and one.node_id.hex()
        print(json.dumps({"addresses": one.addresses, "node": node, "ours": one.ours}), flush=True)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(MdnsFinder(poll=0.2, announce=announce == "yes").run, facts, say))
            async for _ in signals:
                nursery.cancel_scope.cancel()

trio.run(main, *sys.argv[1:])
"""


@pytest.fixture(scope="module", autouse=True)
def host_can() -> None:
    if (lacking := namespaces.available()) is not None:
        pytest.skip(lacking)


@asynccontextmanager
async def lan(folder: Path, nodes: int = 2) -> AsyncIterator[World]:
    with trio.fail_after(60):
        async with World.create(folder, nodes=nodes, tpm=False) as world:
            yield world


def finder(host: Host, *, identity: str, key: bytes = KEY, announce: str = "yes") -> Child:
    ids = [one.hex() for one in IDS.values()]
    argv = [sys.executable, "-c", FINDER, IDS[identity].hex(), key.hex(), announce, *ids]
    return host.spawn(argv, env=os.environ | {"PYTHONPATH": str(ROOT)}, name=f"finder-{identity}")


async def heard(child: Child, address: str) -> dict[str, Any]:
    """The first candidate with this address."""
    async for line in child.lines:
        said: dict[str, Any] = json.loads(line)
        if any(address in (host, host.partition("%")[0]) for host, _ in said["addresses"]):
            return said
    raise AssertionError(f"{child.log.read_text()}: {address} was not heard")


async def run_ip(host: Host, *arguments: str) -> None:
    child = host.spawn(["ip", *arguments], name="ip", read_output=False)
    assert await child.wait() == 0, child.log.read_text()


async def test_two_hosts_find_and_recognise_each_other_on_all_their_addresses(tmp_path: Path) -> None:
    async with lan(tmp_path) as world:
        alice, bob = finder(world["alice"], identity="alice"), finder(world["bob"], identity="bob")
        assert await heard(alice, "10.77.0.2") == {
            "addresses": [["10.77.0.2", 4711], ["fe80::77:2%eth0", 4711]], "node": IDS["bob"].hex(), "ours": True,
        }  # fmt: skip
        assert (await heard(bob, "10.77.0.1"))["node"] == IDS["alice"].hex()


async def test_another_mesh_is_heard_and_not_recognised(tmp_path: Path) -> None:
    async with lan(tmp_path) as world:
        finder(world["alice"], identity="alice")
        other = finder(world["bob"], identity="mallory", key=OTHER_KEY)
        said = await heard(other, "10.77.0.1")
        assert (said["node"], said["ours"]) == (None, False)


async def test_who_only_listens_hears_the_others_and_says_nothing(tmp_path: Path) -> None:
    async with lan(tmp_path, nodes=3) as world:
        bob = finder(world["bob"], identity="bob", announce="no")
        alice = finder(world["alice"], identity="alice")
        assert (await heard(bob, "10.77.0.1"))["node"] == IDS["alice"].hex()
        carol = finder(world["carol"], identity="mallory")
        seen = [json.loads(await anext(carol.lines))["addresses"][0][0]]
        await heard(alice, "10.77.0.3")
        await bob.stop()
        await alice.stop()
        seen += [json.loads(line)["addresses"][0][0] async for line in alice.lines]
        assert "10.77.0.1" in seen and "10.77.0.2" not in seen


async def test_a_change_of_address_is_followed(tmp_path: Path) -> None:
    async with lan(tmp_path) as world:
        finder(world["alice"], identity="alice")
        bob = finder(world["bob"], identity="bob")
        await heard(bob, "10.77.0.1")
        await run_ip(world["alice"], "address", "del", "10.77.0.1/24", "dev", "eth0")
        await run_ip(world["alice"], "address", "add", "10.77.0.101/24", "dev", "eth0")
        assert (await heard(bob, "10.77.0.101"))["node"] == IDS["alice"].hex()


async def test_a_finder_that_was_there_before_the_network_hears_the_others_later(tmp_path: Path) -> None:
    async with lan(tmp_path) as world:
        await run_ip(world["alice"], "link", "set", "eth0", "down")
        alice, _ = finder(world["alice"], identity="alice"), finder(world["bob"], identity="bob")
        await run_ip(world["alice"], "link", "set", "eth0", "up")
        await heard(alice, "10.77.0.2")


async def test_each_interface_announces_its_own_addresses_only(tmp_path: Path) -> None:
    async with lan(tmp_path) as world:
        alice, bob = finder(world["alice"], identity="alice"), finder(world["bob"], identity="bob")
        await heard(bob, "10.77.0.1")
        peer = ("peer", "name", "lan2", "netns", str(bob.pid))
        await run_ip(world["alice"], "link", "add", "lan2", "type", "veth", *peer)
        for host, process in (("alice", None), ("bob", bob)):
            await run_ip(world[host], "address", "add", f"10.88.0.{1 if process is None else 2}/24", "dev", "lan2")
            await run_ip(world[host], "link", "set", "lan2", "up")
        async with world.capture(tmp_path / "lan.pcap"):
            said = await heard(bob, "10.88.0.1")
            assert [address.rpartition(".")[0] for address, _ in said["addresses"][:2]] == ["10.77.0", "10.88.0"]
            await alice.stop()  # its goodbyes name all of its addresses once more
        wire = (tmp_path / "lan.pcap").read_bytes()
        assert b"\n\x4d\x00\x01" in wire
        assert b"\n\x58\x00\x01" not in wire


async def test_nothing_on_the_wire_names_the_node_or_the_mesh_and_nothing_lives_longer_than_a_minute(
    tmp_path: Path,
) -> None:
    async with lan(tmp_path) as world:
        async with world.capture(tmp_path / "lan.pcap"):
            alice, bob = finder(world["alice"], identity="alice"), finder(world["bob"], identity="bob")
            await heard(alice, "10.77.0.2")
            await heard(bob, "10.77.0.1")
            await alice.stop()
            await bob.stop()
        wire = (tmp_path / "lan.pcap").read_bytes()
        for host in (b"\n\x4d\x00\x01", b"\n\x4d\x00\x02"):  # the control: both did announce
            assert wire.count(b"\x08_overlay\x04_tcp\x05local") and wire.count(host)
        for identity in ("alice", "bob"):
            assert not found_in(wire, IDS[identity], identity.encode(), KEY)
        assert ttls(tmp_path / "lan.pcap") <= {0, 60}
        assert 0 in ttls(tmp_path / "lan.pcap"), "no goodbye"


def found_in(wire: bytes, *secrets: bytes) -> list[bytes]:
    """Those that can be read in the capture: as they are, in hex, in base32, in either case."""
    lower = wire.lower()
    return [one for one in secrets for form in (one, one.hex().encode(), base32(one).encode()) if form.lower() in lower]


def ttls(capture: Path) -> set[int]:
    """Of all records in mDNS answers, read by another implementation."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not there to read the capture")
    argv = ["tshark", "-r", str(capture), "-Y", "mdns && dns.flags.response == 1", "-T", "fields", "-e", "dns.resp.ttl"]
    fields = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.replace(",", " ").split()
    return {int(field) for field in fields}


async def test_avahi_sees_the_announcement(tmp_path: Path) -> None:
    programs = ("avahi-daemon", "avahi-browse", "dbus-daemon", "unshare")
    path = f"{os.environ['PATH']}:/usr/sbin"
    if os.geteuid() != 0 or any(shutil.which(program, path=path) is None for program in programs):
        pytest.skip("avahi needs root, avahi-daemon, avahi-browse and dbus-daemon")
    with tempfile.TemporaryDirectory(prefix="bus-") as folder:  # a short path, for a unix socket
        address = f"unix:path={folder}/bus"
        await trio.Path(folder, "bus.conf").write_text(BUS.format(address=address))
        async with lan(tmp_path) as world:
            env = os.environ | {"PATH": path, "DBUS_SYSTEM_BUS_ADDRESS": address}
            spawn = partial(world["bob"].spawn, env=env)
            finder(world["alice"], identity="alice")
            bus = spawn(["dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork", "--print-address"], name="bus")
            await anext(bus.lines)
            daemon = spawn(["unshare", "-m", "sh", "-c", AVAHI], name="avahi", read_output=False)
            while not daemon.returncode and await (probe := spawn(["avahi-browse", "-at"], name="probe")).wait():
                await probe.end()
            browser = spawn(["avahi-browse", "-prk", "_overlay._tcp"], name="browse")
            async for line in browser.lines:
                fields = line.split(";")
                if fields[0] == "=" and fields[7] == "10.77.0.1":
                    break
            assert fields[8] == "4711", daemon.log.read_text()
            assert {item.strip('"').partition("=")[0] for item in fields[9].split()} == {"v", "p", "t", "m", "n"}


BUS = """
<busconfig><type>system</type><listen>{address}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_destination="*"/><allow receive_type="method_call"/><allow receive_type="method_return"/>
<allow receive_type="signal"/><allow receive_type="error"/><allow eavesdrop="true"/></policy></busconfig>
"""
AVAHI = """
mount -t tmpfs none /run && mkdir /run/avahi-daemon && exec avahi-daemon --no-drop-root --no-chroot --no-rlimits
"""


@pytest.mark.parametrize("include", [{"include_loopback": True}, {"only": ("lo",)}])
async def test_two_nodes_on_one_host_find_each_other_on_loopback(include: dict[str, Any]) -> None:
    loopback = [one for one in list_interfaces() if one.is_loopback]
    send, receive = trio.open_memory_channel[tuple[str, Candidate]](100)
    key = secrets.token_bytes(32)  # others may be on this host's loopback

    def facts(identity: str, port: int) -> AnnouncementFacts:
        known, tag = partial(list, IDS.values()), secrets.token_bytes(8)
        return AnnouncementFacts(port=port, tag=tag, node_id=IDS[identity], gate_keys=(key,), known=known)

    def note(who: str, candidate: Candidate) -> None:
        if candidate.ours:
            send.send_nowait((who, candidate))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for port, identity in enumerate(("alice", "bob"), 4001):
                one = MdnsFinder(interfaces=lambda: tuple(loopback), **include)
                nursery.start_soon(partial(one.run, facts(identity, port), partial(note, identity)))
            met: dict[str, Candidate] = {}
            while len(met) < 2:
                who, candidate = await receive.receive()
                met[who] = candidate
            nursery.cancel_scope.cancel()
    assert (met["alice"].node_id, met["bob"].node_id) == (IDS["bob"], IDS["alice"])
    assert ("127.0.0.1", 4002) in met["alice"].addresses


async def test_a_host_that_may_join_no_multicast_group_says_so(tmp_path: Path) -> None:
    async with lan(tmp_path, nodes=1) as world:
        forbid = "ip -6 address flush dev eth0 && echo 0 > /proc/sys/net/ipv4/igmp_max_memberships"
        assert await world["alice"].spawn(["sh", "-c", forbid], name="forbid").wait() == 0
        child = finder(world["alice"], identity="alice")
        assert await child.wait() == 1
        assert "HostLacks: multicast works on no interface" in child.log.read_text()


@pytest.mark.parametrize("nowhere", [(), (Interface("gone0", 4242, ("192.0.2.77", "fe80::77")),)])
async def test_a_host_without_multicast_says_so(nowhere: Iterable[Interface]) -> None:
    facts = AnnouncementFacts(port=1, tag=bytes(8), node_id=IDS["alice"], gate_keys=(KEY,), known=lambda: ())
    with pytest.raises(HostLacks):
        await MdnsFinder(interfaces=lambda: tuple(nowhere)).run(facts, lambda _: None)
