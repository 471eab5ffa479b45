"""`overlay audit`: appending, reading and following the log. Verifying, proofs and upkeep have files of their own."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from audit.entry import Entry
from audit.store import AuditStore
from overlay.app import wire_json as wire
from overlay.app.api import EntryReceipt, EntryView
from overlay.app.cli.audit_checks import check_proof, doctor, verify
from overlay.app.cli.audit_entries import Book, Chosen, filter_options, show_entries
from overlay.app.cli.audit_proofs import export, prove
from overlay.app.cli.audit_pruning import prune
from overlay.app.cli.common import Invocation, run, standard_options
from overlay.app.client import connect_local
from overlay.app.local_audit import query_of
from overlay.app.output import counted, note, plain, say, say_json
from overlay.errors import UsageError
from overlay.store.membership import load_mesh
from overlay.store.state import AUDIT_STORE, StateFolder, holder


@click.group()
def audit() -> None:
    """The audit log of this node and its copies of the others' logs."""


for command in (verify, prove, check_proof, export, doctor, prune):
    audit.add_command(command)


# --- writing ----------------------------------------------------------------------------------------------------------


@audit.command()
@click.argument("kind", metavar="TYPE")
@click.argument("value", metavar="[JSON]", default="null")
@click.option("--wait", is_flag=True, help="Until every linked peer has it.")
@click.option("--witnessed", is_flag=True, help="Until enough witnesses have signed that they saw it.")
@standard_options
def append(invocation: Invocation, kind: str, value: str, *, wait: bool, witnessed: bool) -> None:
    """Append an entry of a TYPE of your own, with any JSON."""
    content = _json(value)

    async def work() -> tuple[EntryReceipt, int | None, str | None]:
        async with connect_local(invocation.folder) as node:
            receipt = await node.audit.append(kind, content)
            if wait and not node.peers:
                note(f"entry {receipt.seq} is durable here, and no peer is linked: waiting for one")
            peers = await node.audit.wait_replicated(receipt) if wait else None
            return receipt, peers, await node.audit.wait_witnessed(receipt) if witnessed else None

    receipt, peers, seen = run(work)
    if invocation.json:
        say_json({**wire.receipt_fields(receipt), "replicated": peers, **({"witnessed": seen} if witnessed else {})})
        return
    held = "" if peers is None else f", held by {counted(peers, 'peer')}"
    say(f"entry {receipt.seq}, {receipt.hash.hex()}{held}" + ("" if seen is None else f", witnessed by {seen}"))


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the value is not JSON: {error}", hint="""a text is JSON in quotes: '"text"'""") from None


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


# --- reading ----------------------------------------------------------------------------------------------------------


@audit.command()
@click.option("-n", "--last", type=click.IntRange(0), metavar="NUMBER", help="The last so many of those that match.")
@filter_options
@standard_options
def log(invocation: Invocation, last: int | None, chosen: Chosen) -> None:
    """Print the entries that match, of all logs; no node needs to run."""
    show_entries(invocation, _stored(invocation, chosen, last))


@audit.command()
@click.option("-n", "--last", default=20, show_default=True, type=click.IntRange(0), metavar="NUMBER", help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@filter_options
@standard_options
def tail(invocation: Invocation, last: int, chosen: Chosen, *, follow: bool) -> None:
    """Print the newest entries of all logs."""
    StateFolder.open(invocation.folder, exclusive=False).close()
    if holder(invocation.folder) is None and not follow:
        note(f"no node runs in {invocation.folder}; this is what its folder holds")
        show_entries(invocation, _stored(invocation, chosen, last))
        return
    run(lambda: _tail(invocation, chosen, last, follow=follow))


async def _tail(invocation: Invocation, chosen: Chosen, last: int, *, follow: bool) -> None:
    async with connect_local(invocation.folder) as remote:
        if not follow:
            show_entries(invocation, await remote.audit.read(node=chosen.node, last=last, only=chosen.only))
            return
        async with remote.audit.follow(only=chosen.only) as entries:
            shown = await remote.audit.read(node=chosen.node, last=last, only=chosen.only)
            show_entries(invocation, shown)
            await _go_on(invocation, entries, chosen.node, {entry.hash for entry in shown})


async def _go_on(invocation: Invocation, entries: AsyncIterator[EntryView], node: str | None, seen: set[bytes]) -> None:
    async for entry in entries:
        if entry.hash not in seen and node in (None, entry.node_name, str(entry.node_id)):
            show_entries(invocation, [entry])


def _stored(invocation: Invocation, chosen: Chosen, last: int | None) -> list[EntryView]:
    """From the folder, whether its node runs or not."""
    with opened_book(invocation) as book:
        if book is None:
            return []
        query = query_of(chosen.only, book.node_id(chosen.node), last)
        return book.views(book.store.select(query))


@contextmanager
def opened_book(invocation: Invocation) -> Iterator[Book | None]:
    """The store of the folder, to read; None before the node has written anything."""
    with StateFolder.open(invocation.folder, exclusive=False) as folder:
        mesh, path = load_mesh(folder), folder.file(AUDIT_STORE)
    if mesh is None or not path.exists():
        yield None
        return
    store = AuditStore.open_readonly(path)
    try:
        yield Book.of(store, mesh.root)
    finally:
        store.close()



@audit.command()
@click.argument("entry", metavar="ENTRY")
@standard_options
def show(invocation: Invocation, entry: str) -> None:
    """Print all of one entry: alice/17, a log and a number, or the beginning of its hash."""
    with opened_book(invocation) as book:
        if book is None:
            raise UsageError(f"there is no entry {entry}", hint="the node has not run yet")
        found = book.find(entry)
        (view,) = book.views([found])
    if invocation.json:
        say_json({**wire.entry_fields(view), **_details(found)})
        return
    for name, value in (
        ("entry", f"{view.seq} of {view.node_name}"), ("node", str(view.node_id)), ("log", view.log_id.hex()),
        ("time", f"{view.at.isoformat(timespec='milliseconds')}" + (" (unproven)" if view.unproven else "")),
        ("hash", view.hash.hex()), *((name, str(value)) for name, value in _details(found).items()), ("type", view.type),
    ):  # fmt: skip
        say(f"{name:11}{plain(value)}")
    for line in json.dumps(view.body, indent=2, ensure_ascii=False).split("\n"):
        say(plain(line))


def _details(entry: Entry) -> dict[str, Any]:
    """What only `show` tells."""
    found: dict[str, Any] = {"prev": entry.prev.hex(), "kid": entry.kid.hex(), "bytes": len(entry.raw)}
    return {**found, **({"references": [one.hex() for one in entry.references]} if entry.references else {})}
