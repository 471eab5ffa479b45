"""What a user would take in place of forwarding: `ssh -L` and stunnel, each with its server on the other core."""

import contextlib
import os
import pwd
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from overlay.errors import HostLacks

UP_WITHIN = 10.0
SOURCE = """
import socket, sys, time
port, total, block = int(sys.argv[1]), int(sys.argv[2]), memoryview(bytes(65536))
with socket.create_connection(("127.0.0.1", port)) as one:
    one.sendall(bytes(8)); assert one.recv(1) == b"!"
    one.sendall(b"x")
with socket.create_connection(("127.0.0.1", port)) as one:
    began = time.perf_counter()
    one.sendall(total.to_bytes(8, "big"))
    for _ in range(total // 65536):
        one.sendall(block)
    assert one.recv(1) == b"!"
    print(total / (time.perf_counter() - began) / 1e9)
"""  # the first connection warms all ends up


def our_core() -> int:
    """Where this end runs, and the clients."""
    return min(os.sched_getaffinity(0))


def other_core() -> int:
    """Where the other end runs."""
    return max(range(os.cpu_count() or 1))


def rate(port: int, total: int) -> float:
    """GB/s of one program that sends so many bytes to a local port, until the sink has all of them."""
    done = subprocess.run([sys.executable, "-c", SOURCE, str(port), str(total)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def stunnel(folder: Path, certificates: Path, target: int) -> Iterator[int]:
    """A pair of stunnel processes, TLS 1.3 with AES-256-GCM: the port that leads to the target."""
    program = shutil.which("stunnel4") or shutil.which("stunnel")
    if program is None:
        raise HostLacks("this host lacks stunnel: install the Debian package stunnel4")
    here, there = free_port(), free_port()
    common = "foreground = yes\ndebug = 2\nsslVersion = TLSv1.3\nciphersuites = TLS_AES_256_GCM_SHA384\n"
    certificate = f"cert = {certificates}/server.pem\n"
    server = f"{common}{certificate}[s]\naccept = 127.0.0.1:{there}\nconnect = 127.0.0.1:{target}\n"
    client = f"{common}client = yes\n[c]\naccept = 127.0.0.1:{here}\nconnect = 127.0.0.1:{there}\n"
    with contextlib.ExitStack() as stack:
        for name, text, core in (("server", server, other_core()), ("client", client, our_core())):
            (folder / f"{name}.conf").write_text(text)
            stack.enter_context(_process([program, str(folder / f"{name}.conf")], core))
        _wait_for(here)
        yield here


@contextlib.contextmanager
def ssh(folder: Path, target: int) -> Iterator[int]:
    """`ssh -L` with AES-256-GCM to an sshd of our own: the port that leads to the target."""
    server = shutil.which("sshd")
    if server is None or shutil.which("ssh") is None:
        raise HostLacks("this host lacks an SSH server: install the Debian package openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in, without which it does not start as root
    here, there = free_port(), free_port()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    settings = [
        f"HostKey={folder}/host", f"AuthorizedKeysFile={folder}/authorized", "StrictModes=no", "PasswordAuthentication=no",
        "UsePAM=no", f"PidFile={folder}/pid", "PermitRootLogin=yes", "ListenAddress=127.0.0.1",
    ]  # fmt: skip
    command = [server, "-D", "-e", "-f", "/dev/null", "-p", str(there), *(word for one in settings for word in ("-o", one))]
    options = [
        "-N", "-F", "/dev/null", "-i", f"{folder}/user", "-c", "aes256-gcm@openssh.com", "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-p", str(there), "-L", f"{here}:127.0.0.1:{target}",
        f"{pwd.getpwuid(os.geteuid()).pw_name}@127.0.0.1",
    ]  # fmt: skip
    with _process(command, other_core()):
        _wait_for(there)
        with _process(["ssh", *options], our_core()):
            _wait_for(here)
            yield here


@contextlib.contextmanager
def _process(command: list[str], core: int) -> Iterator[None]:
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + UP_WITHIN
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise HostLacks(f"nothing listens on port {port} after {UP_WITHIN:g} s") from None
            select.select([], [], [], 0.05)  # it tells nobody when it listens
        else:
            return
