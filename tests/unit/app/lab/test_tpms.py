"""Software TPMs: that they answer, keep their state, and end; what is said where there are none."""

import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from overlay.app.lab import tpms
from overlay.app.lab.processes import Child
from overlay.app.lab.tpms import SoftwareTpm, start_tpm
from overlay.errors import HostLacks

needs_swtpm = pytest.mark.skipif(tpms.available() is not None, reason=str(tpms.available()))
needs_tools = pytest.mark.skipif(shutil.which("tpm2_pcrread") is None, reason="tpm2-tools are not there")


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[SoftwareTpm]:
    tpm = await start_tpm(folder)
    try:
        yield tpm
    finally:
        await tpm.child.end()


def tool(tpm: SoftwareTpm, *argv: str) -> str:
    return subprocess.run([*argv, "-T", tpm.tcti], capture_output=True, text=True, check=True).stdout


@needs_swtpm
@needs_tools
async def test_a_tpm_answers_at_once_and_again(tmp_path: Path) -> None:
    async with running(tmp_path / "tpm") as tpm:
        assert tpm.tcti == f"swtpm:path={tmp_path}/tpm/tpm.sock"
        for _ in range(2):
            assert "14: 0x" + "0" * 64 in tool(tpm, "tpm2_pcrread", "sha256:14")


@needs_swtpm
@needs_tools
async def test_two_tpms_are_two_and_each_is_itself_after_a_restart(tmp_path: Path) -> None:
    def endorsement(tpm: SoftwareTpm, name: str) -> bytes:
        public = tmp_path / f"{name}.pub"
        tool(tpm, "tpm2_createek", "-G", "ecc", "-c", str(tmp_path / f"{name}.ctx"), "-u", str(public))
        return public.read_bytes()

    async with running(tmp_path / "a") as first, running(tmp_path / "b") as second:
        ours, other = endorsement(first, "a"), endorsement(second, "b")
    async with running(tmp_path / "a") as again:
        assert endorsement(again, "again") == ours != other


@needs_swtpm
async def test_a_folder_with_too_long_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostLacks, match="too long"):
        await start_tpm(tmp_path / ("x" * 100))


async def test_a_host_without_swtpm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tpms.available() == "the program swtpm is missing"
    with pytest.raises(HostLacks, match="swtpm") as error:
        await start_tpm(tmp_path / "tpm")
    assert error.value.exit_code == 3
    assert error.value.hint


@pytest.mark.parametrize("does", ["echo no memory >&2", "sleep 60"])
async def test_a_swtpm_that_does_not_answer_is_ended_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    program = tmp_path / "swtpm"
    program.write_text(f"#!/bin/sh\n{does.replace('sleep', 'exec sleep')}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(tpms, "READY_TIMEOUT", 0.3)
    started: list[Child] = []
    monkeypatch.setattr(tpms, "start", lambda *args, **kw: started.append(START(*args, **kw)) or started[-1])
    with pytest.raises(HostLacks, match=r"swtpm\.err"):
        await start_tpm(tmp_path / "tpm")
    assert started[0].returncode in (0, -signal.SIGKILL)


START = tpms.start
