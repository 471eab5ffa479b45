"""`overlay status`: what the running node says of itself; where none runs, what its folder says."""

import math
from datetime import datetime
from typing import Any

import click

from overlay.app.authority.ledger import load_trust
from overlay.app.cli.common import Invocation, run, standard_options
from overlay.app.client import connect_local
from overlay.app.control_client import HOW_TO_START
from overlay.app.identity import load_membership
from overlay.app.output import counted, note, plain, say, say_json, say_table
from overlay.core.certificates import verify_leaf
from overlay.errors import HostLacks, Refused
from overlay.net.statistics import LinkStatistics, NodeStatistics, ServiceStatistics
from overlay.net.system import wall_clock
from overlay.store.state import StateFolder, holder


@click.command()
@standard_options
def status(invocation: Invocation) -> int:
    """Show this node and whom it is linked to. Exit code 3 if it does not run."""
    StateFolder.open(invocation.folder, exclusive=False).close()
    if holder(invocation.folder) is None:
        return _at_rest(invocation)

    async def ask() -> NodeStatistics:
        async with connect_local(invocation.folder) as node:
            return await node.status()

    found = run(ask)
    if invocation.json:
        say_json({"running": True, **found.fields()})
    else:
        _show(found)
    return 0


def _show(found: NodeStatistics) -> None:
    say(f"{found.name} in the mesh {found.mesh_name}, level {found.level} by {found.evidence} evidence")
    say(f"node         {found.node}")
    say(f"mesh         {found.mesh}")
    say(f"port         {found.port}")
    if found.roles:
        say(f"roles        {' '.join(found.roles)}")
    say(f"certificate  until {_time(found.certificate_ends)}")
    say(f"endorsement  until {_time(found.endorsement_ends)}")
    say(f"refused      {counted(found.refused, 'connection')}")
    for warning in found.warnings:
        say(f"warning      {plain(warning)}")
    say()
    if found.links:
        headings = ("PEER", "LEVEL", "ADDRESS", "EPOCH", "KEYS", "ROUNDS", "EVIDENCE", "LEASE")
        say_table(headings, [_link_row(link) for link in found.links])
    else:
        say("no peers")
    say()
    if found.services:
        columns = ("SERVICE", "", "AT", "NOW", "EVER", "REFUSED", "FAILED", "BROKEN", "IN", "OUT")
        say_table(columns, [_service_row(one) for one in found.services])
        say()
    names = {found.node: found.name, **{link.node: link.name for link in found.links}}
    rows = [(names.get(one.node, one.node[:8]), one.size, one.root[:16]) for one in found.chains]
    say_table(("LOG", "ENTRIES", "HEAD"), rows)


def _link_row(link: LinkStatistics) -> tuple[object, ...]:
    return (
        link.name, link.level, link.address, link.epoch, _age(link.epoch_age), link.rounds, _age(link.evidence_age),
        _age(link.lease_left),
    )


def _service_row(one: ServiceStatistics) -> tuple[object, ...]:
    return (
        one.name, one.kind, one.place, one.open, one.connections, one.refused, one.failed, one.broken, _bytes(one.received),
        _bytes(one.sent),
    )


def _bytes(count: int) -> str:
    """In binary units, three digits."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"


def _age(seconds: float) -> str:
    return f"{seconds:.0f} s" if math.isfinite(seconds) else "-"


def _time(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"


def _at_rest(invocation: Invocation) -> int:
    """No process holds the folder: say so, and what it holds."""
    with StateFolder.open(invocation.folder, exclusive=False) as folder:
        member = load_membership(folder)
        trust = load_trust(folder, member.mesh)
    root = member.mesh.root
    found: dict[str, Any] = {"running": False, "mesh_name": root.name, "mesh": str(root.mesh_id)}
    try:
        certificate = verify_leaf(member.certificate.leaf, member.certificate.chain, root, wall_clock())
    except Refused as error:
        found |= {"problem": str(error), "hint": error.hint}
    else:
        found |= {
            "name": certificate.name, "node": str(certificate.node_id), "level": certificate.level,
            "roles": list(certificate.roles), "certificate_ends": certificate.not_after.isoformat(),
        }
        until = None if trust is None else trust.quarantine_end(certificate.node_id, wall_clock())
        if until is not None:
            found["quarantine_ends"] = until.isoformat()
    if invocation.json:
        say_json(found)
    else:
        _show_at_rest(found)
        note(f"no node runs in {invocation.folder}; {HOW_TO_START}")
    return HostLacks.exit_code


def _show_at_rest(found: dict[str, Any]) -> None:
    say(f"{found.get('name', 'a node')} in the mesh {found['mesh_name']}, not running")
    if "problem" in found:
        say(f"problem      {found['problem']}")
        return
    say(f"node         {found['node']}")
    say(f"mesh         {found['mesh']}")
    say(f"certificate  level {found['level']}, until {_time(found['certificate_ends'])}")
    if "quarantine_ends" in found:
        say(f"quarantine   until {_time(found['quarantine_ends'])}; the node may run, and stays out until then")
