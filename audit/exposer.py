"""Who has told two stories: from two copies of a log that differ to a proof of it, and proofs that others bring.

Rules:
- suspicion is none: a node is exposed by a proof that holds, and by nothing else; what nobody shows stays suspected
- of each node one proof is kept, and passed on once
- a peer that says that its copy differs has to show where: one entry after the other, at most one search of a log at a
  time, each at most 54 entries long; who shows our own entries, or what its author has not signed, has lied
- what has come too late to be judged (keys that are in force no more) proves nothing, and is no fault of who shows it
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from audit.bodies import read_credentials
from audit.chain import KEYED
from audit.entry import Entry, parse_entry
from audit.fork_sides import Side
from audit.forks import ForkProof, make_fork, parse_fork
from overlay.core.certificates import Root
from overlay.core.guard import asked
from overlay.core.keys import NodeId
from overlay.core.trust import Credentials
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import ForkKind, Reason

SEARCHES_WAITING: Final = 16  # of one peer: our guess; more forking authors at once there will not be
SUSPECTED_MAX: Final = 1024  # nodes: our guess
NOT_NOW: Final = frozenset(
    {Reason.CERTIFICATE_EXPIRED, Reason.CERTIFICATE_NOT_YET_VALID, Reason.ENDORSEMENT_EXPIRED, Reason.CLOCK}
)


@dataclass(frozen=True, slots=True)
class Compare:
    """Read our entry, have the peer show its own, then call `compared`."""

    peer: NodeId
    log_id: bytes
    index: int


@dataclass(frozen=True, slots=True)
class Exposed:
    """There is a proof against another node than before: store it, act on it, pass it on."""

    proof: ForkProof
    sender: NodeId | None = None  # who brought it; None if it was found here


@dataclass(frozen=True, slots=True)
class Suspected:
    """A peer holds another history of this node's log, and nothing proves that yet. Said once for each node."""

    node_id: NodeId
    peer: NodeId
    detail: str


@dataclass(frozen=True, slots=True)
class Misbehaved:
    """A peer sent what no honest peer sends."""

    peer: NodeId
    reason: Reason
    detail: str


ExposerEvent = Compare | Exposed | Suspected | Misbehaved


@dataclass(frozen=True, slots=True)
class _Search:
    """Where two copies part: the first entry that differs has a number from `low` on and below `high`, or is `high`."""

    node_id: NodeId
    log_id: bytes
    low: int
    high: int
    asked: int  # which one is being compared
    differs: bool = False  # the peer has shown one that differs


class Exposer:
    """The machine. No verb raises for what a peer did."""

    def __init__(
        self, root: Root, at: Callable[[], datetime], credentials_of: Callable[[bytes], Credentials | None],
        known: Iterable[ForkProof] = (),
    ) -> None:  # fmt: skip
        self._root = root
        self._at = at
        self._credentials_of = credentials_of
        self._exposed = {proof.node_id: proof for proof in known}
        self._suspected: dict[NodeId, str] = {}
        self._searches: dict[NodeId, deque[_Search]] = {}

    @property
    def exposed(self) -> Mapping[NodeId, ForkProof]:
        """A proof for each node that has forked."""
        return self._exposed

    @property
    def suspected(self) -> Mapping[NodeId, str]:
        """Nodes of whose logs somebody holds another history, and why that is not proven."""
        return {node: detail for node, detail in self._suspected.items() if node not in self._exposed}

    # --- verbs ------------------------------------------------------------------------------------------------------

    def histories_differ(
        self, peer: NodeId, node_id: NodeId, log_id: bytes, *, agreed: int, size: int
    ) -> list[ExposerEvent]:
        """A peer says that the first `size` entries of this node's log are others than ours, the last of them surely.

        Args:
            agreed: up to which size it has shown our root.
        """
        if node_id in self._exposed or not 0 <= agreed < size:
            return []
        searches = self._searches.setdefault(peer, deque())
        if len(searches) >= SEARCHES_WAITING or any(one.log_id == log_id for one in searches):
            return []
        searches.append(_Search(node_id, log_id, agreed, size, asked=size - 1))
        return [Compare(peer, log_id, size - 1)] if len(searches) == 1 else []

    def compared(
        self, peer: NodeId, log_id: bytes, index: int, ours: bytes | None, theirs: bytes | None
    ) -> list[ExposerEvent]:
        """What we have at this number of a log, and what the peer has shown."""
        searches = self._searches.get(peer)
        if not searches or (searches[0].log_id, searches[0].asked) != (log_id, index):
            return []
        search = searches[0]
        try:
            found = self._judge(peer, search, ours, theirs)
        except Refused as error:
            del self._searches[peer]
            return [Misbehaved(peer, error.reason, error.detail)]
        if isinstance(found, _Search):
            searches[0] = found
            return [Compare(peer, log_id, found.asked)]
        searches.popleft()
        return [*found, *self._next(peer)]

    def heard(self, sender: NodeId, raw: bytes) -> list[ExposerEvent]:
        """A proof that a peer has sent."""
        try:
            found = parse_fork(raw)
            if found.accused in self._exposed:
                return []
            proof = asked(lambda: found.verify(self._root, self._at()))
        except Refused as error:
            return [] if error.reason in NOT_NOW else [Misbehaved(sender, error.reason, error.detail)]
        return self._expose(proof, sender)

    def contradict(self, kind: ForkKind, one: Side, other: Side) -> list[ExposerEvent]:
        """Two statements of one node that we hold."""
        try:
            proof = asked(lambda: parse_fork(make_fork(kind, one, other)).verify(self._root, self._at()))
        except Refused:
            return []
        return [] if proof.node_id in self._exposed else self._expose(proof, None)

    def peer_closed(self, peer: NodeId) -> None:
        """What it should have shown does not come."""
        self._searches.pop(peer, None)

    def credentials_for(self, entry: Entry) -> Credentials | None:
        """What shows who signed an entry: what it carries, or what a log has shown. Raises Refused for a bad body."""
        if entry.type in KEYED:
            shown = read_credentials(entry.type, entry.body)
            if sha256(shown.endorsement) == entry.kid:
                return shown
        return self._credentials_of(entry.kid)

    # --- searching --------------------------------------------------------------------------------------------------

    def _judge(
        self, peer: NodeId, search: _Search, ours: bytes | None, theirs: bytes | None
    ) -> "_Search | list[ExposerEvent]":
        """Where to look next, or what came of it. Raises Refused if the peer has lied."""
        if ours is None or theirs is None:
            return self._suspect(search.node_id, peer, "nobody shows where the two copies part")
        if ours == theirs:
            search = replace(search, low=search.asked + 1)
        else:
            proof = self._prove(search, ours, theirs)
            if proof is not None:
                return self._expose(proof, None)
            search = replace(search, high=search.asked, differs=True)
        if search.low < search.high:
            return replace(search, asked=(search.low + search.high) // 2)
        if not search.differs:
            raise Refused(Reason.CHAIN_BROKEN, f"another head over our own entries of log {search.log_id.hex()}")
        return self._suspect(search.node_id, peer, "the keys that signed the two copies are in force no more")

    def _prove(self, search: _Search, ours: bytes, theirs: bytes) -> ForkProof | None:
        """A proof out of two entries; None if there is none in them now. Raises Refused if theirs is not its author's."""
        entry = parse_entry(theirs).says
        if (entry.node_id, entry.log_id, entry.seq) != (search.node_id, search.log_id, search.asked):
            raise Refused(Reason.WRONG_AUTHOR, "an entry of another place than the one asked for")
        shown, own = self.credentials_for(entry), self.credentials_for(parse_entry(ours).says)
        if shown is None or own is None:
            return None
        side = Side.of_entry(theirs, shown)
        try:
            asked(lambda: side.verify(self._root, self._at()))
        except Refused as error:
            if error.reason in NOT_NOW:
                return None
            raise
        raw = make_fork(ForkKind.ENTRIES, Side.of_entry(ours, own), side)
        try:
            return asked(lambda: parse_fork(raw).verify(self._root, self._at()))
        except Refused:  # our own side is not in force
            return None

    def _next(self, peer: NodeId) -> list[ExposerEvent]:
        """The next search of what this peer says, if there is one that is still of use."""
        searches = self._searches[peer]
        while searches:
            if searches[0].node_id not in self._exposed:
                return [Compare(peer, searches[0].log_id, searches[0].asked)]
            searches.popleft()
        del self._searches[peer]
        return []

    def _expose(self, proof: ForkProof, sender: NodeId | None) -> list[ExposerEvent]:
        self._exposed = {**self._exposed, proof.node_id: proof}
        self._suspected.pop(proof.node_id, None)
        return [Exposed(proof, sender)]

    def _suspect(self, node_id: NodeId, peer: NodeId, detail: str) -> list[ExposerEvent]:
        if node_id in self._suspected or node_id in self._exposed or len(self._suspected) >= SUSPECTED_MAX:
            return []
        self._suspected[node_id] = detail
        return [Suspected(node_id, peer, detail)]
