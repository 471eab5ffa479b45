"""A bundle: logs and all that proves them, in one file for who was never in the mesh. An uncompressed zip, for other tools too.

    README.txt                          what is in it, and how others check each part
    root.pem  authority.cbor?           the founding root; the authority objects
    logs/<log_id>/entries.cborseq       COSE_Sign1 messages one after another (RFC 8742)
    logs/<log_id>/<size>.checkpoint     signed notes (C2SP)
    certificates/<hash>.pem             a leaf, then what is above it
    endorsements/<hash>.cose
    proofs/<log_id>-<seq>.tlog-proof    of entries that were asked for (C2SP)
    forks/<node_id>.cbor                {0:1, 1:Unix seconds when it was found, 2:proof}: a node has told two stories
"""

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from audit.author import LogSigner
from audit.bodies import read_credentials
from audit.bundle_text import README
from audit.checkpoint import UnverifiedCheckpoint, witness_key
from audit.entry import Entry
from audit.kept import KeptCheckpoint
from audit.prover import prove
from audit.store import AuditStore, LogRow
from audit.witnessed import Judge
from overlay.core.certificates import Root
from overlay.core.keys import NodeId
from overlay.core.wire import make_map, sha256
from overlay.errors import Refused, UsageError
from overlay.store.files import replacing

ENTRIES: Final = "entries.cborseq"
AT_ONCE: Final = 1024  # entries read in one go: our guess
BYTES_AT_ONCE: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What a bundle holds."""

    path: Path
    logs: int
    entries: int
    checkpoints: int
    proofs: int
    forks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to go into a bundle: everything, unless said."""

    nodes: frozenset[NodeId] | None = None  # whose logs, beside those of their witnesses
    proofs: Sequence[tuple[bytes, int]] = ()  # of which entries: log and number
    signer: LogSigner | None = field(default=None, repr=False)  # of our own open log, see `prove`


def write_bundle(
    store: AuditStore, root: Root, path: Path, at: datetime, *, wanted: Wanted | None = None, authority: bytes | None = None
) -> Exported:
    """Write a bundle; there is nothing at `path` until all of it is.

    Args:
        authority: the packed chain of authority objects, where there is one.

    Raises:
        UsageError: there is no proof of an entry that is wanted.
        StateDamaged: the store cannot be read.
        OSError: the disk does not take it.
    """
    wanted = wanted or Wanted()
    with store.snapshot(), replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        writer = _Writer(archive, store, at)
        rows = _chosen(store, wanted)
        entries = sum(writer.log(row) for row in rows)
        notes = [kept for row in rows for kept in store.checkpoints(row.log_id)]
        for kept in notes:
            writer.add(f"logs/{kept.checkpoint.log_id.hex()}/{kept.checkpoint.size}.checkpoint", kept.note.raw)
        for log_id, seq in wanted.proofs:
            proof = prove(store, root, log_id, seq, authority=authority, signer=wanted.signer)
            writer.add(f"proofs/{log_id.hex()}-{seq}.tlog-proof", proof.raw)
        forks = store.forks()
        for fork in forks:
            writer.add(f"forks/{fork.node_id}.cbor", make_map(int(fork.at.timestamp()), fork.raw))
        if authority is not None:
            writer.add("authority.cbor", authority)
        writer.add("root.pem", _pem([root.der]))
        writer.add("README.txt", _readme(store, root, notes, at).encode())
    return Exported(
        path=path, logs=len(rows), entries=entries, checkpoints=len(notes), proofs=len(wanted.proofs), forks=len(forks)
    )


class _Writer:
    """Puts the parts into an archive, each once."""

    def __init__(self, archive: zipfile.ZipFile, store: AuditStore, at: datetime) -> None:
        self._archive = archive
        self._store = store
        self._time = at.astimezone(UTC).timetuple()[:6]
        self._names: set[str] = set()

    def add(self, name: str, content: bytes) -> None:
        """One file."""
        if name not in self._names:
            self._names.add(name)
            self._archive.writestr(self._info(name), content)

    def log(self, row: LogRow) -> int:
        """The entries of a log, and what speaks for its keys; how many entries."""
        count = 0
        with self._archive.open(self._info(f"logs/{row.log_id.hex()}/{ENTRIES}"), "w", force_zip64=True) as file:
            for raw in _entries(self._store, row.log_id):
                file.write(raw)
                count += 1
        for entry in self._store.with_keys_of(NodeId(row.node_id)):
            self._keys(entry)
        return count

    def _keys(self, entry: Entry) -> None:
        """As other tools want them."""
        try:
            shown = read_credentials(entry.type, entry.body)
        except Refused:
            return  # nobody can read it
        self.add(f"certificates/{sha256(shown.leaf).hex()}.pem", _pem([shown.leaf, *shown.chain]))
        self.add(f"endorsements/{sha256(shown.endorsement).hex()}.cose", shown.endorsement)

    def _info(self, name: str) -> zipfile.ZipInfo:
        year, month, day, hour, minute, second = self._time
        return zipfile.ZipInfo(name, (max(year, 1980), month, day, hour, minute, second))


def _entries(store: AuditStore, log_id: bytes) -> Iterator[bytes]:
    """Every entry of a log, in order."""
    start = 0
    while raws := store.read(log_id, start, AT_ONCE, limit=BYTES_AT_ONCE):
        yield from raws
        start += len(raws)


def _chosen(store: AuditStore, wanted: Wanted) -> list[LogRow]:
    """The logs that are meant: those of some nodes need the logs of their witnesses, which show with which keys they cosign."""
    rows = [row for row in store.logs() if isinstance(row.log_id, bytes) and isinstance(row.node_id, bytes)]
    pruned = [row.log_id.hex()[:8] for row in rows if store.pruned_below(row.number)]
    if pruned:
        hint = "prove single entries, or export where everything is kept"
        raise UsageError(f"contents of log {pruned[0]} were pruned here: a bundle needs all of it", hint=hint)
    if wanted.nodes is None:
        return rows
    named = {row.log_id for row in rows if row.node_id in wanted.nodes}
    lines = (line for log_id in named for kept in store.checkpoints(log_id) for line in kept.note.signatures)
    witnesses = {line.name.split("/")[1] for line in lines if line.name.endswith("/w")}
    return [row for row in rows if row.node_id in wanted.nodes or str(NodeId(row.node_id)) in witnesses]


def _pem(certificates: Iterable[bytes]) -> bytes:
    """As openssl reads them."""
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in certificates)


def _readme(store: AuditStore, root: Root, notes: Sequence[KeptCheckpoint], at: datetime) -> str:
    judge = Judge(store, root)
    keys = sorted({key for kept in notes for key in _note_keys(judge, kept)})
    made = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return README.format(name=root.name, mesh=root.mesh_id, made=made, keys="\n".join(keys) or "none")


def _note_keys(judge: Judge, kept: KeptCheckpoint) -> Iterator[str]:
    """The verifier keys of those who have signed a checkpoint."""
    says = kept.checkpoint
    try:
        yield says.author_key(
            UnverifiedCheckpoint(says, kept.note).verify_any([key.peer.message_public for key in judge.keys(says.node_id)])
        ).text
    except Refused:
        return
    for line in kept.note.signatures:
        for key in judge.keys(NodeId.parse(line.name.split("/")[1])) if line.name.endswith("/w") else ():
            public = key.peer.endorsement.witness_public
            if public is not None and line.is_of(witness_key(says.mesh_id, key.peer.node_id, public)):
                yield witness_key(says.mesh_id, key.peer.node_id, public).text
