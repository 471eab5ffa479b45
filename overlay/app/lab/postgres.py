"""A real PostgreSQL for the lab: on a Unix socket only, and gone with the block."""

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from overlay.app.lab.machine import wait_until
from overlay.app.lab.processes import start
from overlay.errors import CheckFailed, HostLacks

USER: Final = "app"  # of the database; it needs no password: who may connect is the mesh's affair
OTHERS: Final = "nobody"  # PostgreSQL refuses to be root
READY_WITHIN: Final = 20.0  # seconds
SOCKET: Final = ".s.PGSQL.5432"
OPEN_PLACES: Final = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - a folder of our own is made in them
HINT: Final = "install the Debian package postgresql"


def lacking() -> str:
    """Why this host cannot run it; "" if it can."""
    return "" if _found("initdb") and _found("psql") and shutil.which("setpriv") else f"needs PostgreSQL: {HINT}"


def program(name: str) -> str:
    """One of PostgreSQL's programs. Raises HostLacks."""
    found = _found(name)
    if found is None:
        raise HostLacks(f"this host lacks PostgreSQL's {name}", hint=HINT)
    return found


@asynccontextmanager
async def running_postgres(folder: Path) -> AsyncIterator[Path]:
    """An empty database `postgres`: the path of its socket. `folder` takes its log. Raises HostLacks, CheckFailed."""
    with tempfile.TemporaryDirectory(prefix="overlay-lab-", dir=_where_others_may_go()) as name:
        place = Path(name)
        prefix = _as_nobody(place)
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
        made = [*prefix, program("initdb"), "-D", f"{name}/data", "-U", USER, "-A", "trust", "--no-sync"]
        done = await trio.run_process(
            made, capture_stdout=True, stderr=subprocess.STDOUT, check=False, env=environment, cwd=name
        )
        if done.returncode != 0:
            raise CheckFailed(f"initdb failed: {done.stdout.decode(errors='replace').strip().splitlines()[-1:]}")
        argv = [*prefix, program("postgres"), "-D", f"{name}/data", "-k", name, "-c", "listen_addresses="]
        child = start(argv, name="postgres", folder=folder, env=environment, read_output=False)
        try:
            await wait_until(lambda: _is_there(place / SOCKET), within=READY_WITHIN, what="PostgreSQL is there")
            yield place / SOCKET
        finally:
            with trio.CancelScope(shield=True):
                await child.kill()


async def _is_there(socket: Path) -> bool:
    """Whether it answers: psql says 0 as soon as it takes connections."""
    done = await trio.run_process(
        [program("psql"), *words_for(str(socket.parent), 5432), "-c", "select 1"], capture_stdout=True, capture_stderr=True,
        check=False,
    )  # fmt: skip
    return done.returncode == 0


def words_for(host: str, port: int) -> list[str]:
    """Options of psql for a database there: plain output, no settings of a user, no waiting for a password."""
    return ["-X", "-A", "-t", "-w", "-h", host, "-p", str(port), "-U", USER, "-d", "postgres"]


def _where_others_may_go() -> Path:
    """A folder for temporary files that another user can get into, where one is needed. Raises HostLacks."""
    for place in (Path(tempfile.gettempdir()), *OPEN_PLACES):
        if os.geteuid() != 0 or all(one.stat().st_mode & stat.S_IXOTH for one in (place, *place.parents) if one.exists()):
            return place
    raise HostLacks(f"user {OTHERS} can get into no folder for temporary files")


def _as_nobody(place: Path) -> list[str]:
    """What stands before a command so that it is not run by root; it dies with us all the same."""
    if os.geteuid() != 0:
        return []
    os.chown(place, pwd.getpwnam(OTHERS).pw_uid, -1)
    return ["setpriv", f"--reuid={OTHERS}", "--regid=nogroup", "--clear-groups", "--pdeathsig=KILL"]


def _found(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))  # where Debian has it, beside no other version's
    return str(found[-1]) if found else shutil.which(name)
