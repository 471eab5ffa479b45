"""A PostgreSQL server of our own, with TLS, on one core."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.tunnels import free_port
from overlay.errors import HostLacks


def program(name: str) -> str:
    """One of PostgreSQL's programs. Raises HostLacks."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not found:
        raise HostLacks("this host lacks PostgreSQL: install the Debian package postgresql")
    return str(found[-1])


@contextlib.contextmanager
def postgres(certificates: Path, *, core: int) -> Iterator[int]:
    """An empty database `postgres`, whose user `app` needs no password: the port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="overlay-postgres-") as name:
        folder = Path(name)
        user = "nobody" if os.geteuid() == 0 else None  # it refuses to be root
        owner = pwd.getpwnam(user).pw_uid if user is not None else os.geteuid()
        os.chown(folder, owner, -1)
        secret = folder / "server.pem"  # key and certificate
        shutil.copy(certificates / secret.name, secret)
        os.chown(secret, owner, -1)
        secret.chmod(0o600)

        def run(*words: str) -> None:
            command, variables = ["taskset", "-c", str(core), *words], {"PATH": "/usr/bin:/bin"}
            subprocess.run(command, user=user, cwd=name, check=True, capture_output=True, env=variables)

        data = str(folder / "data")
        run(program("initdb"), "-D", data, "-U", "app", "-A", "trust")
        settings = (
            f"-p {port} -k {name} -c listen_addresses=127.0.0.1 -c ssl=on -c ssl_cert_file={secret} "
            f"-c ssl_key_file={secret} -c ssl_min_protocol_version=TLSv1.3"
        )
        run(program("pg_ctl"), "-D", data, "-w", "-l", f"{name}/log", "-o", settings, "start")
        try:
            yield port
        finally:
            run(program("pg_ctl"), "-D", data, "-w", "-m", "immediate", "stop")
