"""Transient publications: for those who listen now, stored by nobody, many under one signature (docs/protocol/topics.md).

    message = LV(topic) || body     of a SignedBatch of the kind Label.TRANSIENT

Such a message can be read in one way only, so nothing has to be canonical about it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from overlay.core.batches import BatchHead, SignedBatch, UnverifiedBatch, parse_proof
from overlay.core.limits import PUBLICATION_MAX
from overlay.core.mesh.chains import HLC_SHIFT, hlc_time
from overlay.core.mesh.topics import Author, AuthorOf, check_topic, is_topic
from overlay.core.wire import lv, malformed
from overlay.errors import Refused, UsageError
from overlay.registry import Label, Reason

KIND: Final = Label.TRANSIENT
LENGTH: Final = 2  # bytes of the length before the topic


@dataclass(frozen=True, slots=True, kw_only=True)
class Transient:
    """One transient publication that was proven alone."""

    author: Author
    topic: str
    at: datetime
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transients:
    """The verified messages of one batch; `topics` has the numbers of those on each topic, rising."""

    batch: SignedBatch
    topics: dict[str, list[int]]

    def on(self, topic: str) -> Iterator[tuple[int, datetime, bytes]]:
        """Number, author's time and body of each message on a topic."""
        skip, messages, hlc = LENGTH + len(topic.encode()), self.batch.messages, self.batch.head.hlc
        at, turns = hlc_time(hlc), (hlc >> HLC_SHIFT) + 1 << HLC_SHIFT  # all of a batch have the same millisecond, or two
        for index in self.topics.get(topic, ()):
            yield index, at if hlc + index < turns else hlc_time(hlc + index), messages[index][skip:]


def topic_prefix(topic: str) -> bytes:
    """What stands before the body in every message on a topic. Raises UsageError for a name that no topic can have."""
    check_topic(topic)
    return lv(topic.encode())


def make_transient(prefix: bytes, body: bytes) -> bytes:
    """A message. Raises UsageError for a body that is too long."""
    if len(body) > PUBLICATION_MAX:
        raise UsageError(f"a publication has at most {PUBLICATION_MAX} bytes", hint="send large data with calls")
    return prefix + body


def verify_transients(batch: UnverifiedBatch, *, mesh_id: bytes, author: Author) -> Transients:
    """Check a batch of its author: signature, tree, time, and every message in it.

    Raises:
        Refused: as `UnverifiedBatch.verify`; WRONG_AUTHOR, NOT_IN_FORCE; MALFORMED for a message that is none.
    """
    found = batch.verify(author.message_public, mesh_id=mesh_id, kind=KIND)
    _check_head(found.head, author)
    return Transients(batch=found, topics=sorted_by_topic(found.messages))


def verify_transient(raw: bytes, *, mesh_id: bytes, author_of: AuthorOf) -> Transient:
    """Check one publication that somebody shows with its proof.

    Raises:
        Refused: as `verify_transients`; WRONG_AUTHOR also for an endorsement that we have not seen.
    """
    proof = parse_proof(raw)
    author = author_of(proof.kid)
    if author is None:
        raise Refused(Reason.WRONG_AUTHOR, "signed under an endorsement that we have not seen")
    found = proof.verify(author.message_public, mesh_id=mesh_id, kind=KIND)
    _check_head(found.head, author)
    (topic,) = sorted_by_topic([found.message])
    body = found.message[_prefix_length(found.message) :]
    return Transient(author=author, topic=topic, at=hlc_time(found.head.hlc + found.index), body=body)


def sorted_by_topic(messages: Iterable[bytes]) -> dict[str, list[int]]:
    """The numbers of the messages on each topic. Raises Refused(MALFORMED) for one that is no message."""
    found: dict[bytes, list[int]] = {}
    prefix, numbers = b"", None
    for index, message in enumerate(messages):
        if numbers is None or not message.startswith(prefix):
            prefix = message[: _prefix_length(message)]
            numbers = found.setdefault(prefix, [])
        numbers.append(index)
    return {_topic_of(prefix): numbers for prefix, numbers in found.items()}


def _prefix_length(message: bytes) -> int:
    return LENGTH + int.from_bytes(message[:LENGTH], "big")


def _topic_of(prefix: bytes) -> str:
    """The topic that LV(topic) names."""
    try:
        topic = prefix[LENGTH:].decode()
    except UnicodeDecodeError:
        malformed("the name of a topic")
    if len(prefix) != _prefix_length(prefix) or not is_topic(topic):
        malformed("the name of a topic")
    return topic


def _check_head(head: BatchHead, author: Author) -> None:
    """Who says it, and that the endorsement was in force from the first message to the last."""
    if head.author != author.node_id:
        raise Refused(Reason.WRONG_AUTHOR, "the author is not the endorsed node")
    first, last = hlc_time(head.hlc), hlc_time(head.hlc + head.count - 1)
    if not (author.not_before <= first and last <= author.not_after):
        raise Refused(Reason.NOT_IN_FORCE, "published outside the life of its endorsement")
