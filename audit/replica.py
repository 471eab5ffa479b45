"""The logs that this node holds, its own and others': where each ends, and what may be added to it.

Rules:
- a log's state moves only when its new entries are durable (`stored`), and only from the state they were checked against
- a check changes nothing but what is waiting to be stored, and that is forgotten with the next check of the log
- an endorsement that an entry has shown stays known for as long as something it signed may still come
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from audit.chain import KEYED, ChainState, Extension, KeyInForce, verify_key
from audit.entry import Entry, parse_entry
from audit.fast_chain import extend_by_runs
from overlay.core.certificates import Root, VerifiedCertificate
from overlay.core.keys import NodeId
from overlay.core.mesh.topics import Author
from overlay.core.trust import Credentials
from overlay.errors import Refused
from overlay.registry import Reason

KEYS_KEPT: Final = timedelta(hours=49)  # an endorsement lives 24 h, what it signed on a topic is kept another 24 h


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Entries that hold and wait to become durable."""

    start: int
    extension: Extension


class AuditReplica:
    """The `ChainCheck` of audit logs, and what is known of their authors."""

    def __init__(self, root: Root, at: Callable[[], datetime], states: Mapping[bytes, ChainState] | None = None) -> None:
        self._root = root
        self._at = at
        self._states: dict[bytes, ChainState] = dict(states or {})
        self._checked: dict[bytes, Checked] = {}
        self._keys: dict[bytes, KeyInForce] = {}
        self._certificates: dict[NodeId, VerifiedCertificate] = {}  # of each author the newest
        for state in self._states.values():
            if state.key is not None:
                self._learn(state.key)

    # --- what is held -----------------------------------------------------------------------------------------------

    @property
    def states(self) -> Mapping[bytes, ChainState]:
        """The end of every log, by log id."""
        return self._states

    def logs_of(self, node_id: NodeId) -> tuple[ChainState, ...]:
        """The logs of one node, newest incarnation first."""
        found = (state for state in self._states.values() if state.node_id == node_id)
        return tuple(sorted(found, key=lambda state: state.k, reverse=True))

    # --- ChainCheck -------------------------------------------------------------------------------------------------

    def check(self, log_id: bytes, node_id: NodeId, start: int, items: Sequence[bytes]) -> int:
        """How many of the items, from the first, may be stored now; the others are good and have to wait for their time.

        Raises:
            Refused: see `audit.chain.extend`; FORKED if the first one follows another entry than our last.
        """
        state = self._states.get(log_id) or ChainState(node_id=node_id, log_id=log_id)
        if start != state.size:
            raise Refused(Reason.CHAIN_BROKEN, f"entries from {start} where {state.size} was expected")
        try:
            extension = self.judge(state, items)
        except Refused as error:
            if error.reason is Reason.CHAIN_BROKEN and _follows_another(state, items[0], self._root):
                raise Refused(Reason.FORKED, f"another history of log {log_id.hex()} at entry {start}") from None
            raise
        self._checked[log_id] = Checked(start=start, extension=extension)
        return len(extension.entries)

    def judge(self, state: ChainState, items: Sequence[bytes]) -> Extension:
        """What comes of the next entries of a log. Raises Refused, see `audit.chain.extend`."""
        return extend_by_runs(state, items, self._root, at=self._at())

    def number_of(self, item: bytes) -> int:
        """See `ChainCheck`."""
        return parse_entry(item).says.seq

    def checked(self, log_id: bytes, start: int, count: int) -> Extension | None:
        """What the last `check` of a log found, if it was of these items and the log is still where it was."""
        found = self._checked.get(log_id)
        state = self._states.get(log_id)
        size = 0 if state is None else state.size
        if found is None or found.start != start or start != size or len(found.extension.entries) != count:
            return None
        return found.extension

    def stored(self, state: ChainState, entries: Iterable[Entry]) -> None:
        """These entries are durable, and this is the state of their log now."""
        self._checked.pop(state.log_id, None)
        self._states[state.log_id] = state
        for entry in entries:
            if entry.type in KEYED:
                self._learn_from(entry)

    def dropped(self, log_id: bytes) -> None:
        """Checked entries could not be stored."""
        self._checked.pop(log_id, None)

    # --- authors ----------------------------------------------------------------------------------------------------

    def author_of(self, kid: bytes) -> Author | None:
        """Whose endorsement has this hash, as some log has shown. The author itself may be away."""
        key = self._keys.get(kid)
        return None if key is None else self._author(key)

    def credentials_of(self, kid: bytes) -> Credentials | None:
        """What shows whose endorsement has this hash, for who has to verify it again; the author itself may be away."""
        key = self._keys.get(kid)
        return None if key is None else key.credentials

    def keys_of(self, node_id: NodeId) -> tuple[KeyInForce, ...]:
        """Its endorsements that are still remembered, the newest first."""
        found = (key for key in self._keys.values() if key.peer.node_id == node_id)
        return tuple(sorted(found, key=lambda key: key.not_before, reverse=True))

    def witness_candidates(self) -> Mapping[NodeId, KeyInForce]:
        """Of each author the newest endorsement that is in force now, if it names a witness key."""
        at, found = self._at(), {}
        for key in sorted(self._keys.values(), key=lambda key: key.not_before):
            if key.not_before <= at <= key.not_after and key.peer.endorsement.witness_public is not None:
                found[key.peer.node_id] = key
        return found

    def certificate_of(self, node_id: NodeId) -> VerifiedCertificate | None:
        """The newest certificate that a log of this node has shown. It may have ended, or have been revoked."""
        return self._certificates.get(node_id)

    def endorsements(self) -> Mapping[bytes, Author]:
        """Every endorsement that is known, by its hash."""
        return {kid: self._author(key) for kid, key in self._keys.items()}

    def remember(self, entries: Iterable[Entry]) -> None:
        """Learn from stored entries that carry keys, after a start. What does not verify is left out."""
        for entry in entries:
            try:
                self._learn_from(entry)
            except Refused:
                continue

    def _learn_from(self, entry: Entry) -> None:
        self._learn(verify_key(entry, self._root))

    def _learn(self, key: KeyInForce) -> None:
        shown = key.peer.certificate
        known = self._certificates.get(key.peer.node_id)
        if known is None or known.not_before <= shown.not_before:
            self._certificates[key.peer.node_id] = shown
        oldest = self._at() - KEYS_KEPT
        self._keys = {kid: one for kid, one in (self._keys | {key.kid: key}).items() if one.not_after > oldest}

    def _author(self, key: KeyInForce) -> Author:
        peer = key.peer
        return Author(
            node_id=peer.node_id, name=peer.name, message_public=peer.message_public, not_before=key.not_before,
            not_after=key.not_after, logs=tuple(state.log_id for state in self.logs_of(peer.node_id)),
        )  # fmt: skip


def _follows_another(state: ChainState, raw: bytes, root: Root) -> bool:
    """Whether an entry is our next one by all but its prev: then its author has told two stories, and the peer that
    sends it may be honest. Under a kid that only the other story has shown, its signature cannot be checked.

    Raises:
        Refused: BAD_SIGNATURE.
    """
    unverified = parse_entry(raw)
    entry = unverified.says
    if state.key is None or (entry.node_id, entry.log_id, entry.seq) != (state.node_id, state.log_id, state.size):
        return False
    if entry.kid == state.key.kid:
        unverified.verify(state.key.peer.message_public, root.mesh_id)
    return entry.prev != state.last
