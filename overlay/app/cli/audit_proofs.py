"""`overlay audit prove` and `export`: what shows an entry, or whole logs, to who was never in the mesh."""

from pathlib import Path
from typing import Final

import click

from audit.bundle import Wanted, write_bundle
from audit.entry import Entry
from audit.member import signer_in
from audit.prover import prove as make_proof
from audit.receipts import Place, make_receipt
from audit.store import AuditStore
from overlay.app.cli.audit_entries import Book
from overlay.app.cli.common import Invocation, standard_options
from overlay.app.output import counted, note, say, say_bytes, say_json
from overlay.errors import HostLacks, UsageError
from overlay.net.system import wall_clock
from overlay.store.files import write_atomic
from overlay.store.membership import MeshRecord, load_mesh
from overlay.store.state import AUDIT_STORE, AUTHORITY, StateFolder

_OUT: Final = click.Path(path_type=Path)
_LOOK: Final = "look at the disk, its space and its permissions"


class _Source:
    """The store of a state folder, and what speaks for its mesh."""

    def __init__(self, invocation: Invocation) -> None:
        with StateFolder.open(invocation.folder, exclusive=False) as folder:
            mesh: MeshRecord | None = load_mesh(folder)
            if mesh is None:
                raise UsageError("this node belongs to no mesh, so there is nothing to prove")
            self.root = mesh.root
            self.authority = folder.read(AUTHORITY)
            self.signer = signer_in(folder)
            self.store = AuditStore.open_readonly(folder.file(AUDIT_STORE))
        self.book = Book.of(self.store, self.root)

    def __enter__(self) -> "_Source":
        return self

    def __exit__(self, *error: object) -> None:
        self.store.close()


@click.command()
@click.argument("entry", metavar="ENTRY")
@click.option("--out", metavar="FILE", type=_OUT, help="Write it there, and not to standard output.")
@click.option("--receipt", is_flag=True, help="A COSE receipt (RFC 9942) instead, for an entry of this node.")
@standard_options
def prove(invocation: Invocation, entry: str, out: Path | None, *, receipt: bool) -> None:
    """Print a proof of ENTRY that `overlay audit check-proof`, and any verifier of C2SP's tlog-proof, checks offline.

    ENTRY is NAME/NUMBER, LOG/NUMBER, or the first eight digits or more of its hash.
    """
    with _Source(invocation) as source:
        found = source.book.find(entry)
        if receipt:
            content = _receipt(source, found)
        else:
            content = make_proof(
                source.store, source.root, found.log_id, found.seq, authority=source.authority, signer=source.signer
            ).raw
    if out is None:
        say_bytes(content)
        return
    _write(out, content)
    note(f"the proof of entry {found.seq} is in {out}; who checks it has to know the mesh: {source.root.mesh_id}")


def _receipt(source: _Source, entry: Entry) -> bytes:
    """Signed with the message key of the last start, which the log shows."""
    signer = source.signer
    states, _ = source.store.load(source.root)
    state = states.get(entry.log_id)
    if signer is None or state is None or state.key is None or state.key.kid != signer.kid:
        hint = "ask on the node that wrote it; its open log has receipts, an older one has proofs only"
        raise UsageError("a receipt is signed by the author of an entry, with the key in force", hint=hint)
    with source.store.tree(entry.log_id) as tree:
        place = Place(index=entry.seq, size=state.size, path=tree.inclusion(entry.seq, state.size))
    return make_receipt(place, entry.hash, signer=signer.message, kid=signer.kid)


@click.command()
@click.argument("path", metavar="FILE", type=_OUT)
@click.option("--node", "nodes", metavar="NAME", multiple=True, help="Only logs of this node and its witnesses; repeatable.")
@click.option("--entry", "entries", metavar="ENTRY", multiple=True, help="With a proof of this entry; repeatable.")
@standard_options
def export(invocation: Invocation, path: Path, nodes: tuple[str, ...], entries: tuple[str, ...]) -> None:
    """Write the logs and all that proves them into FILE, a zip that `overlay audit verify FILE --root MESH` checks anywhere."""
    with _Source(invocation) as source:
        named = frozenset(one for name in nodes if (one := source.book.node_id(name)) is not None)
        proofs = [(found.log_id, found.seq) for found in map(source.book.find, entries)]
        wanted = Wanted(nodes=named or None, proofs=proofs, signer=source.signer)
        try:
            made = write_bundle(source.store, source.root, path, wall_clock(), wanted=wanted, authority=source.authority)
        except OSError as error:
            raise HostLacks(f"cannot write {path}: {error.strerror}", hint=_LOOK) from None
    if invocation.json:
        say_json({
            "file": str(path), "mesh": str(source.root.mesh_id), "logs": made.logs, "entries": made.entries,
            "checkpoints": made.checkpoints, "proofs": made.proofs, "forks": made.forks,
        })  # fmt: skip
        return
    say(f"{path}: {counted(made.logs, 'log')}, {made.entries} entries, {counted(made.checkpoints, 'checkpoint')}")
    note(f"who checks it has to know the mesh from elsewhere: {source.root.mesh_id}")


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomic(path, content)
    except OSError as error:
        raise HostLacks(f"cannot write {path}: {error.strerror}", hint=_LOOK) from None
