"""`overlay audit append`, `tail` and `verify`: the audit log; the last two work with no node running."""

import json
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, NoReturn

import click

from audit.bodies import describe
from audit.store import AuditStore
from audit.verifier import LogReport, verify_store
from audit.witnessed import Judge
from overlay.app import wire_json as wire
from overlay.app.api import EntryReceipt, EntryView
from overlay.app.cli.common import Invocation, run, standard_options
from overlay.app.client import connect_local
from overlay.app.output import counted, note, plain, say, say_json
from overlay.core.keys import base32
from overlay.errors import CheckFailed, UsageError
from overlay.net.system import wall_clock
from overlay.registry import EntryType
from overlay.store.membership import load_mesh
from overlay.store.state import AUDIT_STORE, StateFolder, holder

LONG_HEX: Final = re.compile("[0-9a-f]{64,}")  # a hash, or more
HASH_DIGITS: Final = 64
SHOWN_DIGITS: Final = 16
APPLICATION: Final = EntryType.APPLICATION.name.lower()  # what users wrote is shown as they wrote it


@click.group()
def audit() -> None:
    """The audit log of this node and its copies of the others' logs."""


@audit.command()
@click.argument("kind", metavar="TYPE")
@click.argument("value", metavar="[JSON]", default="null")
@click.option("--wait", is_flag=True, help="Until every linked peer has it.")
@standard_options
def append(invocation: Invocation, kind: str, value: str, *, wait: bool) -> None:
    """Append an entry of a TYPE of your own, with any JSON."""
    content = _json(value)

    async def work() -> tuple[EntryReceipt, int | None]:
        async with connect_local(invocation.folder) as node:
            receipt = await node.audit.append(kind, content)
            if not wait:
                return receipt, None
            if not node.peers:
                note(f"entry {receipt.seq} is durable here, and no peer is linked: waiting for one")
            return receipt, await node.audit.wait_replicated(receipt)

    receipt, peers = run(work)
    if invocation.json:
        say_json({**wire.receipt_fields(receipt), "replicated": peers})
    else:
        say(f"entry {receipt.seq}, {receipt.hash.hex()}" + ("" if peers is None else f", held by {counted(peers, 'peer')}"))


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the value is not JSON: {error}", hint="""a text is JSON in quotes: '"text"'""") from None


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


@audit.command()
@click.option("-n", "--last", default=20, show_default=True, type=click.IntRange(0), metavar="NUMBER", help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--node", metavar="NAME", help="Entries of this node only: name or id.")
@standard_options
def tail(invocation: Invocation, last: int, node: str | None, *, follow: bool) -> None:
    """Print the newest entries of all logs."""
    StateFolder.open(invocation.folder, exclusive=False).close()
    if holder(invocation.folder) is None and not follow:
        note(f"no node runs in {invocation.folder}; this is what its folder holds")
        _show(invocation, _stored(invocation, node, last))
        return
    run(lambda: _tail(invocation, node, last, follow=follow))


async def _tail(invocation: Invocation, node: str | None, last: int, *, follow: bool) -> None:
    async with connect_local(invocation.folder) as remote:
        if not follow:
            _show(invocation, await remote.audit.read(node=node, last=last))
            return
        async with remote.audit.follow() as entries:
            shown = await remote.audit.read(node=node, last=last)
            _show(invocation, shown)
            await _go_on(invocation, entries, node, {entry.hash for entry in shown})


async def _go_on(invocation: Invocation, entries: AsyncIterator[EntryView], node: str | None, seen: set[bytes]) -> None:
    async for entry in entries:
        if entry.hash not in seen and node in (None, entry.node_name, str(entry.node_id)):
            _show(invocation, [entry])


def _stored(invocation: Invocation, node: str | None, last: int) -> list[EntryView]:
    """From the folder, with no node running."""
    with StateFolder.open(invocation.folder, exclusive=False) as folder:
        mesh, path = load_mesh(folder), folder.file(AUDIT_STORE)
    if mesh is None or not path.exists():
        return []
    store = AuditStore.open_readonly(path)
    try:
        states, _ = store.load(mesh.root)
        names = {state.node_id: state.key.peer.name for state in states.values() if state.key is not None}
        wanted = next((node_id for node_id, name in names.items() if node in (name, str(node_id))), None)
        if node is not None and wanted is None:
            raise UsageError(f"there is no log of {node}")
        entries = store.newest(node_id=wanted, last=last)
        unproven = Judge(store, mesh.root).unproven(entries, wall_clock())
    finally:
        store.close()
    return [
        EntryView(
            node_id=entry.node_id, node_name=names.get(entry.node_id, entry.node_id.short), log_id=entry.log_id,
            seq=entry.seq, hash=entry.hash, at=entry.at, type=entry.type_name, body=describe(entry.type, entry.body),
            unproven=entry.hash in unproven,
        )
        for entry in entries
    ]


def _show(invocation: Invocation, entries: Iterable[EntryView]) -> None:
    for entry in entries:
        if invocation.json:
            say_json(wire.entry_fields(entry))
        else:
            said = entry.body if entry.type == APPLICATION else _shortened(entry.body)
            body = plain(wire.compact(said))
            mark = " (unproven)" if entry.unproven else ""
            say(f"{entry.at:%Y-%m-%d %H:%M:%S} {entry.node_name} {entry.seq} {entry.type}{mark} {body}")


def _shortened(value: Any) -> Any:
    """Hashes and certificates by their beginnings, longer ones with their length: nobody reads them, and --json has all."""
    if isinstance(value, dict):
        return {key: _shortened(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_shortened(part) for part in value]
    if not isinstance(value, str) or not LONG_HEX.fullmatch(value):
        return value
    size = "" if len(value) == HASH_DIGITS else f" ({len(value) // 2} bytes)"
    return f"{value[:SHOWN_DIGITS]}…{size}"


@audit.command()
@standard_options
def verify(invocation: Invocation) -> int:
    """Check every entry of every log here. Exit code 1 names the first bad entry; no node needs to run."""
    with StateFolder.open(invocation.folder, exclusive=False) as folder:
        mesh, path = load_mesh(folder), folder.file(AUDIT_STORE)
    if mesh is None:
        raise UsageError("this node belongs to no mesh, so there is nothing to verify by")
    report = verify_store(path, mesh.root, at=wall_clock())
    if invocation.json:
        logs = [_log_fields(log) for log in report.logs]
        say_json({"holds": report.holds, "logs": logs, "faults": list(report.faults)})
        return 0 if report.holds else CheckFailed.exit_code
    for line in report.lines:
        say(plain(line))
    report.demand()
    return 0


def _log_fields(log: LogReport) -> dict[str, Any]:
    fault = log.fault
    return {
        "node": base32(log.node_id), "name": log.name, "log": log.log_id.hex(), "entries": log.size,
        "recorded": log.recorded, "root": log.root.hex(),
        "fault": None if fault is None else {"seq": fault.seq, "reason": fault.reason.name, "detail": fault.detail},
    }
