"""Two members of a mesh, one in this process and one in another; folders and processes are gone after the row."""

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

import overlay
from bench import tls
from overlay.app.enrol import admit, found_mesh, install, make_request
from overlay.app.lab.processes import start
from overlay.core.policy import Policy
from overlay.store.state import StateFolder

REKEY_AFTER = 1.0  # seconds: every row about links sees fresh keys more than once
READY_WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class Other:
    """The member in the other process, which listens: its ports; and what is needed to dial it."""

    port: int
    tls_port: int
    bulk_tls_port: int
    bulk_tcp_port: int
    echo_tls_port: int
    folder: Path  # our state folder, of the same mesh
    certificates: Path
    rekey_after: float

    def config(self, **changes: Any) -> overlay.Config:
        """Ours; it dials the other unless `seeds` says otherwise."""
        settings: dict[str, Any] = {
            "listen": ("127.0.0.1", 0), "mdns": False, "evidence": "software", "rekey_after": self.rekey_after,
            "seeds": (f"127.0.0.1:{self.port}",),
        }
        return overlay.Config(**settings | changes)


@asynccontextmanager
async def other_process(rekey_after: float = REKEY_AFTER) -> AsyncIterator[Other]:
    """Bob, running; our own node is for the row to open."""
    with tempfile.TemporaryDirectory(prefix="overlay-bench-") as name:
        path = Path(name)
        await trio.to_thread.run_sync(_enrol, path)
        tls.make_certificates(path / "tls")
        argv = [sys.executable, "-m", "bench.peer", str(path / "bob"), str(path / "tls"), str(rekey_after)]
        cores = os.sched_getaffinity(0)
        child = start(argv, name="bob", folder=path)
        try:
            with trio.fail_after(READY_WITHIN):
                line = await anext(child.lines, None)
            if line is None:
                raise RuntimeError(child.log.read_text())
            ports = json.loads(line)
            os.sched_setaffinity(0, {min(cores)})  # this end on one core, the other on another
            yield Other(
                ports["port"], ports["tls"], ports["bulk_tls"], ports["tcp"], ports["echo_tls"], path / "alice", path / "tls",
                rekey_after,
            )
            assert child.returncode is None, child.log.read_text()
        finally:
            os.sched_setaffinity(0, cores)  # else the other end of the next row would be here, too
            await child.end()


@asynccontextmanager
async def two_ends(rekey_after: float = REKEY_AFTER) -> AsyncIterator[tuple[Any, overlay.Peer, Other]]:
    """Our node and, seen from it, the one in the other process. At the end both must have rekeyed twice, if they should."""
    async with other_process(rekey_after) as other, overlay.open_node(other.folder, config=other.config()) as node:
        with trio.fail_after(READY_WITHIN):
            peer = await node.wait_peer("bob")
        yield node, peer, other
        (link,) = (await node.status()).links
        assert link.epoch >= 3 or rekey_after > REKEY_AFTER, f"the row was over in epoch {link.epoch}"


def _enrol(path: Path) -> None:
    with StateFolder.create(path / "alice") as alice:
        found_mesh(alice, "alice", "bench", Policy.default(), None)
    with StateFolder.create(path / "bob") as bob:
        install(bob, admit(path / "alice", make_request(bob, None), "bob", ()), None)
