"""The README's two commands on a fresh Debian: a minimal root made by debootstrap, with bash and apt and little else.

The mirror, the proxies, the certificates and the settings of pip are those of this host, read when the test runs.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
REPORT_OPTIONS = "--evidence tpm --network namespaces --rekey-after 5 --attest-every 5 --once --json"

PASSED_ON = re.compile(r"^((https?|no|all|ftp)_proxy|pip_(.*url|trusted_host|default_timeout))$", re.IGNORECASE)
HOST_SETTINGS = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/apt/apt.conf.d")
TRUSTED = "/etc/trusted-by-the-host.pem"  # not where the package ca-certificates writes its own
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# In mount and process namespaces of its own, so that nothing stays mounted or runs on, whatever happens. By pivot_root,
# because the kernel lets nobody in a chroot make user namespaces, which the lab of an unprivileged user is made of.
ENTER = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount -t sysfs sysfs "$1/sys"
mount -t tmpfs -o mode=755 dev "$1/dev"
for node in null zero full random urandom tty; do
    touch "$1/dev/$node" && mount --bind "/dev/$node" "$1/dev/$node"
done
mkdir -p "$1/dev/shm" "$1/dev/pts" "$1/dev/net"
if [ -e /dev/net/tun ]; then touch "$1/dev/net/tun" && mount --bind /dev/net/tun "$1/dev/net/tun"; fi
mount -t tmpfs -o mode=1777 shm "$1/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$1/dev/pts" && ln -s pts/ptmx "$1/dev/ptmx"
ln -s /proc/self/fd "$1/dev/fd"
cd "$1"
mkdir .outside
pivot_root . .outside
hash -r
umount --lazy /.outside
rmdir /.outside
exec /bin/bash -c "$2"
"""


def missing() -> str:
    """Why this host cannot do it; empty if it can."""
    if os.geteuid() != 0:
        return "debootstrap needs root"
    programs = ("debootstrap", "unshare", "pivot_root", "git")
    absent = [name for name in programs if shutil.which(name, path=search_path()) is None]
    if absent:
        return f"this host lacks {', '.join(absent)}"
    return "" if mirror() else "no Debian mirror in the apt sources of this host"


def search_path() -> str:
    return os.environ["PATH"] + ":/usr/sbin:/sbin"


def mirror() -> str | None:
    """The first Debian mirror of the host's apt sources, in either format."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for file in files:
        text = file.read_text() if file.is_file() else ""
        for found in re.finditer(r"^(?:deb\s+(?:\[[^]]*\]\s+)?|URIs:\s*)(\S+)", text, re.MULTILINE):
            if found[1].rstrip("/").endswith("/debian"):
                return found[1]
    return None


def environment() -> dict[str, str]:
    """What the commands inside get from outside: how to reach the network, nothing else."""
    passed_on = {name: value for name, value in os.environ.items() if PASSED_ON.match(name)}
    trusted = dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT"), TRUSTED) if trusted_file() else {}
    return {**passed_on, **trusted, "PATH": SYSTEM_PATH, "HOME": "/root", "LANG": "C.UTF-8"}


def trusted_file() -> Path | None:
    """The certificates that this host trusts, perhaps a proxy's among them."""
    known = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    return Path(known) if known and Path(known).is_file() else None


def inside(root: Path, command: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a shell command in the root. Standard error goes to this test's own."""
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", ENTER, "enter", str(root), command],
        env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def copy_host_settings(root: Path) -> None:
    """What this host uses to reach the network, at the same places in the root."""
    for name in HOST_SETTINGS:
        source, target = Path(name), root / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            for file in source.glob("*proxy*"):
                shutil.copy(file, target)
        elif source.exists():
            with contextlib.suppress(FileNotFoundError):
                target.unlink()
            shutil.copy(source.resolve(), target)
    if trusted := trusted_file():
        shutil.copy(trusted, root / TRUSTED.lstrip("/"))


def clone(target: Path) -> None:
    """A clone as a user would make it, with the changes of the working tree that are not committed yet."""
    git = ["git", "-c", "safe.directory=*"]
    subprocess.run([*git, "clone", "-q", "--no-hardlinks", str(ROOT), str(target)], check=True)
    command = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A minimal Debian with the project in /home/somebody/overlay."""
    if reason := missing():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("debian") / "root"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", SUITE, str(root), str(mirror())],
        env={**os.environ, "PATH": search_path()}, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False,
    )  # fmt: skip
    assert made.returncode == 0
    copy_host_settings(root)
    (root / "home/somebody").mkdir(parents=True)
    clone(root / "home/somebody/overlay")
    yield root
    shutil.rmtree(root)


@pytest.mark.slow
def test_the_demo_runs_on_a_fresh_debian(debian: Path) -> None:
    done = inside(debian, f"cd /home/somebody/overlay && ./run demo --yes {REPORT_OPTIONS}", timeout=900)
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)  # and so nothing else is on standard output
    assert report["ok"]
    assert report["degraded"] == []
    assert [scene["name"] for scene in report["scenes"] if scene["status"] != "passed"] == []


@pytest.mark.slow
def test_an_unprivileged_user_can_run_the_demo_once_the_packages_are_there(debian: Path) -> None:
    assert inside(debian, "cd /home/somebody/overlay && ./run --yes demo --help", timeout=900).returncode == 0
    prepare = "cp -r /home/somebody/overlay /srv/mine; rm -rf /srv/mine/.venv; useradd -M -d /nowhere nobody-else"
    assert inside(debian, f"{prepare}; chown -R nobody-else /srv/mine", timeout=60).returncode == 0
    command = f"cd /srv/mine && ./run demo {REPORT_OPTIONS} --scenes stranger"
    done = inside(debian, f"runuser -u nobody-else -- env HOME=/nowhere bash -c {shlex.quote(command)}", timeout=600)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["ok"]


@pytest.mark.slow
def test_the_tests_are_found_on_a_fresh_debian(debian: Path) -> None:
    done = inside(debian, "cd /home/somebody/overlay && ./run test --yes --collect-only -q", timeout=900)
    assert done.returncode == 0, done.stdout
    assert "test_contracts.py" in done.stdout
