"""The lab's world on loopback, where no namespaces are needed."""

import os
import socket
import sys
from pathlib import Path

import pytest
import trio

from overlay.app.lab import tpms
from overlay.app.lab.world import NAMES, World
from overlay.errors import CheckFailed, HostLacks

needs_swtpm = pytest.mark.skipif(tpms.available() is not None, reason=str(tpms.available()))
SLEEP = [sys.executable, "-ISc", "import signal; print('up', flush=True); signal.pause()"]


async def test_hosts_have_names_folders_and_an_address(tmp_path: Path) -> None:
    async with World.create(tmp_path / "lab", nodes=11, network="loopback", tpm=False) as world:
        assert tuple(host.name for host in world.hosts) == (*NAMES, "node11")
        assert {host.address for host in world.hosts} == {"127.0.0.1"}
        assert all(host.folder.is_dir() and host.folder.stat().st_mode & 0o077 == 0 for host in world.hosts)
        assert [host.tcti for host in world.hosts] == [None] * 11
        (extra,) = await world.add_hosts(names=["mallory"])
        assert world["mallory"] is extra
        assert extra.number == 12


async def test_everything_spawned_ends_with_the_world(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="ours"):
        async with World.create(tmp_path, nodes=2, network="loopback", tpm=False) as world:
            children = [host.spawn(SLEEP) for host in world.hosts for _ in range(2)]
            for child in children:
                await anext(child.lines)
            raise KeyError("ours")
    assert all(child.returncode is not None for child in children)


async def test_a_cancelled_world_ends_too(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with World.create(tmp_path, nodes=1, network="loopback", tpm=False) as world:
            child = world.hosts[0].spawn(SLEEP)
            await anext(child.lines)
            scope.cancel()
            await trio.sleep_forever()
    assert child.returncode is not None


@needs_swtpm
async def test_each_host_has_a_tpm_that_ends_with_the_world(tmp_path: Path) -> None:
    async with World.create(tmp_path, nodes=2, network="loopback") as world:
        assert len({host.tcti for host in world.hosts}) == 2
        running = [host.tpm.child for host in world.hosts if host.tpm is not None]
        assert [child.returncode for child in running] == [None, None]
    assert all(child.returncode is not None for child in running)


@needs_swtpm
async def test_sockets_go_to_a_short_path_when_the_folder_is_deep_and_go_away_with_the_world(tmp_path: Path) -> None:
    async with World.create(tmp_path / ("deep" * 25), nodes=1, network="loopback") as world:
        assert world.hosts[0].tcti is not None
        sockets = Path(world.hosts[0].tcti.partition("=")[2]).parents[1]
        assert sockets.is_dir()
    assert not sockets.exists()


async def test_a_world_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(HostLacks):
        async with World.create(tmp_path, nodes=1, network="loopback"):
            pytest.fail("there is no TPM")
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_plain_bytes_arrive_and_if_they_do_not_the_control_fails(tmp_path: Path) -> None:
    async with World.create(tmp_path, nodes=2, network="loopback", tpm=False) as world:
        one, two = world.hosts
        await world.send_plain(one, two, b"marker", port=free_port())
        with socket.create_server(("127.0.0.1", 0)) as busy, pytest.raises(CheckFailed):
            await world.send_plain(one, two, b"marker", port=busy.getsockname()[1])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def test_there_is_nothing_to_capture_without_namespaces(tmp_path: Path) -> None:
    async with World.create(tmp_path, nodes=1, network="loopback", tpm=False) as world:
        with pytest.raises(HostLacks):
            async with world.capture(tmp_path / "lan.pcap"):
                pytest.fail("loopback is not ours to capture")
