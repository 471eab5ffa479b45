"""A batch of telemetry: records under one signature, chained to the batch before (docs/protocol/telemetry.md).

    head   {0:1, 1:author, 2:name, 3:stream16, 4:seq, 5:prev32, 6:at, 7:count, 8:dropped, 9:root32}
           COSE_Sign1, AAD Label.TELEMETRY || mesh_id, kid = H(endorsement)
    batch  {0:1, 1:head, 2:[records]}

`prev` is SHA-256 of the head before, zeros at the start; `root` that of the tree over the records (RFC 9162, section 2.1);
`dropped` counts what the sender had to drop since the stream began, so that this shows, too. `at`: Unix milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from overlay.core.batches import leaves_of
from overlay.core.identity import LocalIdentity
from overlay.core.keys import MeshId, NodeId
from overlay.core.merkle import root_of
from overlay.core.telemetry.records import RECORD_MAX
from overlay.core.wire import Array, Bytes, Text, UInt, UnverifiedSign1, make_map, open_map, parse_sign1, sha256, sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason

RECORDS_MAX: Final = 4096  # protocol
STREAM_ID_SIZE: Final = 16
STREAM_NAME_MAX: Final = 64  # bytes, our guess
HEAD_MAX: Final = 512  # our guess, nearly twice what it needs
BATCH_MAX: Final = 512 * 1024  # our guess: 4,096 records of 128 bytes; half of what a call may hold
RECORD_OVERHEAD: Final = 3  # bytes of CBOR before a record, at most
SEQ_MAX: Final = 2**48
TIME_MAX: Final = 2**45  # Unix milliseconds: the year 3084

_HEAD: Final = (
    Bytes(32), Text(STREAM_NAME_MAX), Bytes(STREAM_ID_SIZE), UInt(SEQ_MAX), Bytes(32), UInt(TIME_MAX), UInt(RECORDS_MAX),
    UInt(), Bytes(32),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What was signed, as its author says it."""

    author: NodeId
    name: str
    stream: bytes  # 16, drawn at each start of a sender
    seq: int
    prev: bytes  # 32
    at: int  # Unix milliseconds
    count: int
    dropped: int
    root: bytes  # 32

    def pack(self) -> bytes:
        """Its payload."""
        return make_map(
            self.author, self.name, self.stream, self.seq, self.prev, self.at, self.count, self.dropped, self.root
        )

    @classmethod
    def unpack(cls, payload: bytes) -> "Head":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        author, name, stream, seq, prev, at, count, dropped, root = open_map(payload, *_HEAD, limit=HEAD_MAX)
        return cls(
            author=NodeId(author), name=name, stream=stream, seq=seq, prev=prev, at=at, count=count, dropped=dropped, root=root
        )


@dataclass(frozen=True, slots=True)
class VerifiedHead:
    """A head whose signature was checked. The records beside it were not."""

    says: Head
    hash: bytes  # 32: names it, and is the `prev` of the next
    records: Sequence[bytes] = field(repr=False)

    def verify_records(self) -> Sequence[bytes]:
        """The records, once they are the ones that were signed: all, in this order. Raises Refused(TELEMETRY_ROOT)."""
        if self.says.count != len(self.records):
            raise Refused(Reason.TELEMETRY_ROOT, f"{len(self.records)} records, and its head says {self.says.count}")
        if self.says.root != root_of(leaves_of(self.records)):
            raise Refused(Reason.TELEMETRY_ROOT, "not the records that were signed")
        return self.records


@dataclass(frozen=True, slots=True)
class UnverifiedBatch:
    """A batch of the right form that nobody has checked yet: it must not be believed."""

    signed: UnverifiedSign1
    records: Sequence[bytes] = field(repr=False)

    @property
    def kid(self) -> bytes:
        """H of the endorsement that it says it is under."""
        return self.signed.kid or b""

    def verify(self, author: NodeId, public_key: bytes, mesh_id: MeshId) -> VerifiedHead:
        """Check signature and author. Raises Refused: BAD_SIGNATURE, WRONG_AUTHOR, or MALFORMED for another form."""
        says = Head.unpack(self.signed.verify(public_key, aad=Label.TELEMETRY + mesh_id))
        if says.author != author:
            raise Refused(Reason.WRONG_AUTHOR, "the author is not the endorsed node")
        return VerifiedHead(says, sha256(self.signed.raw), self.records)


def sign_batch(head: Head, records: Sequence[bytes], *, own: LocalIdentity, mesh_id: MeshId) -> tuple[bytes, bytes]:
    """(batch, hash of its head): `head` signed, and the records beside it."""
    raw = sign1(head.pack(), signer=own.message, aad=Label.TELEMETRY + mesh_id, kid=own.kid)
    return make_map(raw, list(records)), sha256(raw)


def parse_batch(raw: bytes) -> UnverifiedBatch:
    """Read a batch. Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
    head, records = open_map(raw, Bytes(1, HEAD_MAX), Array(Bytes(1, RECORD_MAX), RECORDS_MAX), limit=BATCH_MAX)
    return UnverifiedBatch(parse_sign1(head, limit=HEAD_MAX), records)
