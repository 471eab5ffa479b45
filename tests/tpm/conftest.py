"""A bare swtpm per test: it says itself when it is ready, and is ended by its own process id."""

import os
import select
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from attest.tpm import Tpm


def _two_free_ports() -> int:
    """The first of two ports in a row, both free a moment ago: libtss2 expects the control channel at the next port."""
    for _ in range(100):
        with socket.socket() as server, socket.socket() as control, suppress(OSError):
            server.bind(("127.0.0.1", 0))
            port = int(server.getsockname()[1])
            control.bind(("127.0.0.1", port + 1))
            return port
    raise OSError("no two free ports in a row")


class Swtpm:
    """A TPM emulator whose state and ports outlive its process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        for _ in range(10):
            self.port = _two_free_ports()
            if self._run():
                return
        raise OSError("swtpm does not start")

    @property
    def tcti(self) -> str:
        return f"swtpm:host=127.0.0.1,port={self.port}"

    @property
    def process_id(self) -> int:
        """Of the emulator that runs; 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Power on."""
        if not self._run():
            raise OSError("swtpm does not start again")

    def stop(self) -> None:
        """Power off: ends this very process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _run(self) -> bool:
        """Start it; it writes its process id into a pipe when its ports are open, or it ends."""
        pipe = self._folder / "ready"
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
        command = [
            "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._folder}", "--flags", "not-need-init,startup-clear",
            "--server", f"type=tcp,port={self.port}", "--ctrl", f"type=tcp,port={self.port + 1}",
            "--pid", f"file={pipe}",
        ]
        with open(pipe, "r+b", buffering=0) as ready:  # for writing too: then the pipe never ends before it begins
            self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            with open(os.pidfd_open(self._process.pid), "rb", buffering=0) as ended:
                if ready in select.select([ready, ended], [], [], 30)[0]:
                    return True
        self.stop()
        return False


@pytest.fixture
def swtpm(tmp_path: Path) -> Iterator[Swtpm]:
    if shutil.which("swtpm") is None:
        pytest.skip("this host lacks swtpm")
    folder = tmp_path / "swtpm"
    folder.mkdir()
    emulator = Swtpm(folder)
    yield emulator
    emulator.stop()


@pytest.fixture
def tpm_module() -> ModuleType:
    pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")
    from attest import tpm

    return tpm


@pytest.fixture
def tpm(swtpm: Swtpm, tpm_module: ModuleType) -> "Iterator[Tpm]":
    with tpm_module.Tpm.open(swtpm.tcti, timeout=20) as opened:
        yield opened


@pytest.fixture
def tool() -> "Tool":
    if shutil.which("tpm2_checkquote") is None:
        pytest.skip("this host lacks tpm2-tools")
    return Tool()


class Tool:
    """Runs the programs of tpm2-tools: code that shares nothing with ours."""

    def run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [program, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
