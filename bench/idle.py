"""What a link costs that carries nothing: memory of one node with many peers, each a member of its own."""


import resource
import sys
import tempfile
from pathlib import Path

import trio

import overlay
from bench.row import Row, row
from overlay.app.enrol import admit, found_mesh, install, make_request
from overlay.app.lab.processes import start
from overlay.core.policy import Policy
from overlay.store.state import StateFolder

LINKS = 400
WITHIN = 1800.0  # every one of them gets the logs of all others: ten minutes on two cores


def _resident() -> int:
    """KB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def _enrol(path: Path) -> None:
    with StateFolder.create(path / "centre") as centre:
        found_mesh(centre, "centre", "bench", Policy.default(), None)
    for number in range(LINKS):
        with StateFolder.create(path / str(number)) as folder:
            install(folder, admit(path / "centre", make_request(folder, None), f"peer{number}", ()), None)


async def idle(runs: int) -> list[Row]:
    """(resident memory with 400 idle links - with none) / 400; one run, because it takes minutes."""
    del runs
    with tempfile.TemporaryDirectory(prefix="overlay-bench-") as name:
        path = Path(name)
        await trio.to_thread.run_sync(_enrol, path)
        config = overlay.Config(listen=("127.0.0.1", 0), mdns=False, evidence="software")
        async with overlay.open_node(path / "centre", config=config) as node:
            before = _resident()
            argv = [sys.executable, "-m", "bench.crowd", str(path), str(LINKS), str(node.port)]
            child = start(argv, name="crowd", folder=path)
            try:
                with trio.fail_after(WITHIN):
                    line = await anext(child.lines, None)
                assert line == "linked", child.log.read_text()[-2000:]
                after = _resident()
                assert len(node.peers) == LINKS
            finally:
                await child.end()
    return [row("idle_link_kb", "KB", [(after - before) / LINKS])]
