"""One signature over many messages, each of which stays provable alone: SignedBatch (docs/protocol/topics.md).

    head  {0:1, 1:author, 2:kind, 3:hlc, 4:count, 5:root}     COSE_Sign1, AAD Label.BATCH || mesh_id, kid = H(endorsement)
    batch {0:1, 1:head, 2:[messages]}
    proof {0:1, 1:head, 2:index, 3:[path], 4:message}

`kind` is a label of the registry and says what the messages are; a leaf is H(0x00 || message), the tree that of RFC 9162.
Message number i was said at hlc + i. Whoever gets the whole batch computes the root from it, so no paths are sent.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.limits import BATCH_COUNT_MAX, BATCH_HEAD_MAX, BATCH_KIND_MAX, BATCH_MAX, BATCH_MESSAGES_MAX
from overlay.core.merkle import check_inclusion, levels_of, path_through, root_of
from overlay.core.wire import Array, Bytes, UInt, UnverifiedSign1, make_map, malformed, open_map, parse_sign1, sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason

HLC_MAX: Final = 2**63 - 1 - BATCH_COUNT_MAX  # so that every message has a time


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchHead:
    """What was signed, as its author says it."""

    author: NodeId
    kind: bytes
    hlc: int
    count: int
    root: bytes  # 32
    raw: bytes = field(repr=False)  # the COSE_Sign1


@dataclass(frozen=True, kw_only=True)
class SignedBatch:
    """A head whose signature has been checked or made here, with all the messages that it covers."""

    head: BatchHead
    messages: Sequence[bytes] = field(repr=False)

    def encode(self) -> bytes:
        """What travels."""
        return make_map(self.head.raw, list(self.messages))

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return len(self.head.raw) + sum(map(size_of, self.messages))

    def proof(self, index: int) -> bytes:
        """What shows one message to others, without the rest. Raises IndexError for a message that is not there."""
        message = self.messages[index]
        return make_map(self.head.raw, index, list(path_through(self._levels, index)), message)

    @cached_property
    def _levels(self) -> list[list[bytes]]:
        return levels_of(leaves_of(self.messages))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenMessage:
    """One message of a batch, proven without the others."""

    head: BatchHead
    index: int
    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UnverifiedBatch:
    """A batch of the right form that nobody has checked yet: it must not be believed."""

    signed: UnverifiedSign1
    messages: list[bytes] = field(repr=False)

    @property
    def kid(self) -> bytes:
        """H of the endorsement that it says it is under."""
        return self.signed.kid or b""

    def verify(self, public_key: bytes, *, mesh_id: bytes, kind: bytes) -> SignedBatch:
        """Check that these messages, all and in this order, were signed.

        Raises:
            Refused: BAD_SIGNATURE, MALFORMED for a head of another form or kind, CHAIN_BROKEN for other messages.
        """
        head = _verify_head(self.signed, public_key, mesh_id, kind)
        if head.count != len(self.messages) or head.root != root_of(leaves_of(self.messages)):
            raise Refused(Reason.CHAIN_BROKEN, "not the messages that were signed")
        return SignedBatch(head=head, messages=self.messages)


@dataclass(frozen=True, slots=True)
class UnverifiedProof:
    """A message with a proof of the right form that nobody has checked yet: it must not be believed."""

    signed: UnverifiedSign1
    index: int
    path: list[bytes] = field(repr=False)
    message: bytes = field(repr=False)

    @property
    def kid(self) -> bytes:
        """H of the endorsement that it says it is under."""
        return self.signed.kid or b""

    def verify(self, public_key: bytes, *, mesh_id: bytes, kind: bytes) -> ProvenMessage:
        """Check that this message was signed at this place.

        Raises:
            Refused: BAD_SIGNATURE, MALFORMED for a head of another form or kind, CHAIN_BROKEN for another message or place.
        """
        head = _verify_head(self.signed, public_key, mesh_id, kind)
        (leaf,) = leaves_of([self.message])
        check_inclusion(leaf, self.index, head.count, self.path, head.root)
        return ProvenMessage(head=head, index=self.index, message=self.message)


def size_of(message: bytes) -> int:
    """What a message adds to a batch, at most; the sum is bounded by BATCH_MESSAGES_MAX."""
    return len(message) + 5


def sign_batch(own: LocalIdentity, mesh_id: bytes, *, kind: bytes, hlc: int, messages: Sequence[bytes]) -> SignedBatch:
    """Sign messages of one kind together; the first was said at `hlc`. Raises ValueError for too few, or for too much."""
    if not 0 < len(messages) <= BATCH_COUNT_MAX or sum(map(size_of, messages)) > BATCH_MESSAGES_MAX:
        raise ValueError("that does not fit into one batch")
    root = root_of(leaves_of(messages))
    payload = make_map(own.node_id, kind, hlc, len(messages), root)
    raw = sign1(payload, signer=own.message, aad=Label.BATCH + mesh_id, kid=own.kid)
    head = BatchHead(author=own.node_id, kind=kind, hlc=hlc, count=len(messages), root=root, raw=raw)
    return SignedBatch(head=head, messages=messages)


def parse_batch(raw: bytes) -> UnverifiedBatch:
    """Read a batch. Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
    head, messages = open_map(
        raw, Bytes(1, BATCH_HEAD_MAX), Array(Bytes(0, BATCH_MESSAGES_MAX), BATCH_COUNT_MAX), limit=BATCH_MAX
    )
    return UnverifiedBatch(parse_sign1(head, limit=BATCH_HEAD_MAX), messages)


def parse_proof(raw: bytes) -> UnverifiedProof:
    """Read a message that stands alone. Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
    head, index, path, message = open_map(
        raw, Bytes(1, BATCH_HEAD_MAX), UInt(BATCH_COUNT_MAX), Array(Bytes(32), BATCH_COUNT_MAX.bit_length()),
        Bytes(0, BATCH_MESSAGES_MAX), limit=BATCH_MAX,
    )
    return UnverifiedProof(parse_sign1(head, limit=BATCH_HEAD_MAX), index, path, message)


def leaves_of(messages: Sequence[bytes]) -> list[bytes]:
    """The leaf hashes of messages (RFC 9162, section 2.1.1)."""
    digest = hashlib.sha256
    return [digest(b"\0" + message).digest() for message in messages]


def _verify_head(signed: UnverifiedSign1, public_key: bytes, mesh_id: bytes, kind: bytes) -> BatchHead:
    payload = signed.verify(public_key, aad=Label.BATCH + mesh_id)
    author, said, hlc, count, root = open_map(
        payload, Bytes(32), Bytes(1, BATCH_KIND_MAX), UInt(HLC_MAX), UInt(BATCH_COUNT_MAX), Bytes(32), limit=BATCH_HEAD_MAX
    )
    if said != kind:
        malformed("a batch of another kind")
    return BatchHead(author=NodeId(author), kind=said, hlc=hlc, count=count, root=root, raw=signed.raw)
