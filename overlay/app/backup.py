"""What goes into a backup of a node.

Never in it: the founding key, shares of the mesh key and what is prepared for them, what a signer has promised, keys of a
start. A running node may be backed up: each small file is replaced in one step, so they are read until two rounds find the
same, which is how all of them stood in between; the audit store is copied by SQLite, in one transaction.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from audit.store import AuditStore
from overlay.app.identity import Membership, load_membership
from overlay.app.version import VERSION
from overlay.core.authority.order_book import OrderBook
from overlay.core.authority.stored_chain import unpack_chain
from overlay.core.authority.succession import AuthorityChain
from overlay.core.certificates import VerifiedCertificate, leaf_of_any_time
from overlay.core.trust_update import unpack_trust
from overlay.errors import HostLacks, OverlayError, Refused, StateDamaged, UsageError
from overlay.store.backup import CHECKED, TEXTS, Manifest, write_backup
from overlay.store.files import FILE_MAX, damaged, replacing
from overlay.store.identity import load_identity
from overlay.store.peers import load_peers
from overlay.store.restored import load_count
from overlay.store.sealed_file import COST, SealedWriter
from overlay.store.state import (
    AUDIT_STORE,
    AUTHORITY,
    CERTIFICATE,
    FOUNDING_KEY,
    ORDERS,
    PEERS,
    TRUST,
    StateFolder,
)

ROUNDS: Final = 50  # until two find the same: a node writes a few files a minute, and a round takes milliseconds
LOOK_AT_DISK: Final = "look at the disk, its space and its permissions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a backup says of its node."""

    certificate: VerifiedCertificate
    mesh_id: bytes
    mesh_name: str
    is_signer: bool
    is_founder: bool
    counted: int


def make_backup(
    state: Path, target: Path, passphrase: bytes, at: datetime, *, overwrite: bool = False, cost: int = COST
) -> Manifest:
    """Write a backup of a node, running or not; blocks. Nothing is at `target` until all of it is.

    Raises:
        UsageError: there is no member in the folder, or a file at `target`.
        StateDamaged: a file of the folder does not hold what it should: such a folder is not backed up.
        HostLacks: the disk does not take it.
    """
    check_target(target, overwrite=overwrite)
    with StateFolder.open(state, exclusive=False) as folder:
        facts, contents = read_moment(folder, at)
        with _copy_of_logs(folder) as (audit, last_log):
            sizes = {name: len(data) for name, data in contents.items()}
            if audit is not None:
                sizes[AUDIT_STORE] = audit.stat().st_size
            manifest = _manifest(facts, at, sizes, counted=max(facts.counted, last_log))
            _write(target, passphrase, manifest, contents, audit, overwrite=overwrite, cost=cost)
    return manifest


def _manifest(facts: Facts, at: datetime, sizes: Mapping[str, int], *, counted: int) -> Manifest:
    certificate = facts.certificate
    return Manifest(
        made_at=at.astimezone(UTC).replace(microsecond=0), release=VERSION, node_id=certificate.node_id,
        name=certificate.name, mesh_id=facts.mesh_id, mesh_name=facts.mesh_name, roles=certificate.roles,
        certificate_ends=certificate.not_after, is_signer=facts.is_signer, is_founder=facts.is_founder, counted=counted,
        sizes=sizes,
    )  # fmt: skip


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raises UsageError if a backup cannot be written there."""
    if not target.parent.is_dir():
        raise UsageError(f"cannot write {target}: there is no folder {target.parent}")
    if target.is_dir() or (target.exists() and not target.is_file()):
        raise UsageError(f"cannot write {target}: that is no plain file")
    if target.exists() and not overwrite:
        raise _there_already(target)


def _there_already(target: Path) -> UsageError:
    return UsageError(f"{target} is there already", hint="name another file, or replace it with --force")


def _write(
    target: Path, passphrase: bytes, manifest: Manifest, contents: Mapping[str, bytes], audit: Path | None, *,
    overwrite: bool, cost: int,
) -> None:
    try:
        with replacing(target, overwrite=overwrite) as file:
            write_backup(SealedWriter(file, passphrase, cost=cost), manifest, contents, audit)
    except FileExistsError:
        raise _there_already(target) from None
    except OSError as error:
        raise HostLacks(f"cannot write {target}: {error.strerror}", hint=LOOK_AT_DISK) from None


def read_moment(folder: StateFolder, at: datetime) -> tuple[Facts, dict[str, bytes]]:
    """What all files held at one moment; raises StateDamaged."""
    for _ in range(ROUNDS):
        contents = _read(folder)
        facts = _facts(folder, contents, at)
        if _read(folder) == contents:
            return facts, contents
    raise OverlayError(f"{folder.path} changes too quickly to be read", hint="try again, or stop the node first")


def _read(folder: StateFolder) -> dict[str, bytes]:
    """Every small file that is there and belongs into a backup. A peer book that cannot be read is left out."""
    found = {name: folder.read(name) for name in CHECKED}
    for name in TEXTS:
        with suppress(FileNotFoundError), folder.file(name).open("rb") as file:
            found[name] = file.read(FILE_MAX)
    try:
        load_peers(folder)
    except StateDamaged:
        found[PEERS] = None
    return {name: data for name, data in found.items() if data is not None}


def _facts(folder: StateFolder, contents: Mapping[str, bytes], at: datetime) -> Facts:
    """Raises UsageError for a folder that belongs to no mesh, StateDamaged."""
    load_identity(folder)
    membership = load_membership(folder)
    certificate, chain = _certificate(folder, membership, contents, at), _chain(folder, membership, contents)
    own = certificate.node_id
    try:
        orders = OrderBook.unpack(contents[ORDERS]).heights if ORDERS in contents else {}
    except Refused as error:
        raise damaged(folder.file(ORDERS), str(error)) from None
    founding = folder.file(FOUNDING_KEY).exists()
    return Facts(
        certificate=certificate, mesh_id=membership.mesh.root.mesh_id, mesh_name=membership.mesh.root.name,
        is_founder=founding,
        is_signer=chain.newest.number > 0 and chain.is_signer(own),
        counted=max(load_count(folder), orders[own].any if own in orders else 0),
    )


def _certificate(
    folder: StateFolder, membership: Membership, contents: Mapping[str, bytes], at: datetime
) -> VerifiedCertificate:
    """Ours; it may have ended: that changes nothing about whose folder it is."""
    stored, root = membership.certificate, membership.mesh.root
    try:
        trust = unpack_trust(contents[TRUST], root) if TRUST in contents else membership.trust
        return leaf_of_any_time(stored.leaf, trust.roots.above(stored.leaf, stored.chain), at)
    except Refused as error:
        raise damaged(folder.file(CERTIFICATE), str(error)) from None


def _chain(folder: StateFolder, membership: Membership, contents: Mapping[str, bytes]) -> AuthorityChain:
    root = membership.mesh.root
    try:
        if AUTHORITY in contents:
            return unpack_chain(contents[AUTHORITY], root)
        return AuthorityChain.begin(membership.mesh.authority_object, root)
    except Refused as error:
        raise damaged(folder.file(AUTHORITY), str(error)) from None


@contextmanager
def _copy_of_logs(folder: StateFolder) -> Iterator[tuple[Path | None, int]]:
    """A copy of the audit store, in the state folder for the length of the block, and the highest number of any log."""
    source = folder.file(AUDIT_STORE)
    if not source.exists():  # a node that never ran
        yield None, 0
        return
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=folder.path) as beside:
        store = AuditStore.open_readonly(source)
        try:
            store.copy_to(Path(beside) / AUDIT_STORE)
            last = max((row.k for row in store.logs()), default=0)
        finally:
            store.close()
        yield Path(beside) / AUDIT_STORE, last
