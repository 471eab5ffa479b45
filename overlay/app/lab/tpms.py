"""A software TPM 2.0 (swtpm) per node, on unix sockets in the node's own folder."""

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from overlay.app.lab.processes import Child, start
from overlay.errors import HostLacks

PATH_MAX: Final = 108 - 1 - len(".ctrl")  # sun_path of unix(7), its zero byte, and what swtpm's clients append
READY_TIMEOUT: Final = 5.0  # seconds; it takes 0.01
GET_CAPABILITY: Final = (1).to_bytes(4, "big")  # CMD_GET_CAPABILITY of swtpm_ioctls(3), the most harmless command
HINT: Final = "install the Debian package swtpm, or use software evidence"


@dataclass(frozen=True, slots=True)
class SoftwareTpm:
    """A running TPM and the string by which TPM software finds it."""

    tcti: str
    child: Child
    folder: Path


def available() -> str | None:
    """None if this host has swtpm, else what it lacks."""
    return None if shutil.which("swtpm") else "the program swtpm is missing"


async def start_tpm(folder: Path) -> SoftwareTpm:
    """Start a TPM with its state in `folder`, new or as it was left; returns when it answers.

    Raises:
        HostLacks: there is no swtpm, or it does not start; or the folder's path is too long for a unix socket.
    """
    if (missing := available()) is not None:
        raise HostLacks(missing, hint=HINT)
    data, control = _make_room(folder)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(control))
        listener.listen()
        argv = _command(folder, data, listener.fileno())
        child = start(argv, name="swtpm", folder=folder, read_output=False, inherit=(listener.fileno(),))
    try:
        await _wait_ready(control)
    except (OSError, trio.BrokenResourceError, trio.TooSlowError):
        await child.kill()
        raise HostLacks(f"swtpm does not start; {child.log} says why", hint=HINT) from None
    except trio.Cancelled:
        await child.kill()
        raise
    return SoftwareTpm(f"swtpm:path={data}", child, folder)


def _make_room(folder: Path) -> tuple[Path, Path]:
    """The folder, without sockets of an earlier run; where the data and the control socket go. Raises HostLacks."""
    data, control = folder / "tpm.sock", folder / "tpm.sock.ctrl"
    if len(os.fsencode(data)) > PATH_MAX:
        raise HostLacks(f"{folder} is too long a path for unix sockets", hint="take a folder with a shorter path")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in (data, control):
        left.unlink(missing_ok=True)
    return data, control


def _command(folder: Path, data: Path, control: int) -> list[str]:
    """The listening control socket is handed over, so that one can connect to it before swtpm is there."""
    return [
        "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--flags", "not-need-init,startup-clear",
        "--server", f"type=unixio,path={data}", "--ctrl", f"type=unixio,fd={control}",
    ]  # fmt: skip


async def _wait_ready(control: Path) -> None:
    """An answer on the control socket: swtpm binds its other socket before it gives one."""
    with trio.fail_after(READY_TIMEOUT):
        async with await trio.open_unix_socket(str(control)) as stream:
            await stream.send_all(GET_CAPABILITY)
            if not await stream.receive_some():
                raise ConnectionError("swtpm closed its control socket")
