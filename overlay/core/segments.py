"""Segments: what makes the bytes of a stream provable (docs/protocol/streams.md).

Each signs the whole prefix of one direction of one stream by BLAKE3, so order and completeness are signed, too. Whoever keeps
the bytes, the opening call and one segment can show them to others.
"""

from dataclasses import dataclass, field

from blake3 import blake3

from overlay.core.frames import STREAM_MAX
from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.limits import SEGMENT_BYTES, SEGMENT_MAX
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import Bytes, Flag, UInt, make_map, malformed, open_map, parse_sign1, sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason

Data = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedStream:
    """What all segments of a stream name: the mesh, the link and the stream."""

    mesh_id: bytes  # 32
    first_h: bytes  # 32, h(1) of the link
    stream: int
    opening: bytes  # 32, H(all bytes of the opening call)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A verified segment: its author signed the first `offset` bytes of its direction, which have this BLAKE3."""

    author: NodeId
    index: int
    offset: int
    digest: bytes  # 32
    final: bool
    raw: bytes = field(repr=False)


def sign_segment(
    own: LocalIdentity, to: NodeId, named: SignedStream, *, index: int, offset: int, digest: bytes, final: bool
) -> bytes:
    """A segment's bytes."""
    payload = make_map(own.node_id, to, named.first_h, named.stream, named.opening, index, offset, digest, final)
    return sign1(payload, signer=own.message, aad=Label.SEGMENT + named.mesh_id, kid=own.kid)


def verify_segment(raw: bytes, named: SignedStream, *, own_id: NodeId, peer: VerifiedPeer) -> Segment:
    """Check form, author and place; `offset` and `digest` are for the caller to compare with the bytes.

    Raises:
        Refused: MALFORMED, TOO_LARGE, BAD_SIGNATURE, WRONG_AUTHOR, WRONG_RECIPIENT; WRONG_LINK for another link or stream.
    """
    message = parse_sign1(raw, limit=SEGMENT_MAX)
    if message.kid != peer.kid:
        raise Refused(Reason.WRONG_AUTHOR, "a segment signed under another endorsement than the peer's")
    payload = message.verify(peer.message_public, aad=Label.SEGMENT + named.mesh_id)
    author, to, first_h, stream, opening, index, offset, digest, final = open_map(
        payload, Bytes(32), Bytes(32), Bytes(32), UInt(STREAM_MAX), Bytes(32), UInt(), UInt(), Bytes(32), Flag(),
        limit=SEGMENT_MAX,
    )  # fmt: skip
    if author != peer.node_id:
        raise Refused(Reason.WRONG_AUTHOR, "the author of a segment is not the node at the other end")
    if to != own_id:
        raise Refused(Reason.WRONG_RECIPIENT, "a segment meant for another node")
    if first_h != named.first_h:
        raise Refused(Reason.WRONG_LINK, "a segment made on another link")
    if stream != named.stream or opening != named.opening:
        raise Refused(Reason.WRONG_LINK, "a segment of another stream")
    return Segment(author=NodeId(author), index=index, offset=offset, digest=digest, final=final, raw=raw)


class SegmentWriter:
    """Our direction of a signed stream."""

    __slots__ = ("_hasher", "_index", "_named", "_offset", "_signed")

    def __init__(self, named: SignedStream) -> None:
        self._named = named
        self._hasher = blake3()
        self._index = 0
        self._offset = 0
        self._signed = 0

    @property
    def unsigned(self) -> int:
        """Bytes since the last segment."""
        return self._offset - self._signed

    def add(self, data: Data) -> None:
        """These bytes go out. Give long runs: hashing 64 KiB at a time is slower."""
        self._hasher.update(data)
        self._offset += len(data)

    def sign(self, own: LocalIdentity, to: NodeId, *, final: bool = False) -> bytes:
        """The segment that stands exactly here."""
        raw = sign_segment(
            own, to, self._named, index=self._index, offset=self._offset, digest=self._hasher.digest(), final=final
        )
        self._index += 1
        self._signed = self._offset
        return raw


class SegmentReader:
    """The peer's direction of a signed stream."""

    __slots__ = ("_hasher", "_index", "_named", "_offset", "_signed", "final")

    def __init__(self, named: SignedStream) -> None:
        self._named = named
        self._hasher = blake3()
        self._index = 0
        self._offset = 0
        self._signed = 0
        self.final = False  # the peer has signed its end

    def has_room(self, size: int) -> bool:
        """Whether so many bytes may come before the next segment."""
        return not self.final and self._offset + size - self._signed <= SEGMENT_BYTES

    def add(self, data: Data) -> None:
        """These bytes came.

        Raises:
            Refused: FLOW_CONTROL after the final segment, UNSIGNED for more than a MiB without a segment.
        """
        if self.final:
            raise Refused(Reason.FLOW_CONTROL, "data after the final segment")
        if not self.has_room(len(data)):
            raise Refused(Reason.UNSIGNED, f"more than {SEGMENT_BYTES} bytes without a segment")
        self._hasher.update(data)
        self._offset += len(data)

    def check(self, raw: bytes, *, own_id: NodeId, peer: VerifiedPeer) -> Segment:
        """The segment that stands exactly here.

        Raises:
            Refused: any reason of `verify_segment`; CHAIN_BROKEN where index, offset or hash is not that of what came,
                MALFORMED for a segment that signs nothing new, or comes after the final one.
        """
        found = verify_segment(raw, self._named, own_id=own_id, peer=peer)
        if self.final:
            malformed("a segment after the final one")
        if found.index != self._index or found.offset != self._offset:
            raise Refused(
                Reason.CHAIN_BROKEN, f"segment {found.index} at {found.offset} where {self._index} at {self._offset} is due"
            )
        if found.digest != self._hasher.digest():
            raise Refused(Reason.CHAIN_BROKEN, "a segment over other bytes than those that came")
        if found.offset == self._signed and not found.final:
            malformed("a segment that signs nothing new")
        self._index, self._signed, self.final = self._index + 1, self._offset, found.final
        return found
