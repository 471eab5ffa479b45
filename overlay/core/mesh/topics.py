"""Publications: signed by their author, chained per author and topic, so that a gap or an edit shows (docs/protocol/topics.md).

    publish {0:1, 1:from, 2:topic, 3:log_id16, 4:seq, 5:prev32, 6:hlc, 7:body}     COSE_Sign1, kid = H(endorsement)

`item_hash` and `prev` are as in the audit log. Transient publications are none of these: see `transients.py`.

A chain carries no endorsements, unlike an audit log. They stand in the author's audit log, which every node holds, so a
publication verifies while its author is away; one that comes before its author's log has come waits for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from overlay.core import limits
from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.mesh.chains import HLC_MAX, SEQ_LAST, hlc_time, is_ahead, item_hash
from overlay.core.wire import Bytes, Text, UInt, make_map, open_map, parse_sign1, sha256, sign1
from overlay.errors import Refused, UsageError
from overlay.registry import GENESIS, Label, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Whose signature it may be: what an endorsement says, found by its hash."""

    node_id: NodeId
    name: str
    message_public: bytes  # 32
    not_before: datetime
    not_after: datetime
    logs: tuple[bytes, ...]  # ids of its audit logs, as far as we know them


AuthorOf = Callable[[bytes], Author | None]  # from kid
MayPublish = Callable[[NodeId, str], bool]  # author, topic


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A publication whose signature has been checked."""

    author: Author
    topic: str
    log_id: bytes  # 16
    seq: int
    prev: bytes  # 32
    hlc: int
    body: bytes = field(repr=False)
    hash: bytes  # 32

    @property
    def at(self) -> datetime:
        """The author's time."""
        return hlc_time(self.hlc)


def topic_log_id(mesh_id: bytes, node_id: NodeId, audit_log_id: bytes, topic: str) -> bytes:
    """The 16 bytes that name an author's chain on a topic for as long as its audit log goes on."""
    return sha256(Label.TOPIC, mesh_id, node_id, audit_log_id, topic.encode())[:16]


def check_topic(topic: str) -> None:
    """Raises UsageError for a name that no topic can have."""
    if not is_topic(topic):
        raise UsageError(f"a topic has 1 to {limits.TOPIC_MAX} bytes of printable text")


def is_topic(topic: str) -> bool:
    """Whether a topic can have this name."""
    return topic.isprintable() and 0 < len(topic.encode()) <= limits.TOPIC_MAX


def sign_publication(
    own: LocalIdentity, mesh_id: bytes, *, topic: str, log_id: bytes, seq: int, prev: bytes, hlc: int, body: bytes
) -> bytes:
    """A publication's bytes. Raises UsageError for a body that is too long."""
    check_topic(topic)
    if len(body) > limits.PUBLICATION_MAX:
        raise UsageError(f"a publication has at most {limits.PUBLICATION_MAX} bytes", hint="send large data with calls")
    payload = make_map(own.node_id, topic, log_id, seq, prev, hlc, body)
    return sign1(payload, signer=own.message, aad=Label.PUBLISH + mesh_id, kid=own.kid)


def verify_publication(raw: bytes, *, mesh_id: bytes, author_of: AuthorOf) -> Publication:
    """Check signature, author and that the endorsement was in force at the time the author gives.

    Raises:
        Refused: MALFORMED, TOO_LARGE, BAD_SIGNATURE, WRONG_AUTHOR for an endorsement that nobody showed us or another
            node's, NOT_IN_FORCE.
    """
    message = parse_sign1(raw, limit=limits.ENTRY_MAX)
    author = author_of(message.kid or b"")
    if author is None:
        raise Refused(Reason.WRONG_AUTHOR, "signed under an endorsement that we have not seen")
    payload = message.verify(author.message_public, aad=Label.PUBLISH + mesh_id)
    node_id, topic, log_id, seq, prev, hlc, body = _fields(payload)
    if not is_topic(topic):
        raise Refused(Reason.MALFORMED, "the name of a topic")
    if node_id != author.node_id:
        raise Refused(Reason.WRONG_AUTHOR, "the author is not the endorsed node")
    at = hlc_time(hlc)
    if not author.not_before <= at <= author.not_after:
        raise Refused(Reason.NOT_IN_FORCE, "published outside the life of its endorsement")
    return Publication(
        author=author, topic=topic, log_id=log_id, seq=seq, prev=prev, hlc=hlc, body=body, hash=item_hash(raw)
    )


def _fields(payload: bytes) -> list[Any]:
    return open_map(
        payload, Bytes(32), Text(limits.TOPIC_MAX), Bytes(16), UInt(SEQ_LAST), Bytes(32), UInt(HLC_MAX),
        Bytes(0, limits.PUBLICATION_MAX), limit=limits.ENTRY_MAX,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TopicState:
    """The end of one author's chain on one topic."""

    node_id: NodeId
    topic: str
    size: int
    head: bytes  # item_hash of the last, 32 zeros at the start
    hlc: int

    @classmethod
    def begin(cls, node_id: NodeId, topic: str) -> "TopicState":
        """Before the first publication."""
        return cls(node_id, topic, 0, GENESIS, 0)


class TopicCheck:
    """The `ChainCheck` of topics. States move by `commit`, after the items are durable."""

    def __init__(
        self, mesh_id: bytes, author_of: AuthorOf, at: Callable[[], datetime], states: Mapping[bytes, TopicState] | None = None,
        may_publish: MayPublish = lambda _author, _topic: True,
    ) -> None:
        """`may_publish`: whether the policy lets this author publish on this topic now."""
        self._mesh_id = mesh_id
        self.author_of = author_of
        self._at = at
        self._may_publish = may_publish
        self.states: dict[bytes, TopicState] = dict(states or {})

    def check(self, log_id: bytes, node_id: NodeId, start: int, items: Sequence[bytes]) -> int:
        """See `ChainCheck`. Those wait whose author may not publish now, or is not known yet, or its audit log."""
        known = next((index for index, raw in enumerate(items) if self._author(raw) is None), len(items))
        if known == 0:
            return 0
        _, found = self.extend(log_id, node_id, start, items[:known])
        if log_id not in self.states and not self._is_named_right(found[0]):
            return 0
        if not self._may_publish(node_id, found[0].topic):
            return 0
        at = self._at()
        return next((index for index, one in enumerate(found) if is_ahead(one.hlc, at)), len(found))

    def number_of(self, item: bytes) -> int:
        """See `ChainCheck`."""
        seq = _fields(parse_sign1(item, limit=limits.ENTRY_MAX).payload)[3]
        assert isinstance(seq, int)
        return seq

    def extend(
        self, log_id: bytes, node_id: NodeId, start: int, items: Sequence[bytes]
    ) -> tuple[TopicState, list[Publication]]:
        """The state after these items, and what they say; a start above our end leaves out what nobody has any more.

        Raises:
            Refused: as `verify_publication`; WRONG_AUTHOR, CHAIN_BROKEN; FORKED if only the prev of the first is another or
                its time is not later: that is its author's doing, not that of the peer who has it.
        """
        state = self.states.get(log_id)
        found: list[Publication] = []
        for seq, raw in enumerate(items, start):
            one = verify_publication(raw, mesh_id=self._mesh_id, author_of=self.author_of)
            if one.author.node_id != node_id:
                raise Refused(Reason.WRONG_AUTHOR, "a publication in another node's chain")
            if not found:
                state = _base(state or TopicState.begin(one.author.node_id, one.topic), one, start)
            assert state is not None
            _check_link(state, one, log_id, seq, another=Reason.CHAIN_BROKEN if found else Reason.FORKED)
            state = TopicState(state.node_id, state.topic, seq + 1, one.hash, one.hlc)
            found.append(one)
        if state is None:
            raise Refused(Reason.MALFORMED, "no items")
        return state, found

    def _author(self, raw: bytes) -> Author | None:
        return self.author_of(parse_sign1(raw, limit=limits.ENTRY_MAX).kid or b"")

    def _is_named_right(self, one: Publication) -> bool:
        """The chain's id follows from mesh, author, topic and an audit log of the author."""
        ids = (topic_log_id(self._mesh_id, one.author.node_id, log, one.topic) for log in one.author.logs)
        return one.log_id in ids

    def commit(self, log_id: bytes, state: TopicState) -> None:
        """These are durable now."""
        self.states[log_id] = state


def _base(state: TopicState, one: Publication, start: int) -> TopicState:
    """Where a chain goes on from: our end of it, or what its author says came before `start`."""
    return state if start <= state.size else TopicState(state.node_id, state.topic, start, one.prev, state.hlc)


def _check_link(state: TopicState, one: Publication, log_id: bytes, seq: int, *, another: Reason) -> None:
    """Raises Refused if the publication does not follow; with `another` if it follows something else."""
    if one.log_id != log_id or one.topic != state.topic or one.author.node_id != state.node_id:
        raise Refused(Reason.WRONG_AUTHOR, "a publication of another chain")
    if one.seq != seq or seq != state.size:
        raise Refused(Reason.CHAIN_BROKEN, f"publication {one.seq} where {state.size} was expected")
    if one.prev != state.head:
        raise Refused(another if seq else Reason.CHAIN_BROKEN, f"publication {one.seq} follows another one than ours")
    if one.hlc <= state.hlc:
        raise Refused(another if seq else Reason.CHAIN_BROKEN, f"the time of publication {one.seq} does not rise")
