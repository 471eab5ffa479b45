"""`overlay audit prune`: contents of old entries go, their hashes stay, and with them every proof."""

from collections.abc import Iterator
from datetime import datetime

import click

from audit.store import AuditStore, LogRow
from audit.witnessed import Judge
from overlay.app.cli.audit_entries import Book, read_time
from overlay.app.cli.common import Invocation, standard_options
from overlay.app.output import note, plain, say, say_json
from overlay.core.keys import NodeId
from overlay.errors import UsageError
from overlay.store.membership import load_mesh
from overlay.store.state import AUDIT_STORE, StateFolder


@click.command()
@click.option("--below", type=click.IntRange(1), metavar="NUMBER", help="Entries with a smaller number.")
@click.option("--before", metavar="TIME", callback=read_time, help="Entries before this time: 2026-03-01, or 90d ago.")
@click.option("--node", metavar="NAME", help="Only logs of this node: name or id.")
@standard_options
def prune(invocation: Invocation, below: int | None, before: datetime | None, node: str | None) -> None:
    """Erase the contents of old entries from this machine; the node must not run. Proofs of all others stay valid.

    Only what enough witnesses have seen is erased. Entries that carry keys or name witnesses are kept, and so are the hashes of
    all. The copies on other nodes stay: a node whose copy was pruned gives the erased entries to nobody.
    """
    if (below is None) == (before is None):
        raise UsageError("say which entries: --below NUMBER or --before TIME")
    with StateFolder.open(invocation.folder, exclusive=True) as folder:
        mesh = load_mesh(folder)
        if mesh is None or not folder.file(AUDIT_STORE).exists():
            raise UsageError("there are no logs here")
        store = AuditStore.open(folder.file(AUDIT_STORE))
        try:
            done = list(_prune(store, Book.of(store, mesh.root), below, before, node))
            store.shrink()
        finally:
            store.close()
    if invocation.json:
        say_json([{"name": name, "log": log_id.hex(), "below": end, "erased": count} for name, log_id, end, count in done])
        return
    for name, log_id, end, count in done:
        said = f"{name} log {log_id.hex()[:8]}: contents of {count} {'entry' if count == 1 else 'entries'} below {end} erased"
        say(plain(said))
    if not done:
        note("nothing was erased: only what enough witnesses have seen may go")


def _prune(
    store: AuditStore, book: Book, below: int | None, before: datetime | None, node: str | None
) -> Iterator[tuple[str, bytes, int, int]]:
    wanted = book.node_id(node)
    judge = Judge(store, book.root)
    for row in store.logs():
        if wanted is not None and row.node_id != wanted:
            continue
        end = min(_witnessed(judge, row), _end(store, row, before) if below is None else below, row.size - 1)
        if end > 0 and (count := store.prune(row.log_id, end)):
            yield book.names.get(NodeId(row.node_id), row.node_id.hex()[:8]), row.log_id, end, count


def _witnessed(judge: Judge, row: LogRow) -> int:
    """How many entries enough witnesses have seen."""
    return max((one.checkpoint.size for one in judge.witnessed(row.log_id) if one.at is not None), default=0)


def _end(store: AuditStore, row: LogRow, before: datetime | None) -> int:
    """The first entry that is not older."""
    return row.size if before is None else store.first_since(row.log_id, before)
