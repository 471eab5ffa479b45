"""A machine that becomes a member with a token, by `overlay join`, as on a real network."""

import json
import sys
from dataclasses import dataclass
from typing import Final

import trio

from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import NODE, Machine, clean_environment
from overlay.app.lab.staging import measure
from overlay.app.lab.world import Host

JOIN_WITHIN: Final = 40.0  # seconds; a join with a TPM takes 2 to 10 on two busy cores


@dataclass(frozen=True, slots=True)
class Joined:
    """How `overlay join` ended: a machine, or why not."""

    machine: Machine | None
    said: str


async def join(lab: Lab, host: Host, name: str, token: str) -> Joined:
    """Run the command on a host; it finds the mesh by multicast, or on loopback by the addresses in the token."""
    await trio.to_thread.run_sync(measure, host)
    state = host.folder / f"state-{name}"
    ticket = host.folder / f"{name}.token"
    ticket.write_text(token)
    ticket.chmod(0o600)
    words = ["--state", str(state), "join", f"@{ticket}", "--name", name, "--json", "--evidence", lab.choice.evidence]
    words += ["--wait", f"{JOIN_WITHIN:g}"]
    if host.tcti:
        words += ["--tcti", host.tcti]
    child = host.spawn([sys.executable, "-P", "-m", NODE, *words], env=clean_environment(), name=f"{name}-join")
    output = [line async for line in child.lines]
    code = await child.wait()
    if code:
        return Joined(None, child.log.read_text(errors="replace"))
    found = json.loads(output[-1])
    return Joined(Machine(name, host, state, found["node"]), output[-1])
