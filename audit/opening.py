"""Opening the store of logs to write: our newest log as it goes on from here, the next incarnation, or the first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from audit.author import LogSigner, OwnLog, former_of
from audit.batch import DAMAGED, RESTORED, Batch
from audit.bodies import Former
from audit.chain import ChainState
from audit.replica import KEYS_KEPT, AuditReplica
from audit.store import AuditStore, DamagedLog
from audit.witness_sets import sets_of
from overlay.core.certificates import Root, verify_leaf
from overlay.core.merkle import Tree
from overlay.core.mesh.chains import hlc_of
from overlay.registry import GENESIS

NO_FORMER: Final = Former(log_id=bytes(16), size=0, root=Tree().root, last=GENESIS, reason=RESTORED)  # it wrote none yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The store, everyone's logs in it, and ours; its opening is durable."""

    store: AuditStore
    replica: AuditReplica
    own: OwnLog
    damaged: tuple[DamagedLog, ...]
    waits: bool = False  # our log has witnesses, who are asked before anything of ours is written


def open_store(
    path: Path, root: Root, signer: LogSigner, at: Callable[[], datetime], lowest_k: int = 0, *, ask: bool = False
) -> Opened:
    """Open the store, and go on with our log or begin its next incarnation. Blocks on the disk.

    Args:
        lowest_k: no earlier incarnation goes on; for a node that was restored, whose logs went on without it.
        ask: a log that has witnesses does not go on yet: they know whether ours is the newest copy of it.

    Raises:
        StateDamaged: the file is not a store, or cannot be read or written.
        HostLacks: the disk is full.
        Refused: our credentials do not hold.
    """
    store = AuditStore.open(path)
    try:
        states, damaged = store.load(root)
        replica = AuditReplica(root, at, states)
        replica.remember(store.with_keys(hlc_of(at() - KEYS_KEPT)))
        batch, goes_on = _opening(root, signer, at(), states, damaged, lowest_k)
        waits = ask and goes_on and bool(sets_of(store.with_witnesses()).newest(batch.own.state.log_id).nodes)
        if goes_on and not waits:
            batch.change_signer(signer)
        appends = batch.finish()
        store.append_many(appends)
        for append in appends:
            replica.stored(append.state, append.entries)
        return Opened(store=store, replica=replica, own=batch.own, damaged=tuple(damaged), waits=waits)
    except BaseException:
        store.close()
        raise


def _opening(
    root: Root, signer: LogSigner, at: datetime, states: Mapping[bytes, ChainState], damaged: Sequence[DamagedLog],
    lowest_k: int,
) -> tuple[Batch, bool]:
    """Our newest log, and that it goes on; or the next one, if it cannot, or the first, with its entry 0."""
    node_id = verify_leaf(signer.credentials.leaf, signer.credentials.chain, root, at).node_id
    own = [state for state in states.values() if state.node_id == node_id]
    newest = max(own, key=lambda one: (one.k, one.hlc), default=None)
    lost = max((log for log in damaged if log.row.node_id == node_id), key=lambda one: one.k, default=None)
    if lost is not None and (newest is None or lost.k >= newest.k):
        return Batch.begin(root, signer, at, max(lost.k + 1, lowest_k), _former_of_lost(lost)), False
    if lowest_k and (newest is None or newest.k < lowest_k):
        former = NO_FORMER if newest is None else former_of(newest, RESTORED)
        return Batch.begin(root, signer, at, lowest_k, former), False
    if newest is None:
        return Batch.begin(root, signer, at, 0, None), False
    return Batch(OwnLog(root=root, state=newest, signer=signer), at), True


def _former_of_lost(log: DamagedLog) -> Former:
    """What the file still says of the end of a log, for its successor; nobody can check it here."""
    row = log.row
    return Former(
        log_id=_sized(row.log_id, 16), size=row.size if isinstance(row.size, int) and row.size >= 0 else 0,
        root=_sized(row.root, 32), last=_sized(row.last, 32), reason=DAMAGED,
    )  # fmt: skip


def _sized(value: object, size: int) -> bytes:
    return value if isinstance(value, bytes) and len(value) == size else bytes(size)
