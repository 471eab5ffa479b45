"""What is around a run: keys, kernel settings, folders and memory of the machine stay out of its reach, whoever started it."""

import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overlay.app.work.calls import OF_MACHINE, filter_of
from overlay.app.work.inside import MESSAGE_MAX
from overlay.app.work.kernel import KEYCTL
from overlay.app.work.launch import resident
from overlay.app.work.launcher import MODULE
from overlay.app.work.rooms import _open_folder
from overlay.core.work.workload import RunLimits
from overlay.events import WorkStarted
from overlay.registry import WorkState
from tests.shell.work_kit import LIMITS, crew

ADD_KEY = {"x86_64": 248, "aarch64": 217, "riscv64": 217}
SESSION = -3  # KEY_SPEC_SESSION_KEYRING, <linux/keyctl.h>
SEARCH = 10  # KEYCTL_SEARCH
UNLINK = 9  # KEYCTL_UNLINK
NAME = b"overlay-test-key"

root = pytest.mark.skipif(os.geteuid() != 0, reason="root only: it mounts")


@contextmanager
def session_key() -> Iterator[None]:
    """A key in the session keyring of this process, which its children have, too."""
    libc, machine = ctypes.CDLL(None, use_errno=True), os.uname().machine
    key = libc.syscall(ADD_KEY[machine], b"user", NAME, b"secret", 6, SESSION)
    if key < 0:
        pytest.skip("this kernel, or what is around us, has no keyrings")
    try:
        yield
    finally:
        libc.syscall(KEYCTL[machine], UNLINK, key, SESSION)


async def test_a_run_does_not_find_the_keys_in_the_session_of_its_worker() -> None:
    code = b"""import ctypes, sys
libc = ctypes.CDLL(None)
print(libc.syscall(int(sys.argv[1]), 10, -3, b"user", sys.argv[2].encode(), 0))
"""
    with session_key():
        assert ctypes.CDLL(None).syscall(KEYCTL[os.uname().machine], SEARCH, SESSION, b"user", NAME, 0) > 0
        async with crew() as found:
            result = await found.run(code, arguments=(str(KEYCTL[os.uname().machine]), NAME.decode()))
            assert await found.output(result) == b"-1\n"


def test_keys_are_left_behind_also_where_calls_are_not_filtered() -> None:
    code = """import ctypes, sys
from overlay.app.work import kernel
kernel.leave_keyring()
print(ctypes.CDLL(None).syscall(int(sys.argv[1]), 10, -3, b"user", sys.argv[2].encode(), 0))
"""
    with session_key():
        command = [sys.executable, "-c", code, str(KEYCTL[os.uname().machine]), NAME.decode()]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b"-1\n"


async def test_a_run_gets_no_rights_in_a_namespace_of_its_own() -> None:
    code = b"import ctypes\nlibc = ctypes.CDLL(None)\nprint(libc.unshare(0x10000000), libc.unshare(0x10020000))"
    async with crew() as found:
        assert await found.output(await found.run(code)) == b"-1 -1\n"


async def test_a_run_changes_no_setting_of_the_kernel() -> None:
    code = b"""import os
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/user/max_user_namespaces", "/proc/sys/kernel/hostname"):
  try: os.close(os.open(path, os.O_WRONLY)); print(path)
  except OSError as error: print(error.errno in (1, 13, 30))
rows = [line.split() for line in open("/proc/self/mountinfo")]
print([row[5].split(",")[0] for row in rows if row[4] == "/proc/sys"])
"""
    async with crew() as found:
        assert await found.output(await found.run(code)) == b"True\n" * 3 + b"['ro']\n"


async def test_a_run_uses_no_calls_that_lead_around_its_namespaces() -> None:
    code = b"""import errno, socket, ctypes, sys
for family in (40, 17, 38):  # AF_VSOCK, AF_PACKET, AF_ALG
  try: socket.socket(family, socket.SOCK_DGRAM); print('open')
  except OSError as error: print(error.errno == errno.EAFNOSUPPORT)
for family in (1, 2, 10, 16): socket.socket(family, socket.SOCK_DGRAM).close()
libc = ctypes.CDLL(None, use_errno=True)
for number in sys.argv[1:]:
  print(libc.syscall(int(number), 0, 0, 0, 0, 0), ctypes.get_errno() == errno.EPERM)
"""
    numbers = [str(number) for number in OF_MACHINE[os.uname().machine].refused]
    async with crew() as found:
        result = await found.run(code, arguments=tuple(numbers))
        started = await found.wait_event(WorkStarted)
        assert started is not None
        assert await found.output(result) == b"True\n" * 3 + b"-1 True\n" * 8


def test_the_filter_of_calls_is_made_for_each_architecture() -> None:
    lengths = {len(filter_of(machine)) % 8 for machine in ("x86_64", "aarch64", "riscv64")}
    assert lengths == {0}
    with pytest.raises(KeyError):
        filter_of("s390x")


async def test_runs_do_not_take_processes_from_each_other() -> None:
    hog = b"import os, time\nfor _ in range(30):\n  if not os.fork(): time.sleep(600)\ntime.sleep(600)\n"
    small = b"import os\nif not os.fork(): os._exit(0)\nos.wait()\nprint('forked')\n"
    async with crew() as found:
        await found.place(found.sign(hog, limits=RunLimits(seconds=60, memory=LIMITS.memory, processes=40)))
        await found.wait_event(WorkStarted)
        result = await found.run(small, limits=RunLimits(seconds=20, memory=LIMITS.memory, processes=8))
        assert await found.output(result) == b"forked\n"


async def test_folders_without_end_end_a_run() -> None:
    code = b"import os, time\nfor _ in range(1500):\n  os.mkdir('d'); os.chdir('d')\ntime.sleep(60)\n"
    async with crew() as found:
        assert (await found.run(code)).state is WorkState.OUTPUT_TOO_LARGE


async def test_arguments_of_every_length_arrive() -> None:
    many = ("\x01" * 4000,) * 14
    async with crew() as found:
        result = await found.run(b"import sys\nprint(sum(map(len, sys.argv[1:])))", arguments=many)
        assert await found.output(result) == b"56000\n"


async def test_a_worker_with_a_strict_umask_runs_work() -> None:
    before = os.umask(0o077)
    try:
        async with crew() as found:
            result = await found.run(b"import os\nprint('null' in os.listdir('/dev'))")
            assert await found.output(result) == b"True\n"
    finally:
        os.umask(before)


def test_a_folder_that_has_become_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    (tmp_path / "file").touch()
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    assert _open_folder(tmp_path / "link") is None
    assert [_open_folder(name, folder) for name in ("link", "file", "gone")] == [None] * 3
    os.close(folder)


def test_memory_that_processes_share_is_counted() -> None:
    size = 96 * 1024 * 1024
    code = f"import mmap\nshared = mmap.mmap(-1, {size})\nshared.write(bytes({size}))\nprint(flush=True)\ninput()\n"
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert size <= resident(process.pid) < 2 * size
        process.kill()


@root
def test_what_is_mounted_below_a_folder_to_read_is_to_read_too(tmp_path: Path) -> None:
    code = """import sys
from overlay.app.work import kernel
source, target = sys.argv[1:]
kernel.unshare(kernel.CLONE_NEWNS)
kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
kernel.mount("tmpfs", source + "/be low", "tmpfs")
kernel.bind_to_read(source, target)
for place in ("", "/be low"):
    try:
        open(target + place + "/written", "w")
        print("written")
    except OSError as error:
        print(error.errno)
"""
    for name in ("source/be low", "target"):
        (tmp_path / name).mkdir(parents=True)
    folders = [str(tmp_path / "source"), str(tmp_path / "target")]
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["30", "30"]  # EROFS


@root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is in the package util-linux")
def test_root_that_may_not_mount_runs_nothing_as_itself(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    weak = ["setpriv", "--inh-caps=-sys_admin", "--bounding-set=-sys_admin"]
    command = [*weak, sys.executable, "-P", "-m", MODULE, str(theirs.fileno()), str(tmp_path), "none"]
    with ours, theirs:
        process = subprocess.Popen(command, pass_fds=(theirs.fileno(),))
        theirs.close()
        ours.settimeout(30)
        message = json.loads(ours.recv(MESSAGE_MAX))
        ours.close()
        process.wait(30)
    assert "root needs CAP_SYS_ADMIN" in message.get("failed", ""), message
