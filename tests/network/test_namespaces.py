"""The LAN in a box: real namespaces, as whoever runs the tests and, where that is root, as somebody without rights."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from overlay.app.lab import namespaces, tpms
from overlay.app.lab.keeper import BRIDGE
from overlay.app.lab.namespaces import KEEPER, NODES_MAX, Namespaces
from overlay.app.lab.world import World
from overlay.errors import CheckFailed, HostLacks

pytestmark = pytest.mark.network

ROOT = Path(__file__).parents[2]
MARKER = b"plain marker 9f3c"


@pytest.fixture(scope="module", autouse=True)
def host_can() -> None:
    if (lacking := namespaces.available()) is not None:
        pytest.skip(lacking)


@asynccontextmanager
async def lan(folder: Path, nodes: int = 2) -> AsyncIterator[World]:
    with trio.fail_after(60):
        async with World.create(folder, nodes=nodes, tpm=False) as world:
            yield world


def seen_from_outside() -> tuple[object, ...]:
    """What of the network a process beside us could see change."""
    named = sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else []
    return socket.if_nameindex(), os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/user"), named


async def test_hosts_reach_each_other_and_nothing_of_it_shows_outside(tmp_path: Path) -> None:
    before = seen_from_outside()
    async with lan(tmp_path, nodes=5) as world:
        assert [host.address for host in world.hosts] == [f"10.77.0.{number}" for number in range(1, 6)]
        await world.send_plain(world["alice"], world["erin"], MARKER)
        assert seen_from_outside() == before
    assert seen_from_outside() == before


async def test_a_host_has_one_ethernet_with_an_ipv4_and_a_link_local_address(tmp_path: Path) -> None:
    async with lan(tmp_path) as world:
        child = world["bob"].spawn(["ip", "-json", "address"])
        shown = json.loads("".join([line async for line in child.lines]))
        found = {link["ifname"]: [one["local"] for one in link["addr_info"]] for link in shown}
        assert found["eth0"] == ["10.77.0.2", "fe80::77:2"]
        assert found.keys() == {"lo", "eth0"}


async def test_a_host_that_comes_later_is_on_the_same_lan(tmp_path: Path) -> None:
    async with lan(tmp_path, nodes=1) as world:
        (mallory,) = await world.add_hosts(names=["mallory"])
        assert mallory.address == "10.77.0.2"
        await world.send_plain(world["alice"], mallory, MARKER)


async def test_a_capture_shows_what_two_hosts_say_to_each_other_from_the_first_byte_to_the_last(tmp_path: Path) -> None:
    async with lan(tmp_path, nodes=3) as world:
        async with world.capture(tmp_path / "lan.pcap"):
            await world.send_plain(world["alice"], world["bob"], MARKER)
        assert MARKER in (tmp_path / "lan.pcap").read_bytes()
        if shutil.which("tshark"):
            argv = ["tshark", "-r", str(tmp_path / "lan.pcap"), "-Y", "tcp.flags.syn == 1", "-Tfields", "-e", "ip.dst"]
            shown = await trio.run_process(argv, capture_stdout=True, capture_stderr=True)
            assert shown.stdout.decode().split() == ["10.77.0.2", "10.77.0.1"]  # both ways


async def test_a_capture_that_lost_its_end_is_no_capture(tmp_path: Path) -> None:
    async with lan(tmp_path) as world:
        with pytest.raises(CheckFailed):
            async with world.capture(tmp_path / "lan.pcap"):
                await world._children[-1].kill()


async def test_a_capture_does_not_overwrite_a_file(tmp_path: Path) -> None:
    (tmp_path / "lan.pcap").write_text("mine")
    async with lan(tmp_path) as world:
        with pytest.raises(HostLacks, match=r"sniffer\.err"):
            async with world.capture(tmp_path / "lan.pcap"):
                pytest.fail("the file was there")
    assert (tmp_path / "lan.pcap").read_text() == "mine"


async def test_namespaces_leave_no_descriptor_behind() -> None:
    await (await trio_warm()).aclose()
    before = sorted(os.listdir("/proc/self/fd"))
    spaces = await Namespaces.create(2)
    assert len(os.listdir("/proc/self/fd")) > len(before)
    spaces.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


async def trio_warm() -> trio.SocketStream:
    """Whatever trio opens once only, opened."""
    await trio.to_thread.run_sync(lambda: None)
    left, right = trio.socket.socketpair()
    right.close()
    return trio.SocketStream(left)


async def test_more_hosts_than_there_is_room_for_are_refused() -> None:
    with pytest.raises(HostLacks, match=str(NODES_MAX)):
        await Namespaces.create(NODES_MAX + 1)


def test_a_host_that_allows_no_namespaces_is_told_so_in_one_line() -> None:
    """A user namespace in which no more network namespaces can be made stands for such a host."""
    keeper = f"exec {sys.executable} -IS {KEEPER} 1 -1 -1 1 1"
    argv = ["unshare", "-Ur", "sh", "-c", f"echo 0 > /proc/sys/user/max_net_namespaces && {keeper}"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ran.returncode == 3
    assert ran.stderr.startswith("network namespaces are not allowed here")
    assert len(ran.stderr.splitlines()) == 1


# --- the whole lab, killed or asked to end, with and without rights -------------------------------------------------

LAB = """
import sys, trio
from pathlib import Path
from overlay.app.lab.processes import cancel_on_signal
from overlay.app.lab.world import World

SLEEP = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True)\\nwhile True: signal.pause()"

async def main(folder, tpm):
    async with trio.open_nursery() as nursery:
        await nursery.start(cancel_on_signal, nursery.cancel_scope)
        async with World.create(Path(folder), nodes=3, tpm=tpm == "tpm") as world:
            async with world.capture(Path(folder) / "lan.pcap"):
                children = [host.spawn([sys.executable, "-ISc", SLEEP]) for host in world.hosts]
                for child in children:
                    await anext(child.lines)
                await world.send_plain(world.hosts[0], world.hosts[1], b"marker")
                running = [child for child in (*world._children, *world._tpms) if child.returncode is None]
                print(*(child.pid for child in running), flush=True)
                await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""


@pytest.fixture(params=["as we are", "as nobody"])
def command(request: pytest.FixtureRequest) -> Iterator[tuple[list[str], Path]]:
    """How to start Python, and a folder where it may write."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        if request.param == "as we are":
            yield [sys.executable], Path(folder)
            return
        if os.geteuid() != 0:
            pytest.skip("we are without rights as it is")
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        prefix = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        for python in (sys.executable, "/usr/bin/python3"):
            test = [*prefix, "sh", "-c", '"$1" -c "import overlay.app.lab.world"', "sh", python]  # an exec without rights
            if subprocess.run(test, env=environment(), check=False, capture_output=True).returncode == 0:
                yield [*prefix, python], Path(folder)
                return
        pytest.skip("nobody may run no Python that has our packages")


def environment() -> dict[str, str]:
    packages = [path for path in sys.path if "-packages" in path]
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *packages])}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_a_lab_that_ends_takes_everything_along_within_two_seconds(
    command: tuple[list[str], Path], number: signal.Signals
) -> None:
    python, folder = command
    tpm = "tpm" if tpms.available() is None else "no"
    lab = launch([*python, "-c", LAB, str(folder), tpm])
    try:
        pids = [int(pid) for pid in first_line(lab).split()]
        assert len(pids) == (7 if tpm == "tpm" else 4)
        descriptors = [os.pidfd_open(pid) for pid in pids]
        lab.send_signal(number)
        with trio.fail_after(2):
            for descriptor in descriptors:
                await trio.lowlevel.wait_readable(descriptor)
                os.close(descriptor)
        assert lab.wait(timeout=1) == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    finally:
        lab.kill()
        lab.wait()
    assert BRIDGE not in [name for _, name in socket.if_nameindex()]


def launch(argv: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment())


def first_line(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stdout is not None
    with process.stdout as output:
        return output.readline()
