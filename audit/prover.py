"""Makes proofs out of a store: of one entry, under the checkpoint that most witnesses have seen."""

from collections.abc import Iterable
from itertools import islice

from audit.author import LogSigner
from audit.chain import KeyInForce
from audit.checkpoint import Checkpoint, UnverifiedCheckpoint, witness_key
from audit.entry import Entry, parse_entry
from audit.judged import NOBODY, Witnessed
from audit.notes import Note, NoteSignature
from audit.proofs import Extra
from audit.store import AuditStore
from audit.tlog_proof import TlogProof
from audit.witnessed import Judge
from overlay.core.certificates import Root
from overlay.errors import UsageError

_LATER = "a node makes a checkpoint every 64 entries, or within 5 seconds; try again"


def prove(
    store: AuditStore, root: Root, log_id: bytes, seq: int, *, authority: bytes | None = None,
    signer: LogSigner | None = None,
) -> TlogProof:  # fmt: skip
    """A proof of one entry, which `check_proof` verifies by the mesh's root alone.

    Args:
        authority: the packed chain of authority objects, where recovery keys have put a root in place.
        signer: of our own open log, whose head it signs where no checkpoint covers the entry: a node without witnesses
            makes none.

    Raises:
        UsageError: there is no such entry, or no checkpoint covers it yet.
        StateDamaged: entries are missing.
    """
    raws = store.read(log_id, seq, 1, limit=1)
    if not raws:
        raise UsageError(f"there is no entry {seq} in log {log_id.hex()}", hint="see `overlay audit log`")
    entry = parse_entry(raws[0]).says
    judge = Judge(store, root)
    found, note = _best(store, judge, entry) or _own_head(store, root, entry, signer)
    checkpoint = found.checkpoint
    named = _naming(store, log_id, checkpoint.size)
    with store.tree(log_id) as tree:
        path = tree.inclusion(seq, checkpoint.size)
        named_path = () if named is None else tree.inclusion(named.seq, checkpoint.size)
    signed = UnverifiedCheckpoint(checkpoint, found.note(note))
    extra = Extra(
        root=root.der, entry=entry.raw, keys=tuple(_keys(store, judge, entry, signed, found)),
        witnesses=None if named is None else named.raw, witnesses_path=named_path, authority=authority,
    )
    return TlogProof(index=seq, path=path, checkpoint=signed, extra=extra.pack())


def _best(store: AuditStore, judge: Judge, entry: Entry) -> tuple[Witnessed, Note] | None:
    """The earliest checkpoint that covers it and that enough witnesses have cosigned; else the earliest that covers it."""
    covering = [one for one in judge.witnessed(entry.log_id) if one.checkpoint.size > entry.seq]
    if not covering:
        return None
    best = next((one for one in reversed(covering) if one.at is not None), covering[-1])
    kept = store.checkpoints(entry.log_id, from_size=best.checkpoint.size)
    return best, next(one.note for one in kept if one.checkpoint == best.checkpoint)


def _own_head(store: AuditStore, root: Root, entry: Entry, signer: LogSigner | None) -> tuple[Witnessed, Note]:
    """The head of our open log, signed now; nobody has cosigned it."""
    states, _ = store.load(root)
    state = states.get(entry.log_id)
    if signer is None or state is None or state.key is None or state.key.kid != signer.kid:
        raise UsageError(f"no checkpoint covers entry {entry.seq} yet", hint=_LATER)
    head = Checkpoint(
        mesh_id=root.mesh_id, node_id=state.node_id, log_id=state.log_id, size=state.size, root=state.root
    )
    return Witnessed(checkpoint=head, witnesses=NOBODY, lines={}), head.sign(signer.message)


def _naming(store: AuditStore, log_id: bytes, size: int) -> Entry | None:
    """The entry that names the witnesses by whom a checkpoint is judged."""
    named = [one for one in store.with_witnesses() if one.log_id == log_id and one.seq < size]
    return named[-1] if named else None


def _keys(store: AuditStore, judge: Judge, entry: Entry, found: UnverifiedCheckpoint, judged: Witnessed) -> Iterable[bytes]:
    """The entries with the keys that signed the entry, the checkpoint and its cosignatures, each once."""
    signed = found.verify_any([key.peer.message_public for key in judge.keys(entry.node_id)])
    own = (key.kid for key in judge.keys(entry.node_id) if key.peer.message_public == signed)
    wanted = [(entry.node_id, entry.kid), *((entry.node_id, kid) for kid in islice(own, 1))]
    for node, line in judged.lines.items():
        kids = (key.kid for key in judge.keys(node) if _cosigned(found.says, key, line))
        wanted += [(node, kid) for kid in islice(kids, 1)]
    shown = {(one.node_id, one.kid): one.raw for node in {node for node, _ in wanted} for one in store.with_keys_of(node)}
    return dict.fromkeys(shown[one] for one in wanted if one in shown)


def _cosigned(checkpoint: Checkpoint, key: KeyInForce, line: NoteSignature) -> bool:
    """Whether that key claims this cosignature, and was in force at its time."""
    public = key.peer.endorsement.witness_public
    named = None if public is None else witness_key(checkpoint.mesh_id, key.peer.node_id, public)
    within = int(key.not_before.timestamp()) <= line.timestamp <= int(key.not_after.timestamp())
    return named is not None and line.is_of(named) and within
