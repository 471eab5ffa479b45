"""Verifying a bundle with no mesh: what it holds is put into a store of its own, unjudged, and verified like any other.

Nothing in it is trusted: not even the root, which has to be that of the mesh that is meant.
"""

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from audit.bundle import ENTRIES
from audit.checkpoint import UnverifiedCheckpoint, parse_checkpoint
from audit.forks import ForkProof, parse_fork
from audit.kept_forks import KeptFork
from audit.notes import NOTE_MAX
from audit.proofs import CheckedProof, check_proof, root_with
from audit.raw_logs import RawLog, fill, split
from audit.store import AuditStore
from audit.tlog_proof import PROOF_MAX, parse_tlog_proof
from audit.verifier import Progress, Report, verify_store
from audit.witnessed import Judge
from overlay.core.certificates import Root, parse_root
from overlay.core.keys import MeshId
from overlay.core.merkle import Tree
from overlay.core.mesh.chains import item_hash
from overlay.core.wire import Bytes, UInt, open_map
from overlay.errors import CheckFailed, Refused, StateDamaged
from overlay.registry import Reason

SMALL_MAX: Final = 4 * 1024 * 1024  # bytes of any part but entries: authority objects are the largest
TIME_MAX: Final = 2**34  # seconds, as in an endorsement


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """What came of a bundle."""

    root: Root
    logs: Report
    proofs: tuple[CheckedProof, ...] = ()
    forks: tuple[ForkProof, ...] = ()
    faults: tuple[str, ...] = ()  # of anything but entries

    @property
    def holds(self) -> bool:
        """Whether all of it does. A bundle with a fork proof that holds, holds."""
        return self.logs.holds and not self.faults

    @property
    def lines(self) -> tuple[str, ...]:
        """One for each log, proof, node that has told two stories, and fault."""
        forks = (f"{fork.name} has told two stories, which is proven: {fork.detail}" for fork in self.forks)
        return (*self.logs.lines, *(proof.line for proof in self.proofs), *forks, *self.faults)

    def demand(self) -> None:
        """Raises CheckFailed unless all holds."""
        self.logs.demand()
        if self.faults:
            raise CheckFailed(self.faults[0], hint="ask for another bundle, from another node")


@dataclass(slots=True)
class _Parts:
    """What is in the file, by name."""

    archive: zipfile.ZipFile
    sizes: Mapping[str, int]
    faults: list[str] = field(default_factory=list)

    def read(self, name: str, limit: int) -> bytes:
        """A part. Raises StateDamaged if it is too large or its check sum is wrong."""
        if self.sizes[name] > limit:
            raise StateDamaged(f"{name} in the bundle has {self.sizes[name]} bytes, {limit} are allowed")
        try:
            return self.archive.read(name)
        except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
            raise StateDamaged(f"{name} in the bundle cannot be read: {error}") from None

    def under(self, folder: str, ending: str) -> list[str]:
        """The parts in a folder."""
        return sorted(name for name in self.sizes if name.startswith(folder) and name.endswith(ending))


def is_bundle(path: Path) -> bool:
    """Whether a file looks like one; an SQLite file does not."""
    return zipfile.is_zipfile(path)


def verify_bundle(
    path: Path, mesh: MeshId | Root, *, at: datetime | None = None, progress: Progress = lambda _done, _total: None
) -> BundleReport:
    """Verify all of a bundle by the mesh's root, or its id, alone. `at` and `progress` as for `verify_store`.

    Raises:
        StateDamaged: it cannot be read as a bundle at all.
        Refused: OTHER_MESH, it is of another mesh; or its root or authority objects do not hold.
    """
    with _opened(path) as archive, tempfile.TemporaryDirectory(prefix="overlay-bundle-") as folder:
        parts = _Parts(archive, _sizes(archive))
        root = _root(parts, mesh)
        logs = [_log(parts, name) for name in parts.under("logs/", f"/{ENTRIES}")]
        kept, forks = _forks(parts, root)
        store = Path(folder) / "audit.sqlite3"
        fill(store, logs, kept)
        report = verify_store(store, root, at=at, progress=progress)
        _check_authors(parts, store, root, logs)
        proofs = tuple(_proofs(parts, root))
        return BundleReport(root=root, logs=report, proofs=proofs, forks=forks, faults=tuple(parts.faults))


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise StateDamaged(f"{path} is no bundle: {error}", hint="`overlay audit export` makes one") from None


def _sizes(archive: zipfile.ZipFile) -> dict[str, int]:
    """Parts by name. What is compressed is refused: so what is read is never larger than the file."""
    found = {}
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED or info.filename in found:
            raise StateDamaged(f"{info.filename} stands in the bundle twice, or compressed")
        found[info.filename] = info.file_size
    return found


def _root(parts: _Parts, mesh: MeshId | Root) -> Root:
    if "root.pem" not in parts.sizes:
        raise StateDamaged("there is no root.pem in the bundle")
    try:
        der = x509.load_pem_x509_certificate(parts.read("root.pem", SMALL_MAX)).public_bytes(Encoding.DER)
    except ValueError as error:
        raise StateDamaged(f"root.pem in the bundle is no certificate: {error}") from None
    found = parse_root(der)
    wanted = mesh.mesh_id if isinstance(mesh, Root) else mesh
    if found.mesh_id != wanted:
        raise Refused(Reason.OTHER_MESH, f"the bundle is of the mesh {found.name}, {found.mesh_id}")
    authority = parts.read("authority.cbor", SMALL_MAX) if "authority.cbor" in parts.sizes else None
    return root_with(found, authority)


def _log(parts: _Parts, name: str) -> RawLog:
    """A log and its checkpoints; those that do not fit its entries are faults."""
    folder = name.removesuffix(ENTRIES)
    log_id = _hex(folder.split("/")[1])
    try:
        raws = split(parts.read(name, parts.sizes[name]))
    except Refused as error:
        raise StateDamaged(f"{name} in the bundle: {error.detail}") from None
    found = [_checkpoint(parts, one) for one in parts.under(folder, ".checkpoint")]
    notes, hashes = [], [item_hash(raw) for raw in raws]
    for one in found:
        if one is None:
            continue
        says, tree = one.says, Tree().extend(hashes[: one.says.size])
        if says.log_id == log_id and (tree.size, tree.root) == (says.size, says.root):
            notes.append(one.note)
        else:
            parts.faults.append(f"a checkpoint of {says.size} entries of log {log_id.hex()[:8]} does not fit the entries")
    return RawLog(log_id=log_id, raws=raws, notes=tuple(notes))


def _checkpoint(parts: _Parts, name: str) -> UnverifiedCheckpoint | None:
    try:
        return parse_checkpoint(parts.read(name, NOTE_MAX))
    except Refused as error:
        parts.faults.append(f"{name}: {error.detail}")
        return None


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise StateDamaged(f"{text!r} in the bundle is no id of a log") from None


def _check_authors(parts: _Parts, path: Path, root: Root, logs: list[RawLog]) -> None:
    """Every checkpoint is signed by the author of its log."""
    store = AuditStore.open_readonly(path)
    try:
        judge = Judge(store, root)
        for note in (note for log in logs for note in log.notes):
            found = parse_checkpoint(note.raw)
            try:
                judge.check_author(found)
            except Refused as error:
                name = f"a checkpoint of {found.says.size} entries of log {found.says.log_id.hex()[:8]}"
                parts.faults.append(f"{name} is not its author's: {error.detail}")
    finally:
        store.close()


def _forks(parts: _Parts, root: Root) -> tuple[list[KeptFork], tuple[ForkProof, ...]]:
    kept, proofs = [], []
    for name in parts.under("forks/", ".cbor"):
        try:
            at, raw = open_map(parts.read(name, SMALL_MAX), UInt(TIME_MAX), Bytes(1, SMALL_MAX), limit=SMALL_MAX)
            proof = parse_fork(raw).verify(root, datetime.fromtimestamp(at, UTC))
        except Refused as error:
            parts.faults.append(f"{name}: {error}")
            continue
        proofs.append(proof)
        kept.append(KeptFork(node_id=proof.node_id, at=datetime.fromtimestamp(at, UTC), raw=raw))
    return kept, tuple(proofs)


def _proofs(parts: _Parts, root: Root) -> Iterator[CheckedProof]:
    for name in parts.under("proofs/", ".tlog-proof"):
        try:
            yield check_proof(parse_tlog_proof(parts.read(name, PROOF_MAX)), root)
        except Refused as error:
            parts.faults.append(f"{name}: {error}")
