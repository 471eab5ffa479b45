"""A log as a chain: from a state and the next entries to the next state, or Refused (docs/protocol/audit.md). Rules:

- an entry is of this node and this log, its number is the next, its prev is the hash of the entry before
- time rises strictly and lies within the life of the endorsement
- entry 0 is a `log.open` that carries the keys and gives the log its id; no other entry is one
- keys change only by an `endorsement` entry, the first under its own kid, verified up to the mesh's root at its own
  time
- each entry is signed by the message key in force

The mesh's root is all that a verifier needs. An entry that is more than five minutes ahead of the verifier is not
refused: it has to wait.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

from audit.bodies import LogOpen, read_credentials
from audit.entry import Entry, make_log_id, parse_entry, refuse_entry
from overlay.core.certificates import Root, show_time, verify_leaf
from overlay.core.endorsement import verify_endorsement
from overlay.core.keys import NodeId
from overlay.core.merkle import Tree
from overlay.core.mesh.chains import is_ahead
from overlay.core.trust import Credentials, VerifiedPeer
from overlay.registry import GENESIS, EntryType, Reason

KEYED = frozenset({EntryType.LOG_OPEN, EntryType.ENDORSEMENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInForce:
    """An endorsement out of an entry, verified up to the root."""

    seq: int  # of the entry that carries it
    peer: VerifiedPeer
    chain: tuple[bytes, ...] = field(default=(), repr=False)  # certificates between its leaf and the founding root, DER

    @property
    def kid(self) -> bytes:
        """Hash of the endorsement. 32 bytes."""
        return self.peer.kid

    @property
    def not_before(self) -> datetime:
        """From when entries under it count."""
        return self.peer.endorsement.not_before

    @property
    def not_after(self) -> datetime:
        """Until when."""
        return self.peer.endorsement.not_after

    @property
    def credentials(self) -> Credentials:
        """What shows it to who has to verify it again."""
        return Credentials(self.peer.endorsement.raw, self.peer.certificate.der, self.chain)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainState:
    """All that has to be known of a log to judge its next entry."""

    node_id: NodeId
    log_id: bytes  # 16
    k: int = 0  # incarnation
    tree: Tree = field(default_factory=Tree)
    last: bytes = GENESIS  # hash of the last entry
    hlc: int = 0
    key: KeyInForce | None = None  # None before entry 0

    @property
    def size(self) -> int:
        """How many entries: the number of the next one."""
        return self.tree.size

    @property
    def root(self) -> bytes:
        """Root of the tree. 32 bytes."""
        return self.tree.root


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """What came of the next entries."""

    state: ChainState
    entries: tuple[Entry, ...]  # those that hold, in order
    held: Entry | None = None  # the first that is good and has to wait for its time; those after it were not looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Checked entries that are to become durable, and the state of their log after them."""

    state: ChainState
    entries: tuple[Entry, ...]
    ours: bool = False  # written here, not received


def extend(state: ChainState, raws: Iterable[bytes], root: Root, *, at: datetime | None) -> Extension:
    """Check the next entries of a log, one signature each.

    Args:
        at: the verifier's time; None for a log of the past, in which nothing waits.

    Raises:
        Refused: MALFORMED, TOO_LARGE, UNSUPPORTED, WRONG_AUTHOR (another node or log), CHAIN_BROKEN (number, prev, log
            id, first entry), CLOCK (time does not rise), NOT_IN_FORCE, BAD_SIGNATURE, BAD_ENDORSEMENT (a kid that is
            not in force), and whatever `verify_leaf` and `verify_endorsement` raise. `state` is as it was.
    """
    entries: list[Entry] = []
    end, held = _End(state.size, state.last, state.hlc, state.key), None
    for raw in raws:
        unverified = parse_entry(raw)
        key = _check(state, end, unverified.says, root)
        entry = unverified.verify(key.peer.message_public, root.mesh_id)
        if at is not None and is_ahead(entry.hlc, at):
            held = entry
            break
        end = _End(entry.seq + 1, entry.hash, entry.hlc, key)
        entries.append(entry)
    return Extension(state=advance(state, entries, end.key), entries=tuple(entries), held=held)


def advance(state: ChainState, entries: Sequence[Entry], key: KeyInForce | None) -> ChainState:
    """The state after entries that have been checked, or that we have written ourselves; `key` is in force after the last."""
    if not entries:
        return state
    first, last = entries[0], entries[-1]
    return replace(
        state, k=LogOpen.read(first.body).k if first.type == EntryType.LOG_OPEN else state.k,
        tree=state.tree.extend(entry.hash for entry in entries), last=last.hash, hlc=last.hlc, key=key,
    )  # fmt: skip


def verify_key(entry: Entry, root: Root) -> KeyInForce:
    """The endorsement that an entry carries, verified up to the root, at the entry's own time.

    Raises:
        Refused: see `extend`; BAD_ENDORSEMENT if the entry is signed under another one.
    """
    shown = read_credentials(entry.type, entry.body)
    certificate = verify_leaf(shown.leaf, shown.chain, root, entry.at)
    endorsement = verify_endorsement(shown.endorsement, certificate, root.mesh_id, entry.at)
    if endorsement.hash != entry.kid:
        raise refuse_entry(Reason.BAD_ENDORSEMENT, entry, "not signed under the endorsement that it carries")
    if endorsement.node_id != entry.node_id:
        raise refuse_entry(Reason.WRONG_AUTHOR, entry, "carries the endorsement of another node")
    return KeyInForce(seq=entry.seq, peer=VerifiedPeer(certificate, endorsement), chain=shown.chain)


class _End(NamedTuple):
    """Where a log ends while its next entries are judged: what the next one must follow."""

    size: int
    last: bytes
    hlc: int
    key: KeyInForce | None


def _check(state: ChainState, end: _End, entry: Entry, root: Root) -> KeyInForce:
    """All but the signature, cheap checks first: the key under which that must verify."""
    if entry.node_id != state.node_id or entry.log_id != state.log_id:
        raise refuse_entry(Reason.WRONG_AUTHOR, entry, "of another node or log")
    if entry.seq != end.size:
        raise refuse_entry(Reason.CHAIN_BROKEN, entry, f"where entry {end.size} was expected")
    if entry.prev != end.last:
        raise refuse_entry(Reason.CHAIN_BROKEN, entry, f"follows {entry.prev.hex()}, not {end.last.hex()}")
    if entry.hlc <= end.hlc:
        raise refuse_entry(Reason.CLOCK, entry, "its time is not later than that of the entry before")
    key = _key(end, entry, root)
    if not key.not_before <= entry.at <= key.not_after:
        life = f"{show_time(key.not_before)} to {show_time(key.not_after)}"
        written = f"written at {show_time(entry.at)} under an endorsement for {life}"
        raise refuse_entry(Reason.NOT_IN_FORCE, entry, written)
    return key


def _key(end: _End, entry: Entry, root: Root) -> KeyInForce:
    """The key in force, or the new one that the entry carries."""
    if (entry.type == EntryType.LOG_OPEN) != (end.key is None):
        raise refuse_entry(Reason.CHAIN_BROKEN, entry, "a log begins with log.open, and only there")
    if end.key is None:
        key = verify_key(entry, root)
        _check_log_id(entry, key, root)
        return key
    if entry.type == EntryType.ENDORSEMENT:
        return verify_key(entry, root)
    if entry.kid != end.key.kid:
        raise refuse_entry(Reason.BAD_ENDORSEMENT, entry, "signed under an endorsement that is not in force here")
    return end.key


def _check_log_id(entry: Entry, key: KeyInForce, root: Root) -> None:
    """The id of a log follows from the mesh, the node, the incarnation, the log before and the start."""
    opening = LogOpen.read(entry.body)
    last = opening.former.last if opening.former is not None else GENESIS
    if entry.log_id != make_log_id(root.mesh_id, entry.node_id, opening.k, last, key.peer.start_id):
        raise refuse_entry(Reason.CHAIN_BROKEN, entry, "the log's id does not follow from its opening")
