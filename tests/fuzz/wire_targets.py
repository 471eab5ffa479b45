"""Targets: records, frames, CBOR, COSE, and what is heard on the LAN, over the control socket and in replication."""

from contextlib import suppress
from typing import Final

import zeroconf

from discovery.announcement import Announcement
from overlay.app import wire_json
from overlay.core.frames import Frame, Reassembler, pack, parse_frames, stream_data
from overlay.core.mesh.replication_frames import open_heads, open_items, open_want
from overlay.core.records import Opener, RecordReader, Sealer
from overlay.core.wire import Anything, Array, Bytes, Flag, Maybe, Text, Tuple, UInt, decode, encode, open_map, parse_sign1
from overlay.errors import Refused
from overlay.registry import COSE_EDDSA, ChainKind
from tests.fuzz.kit import TPM_MEMBER, cut
from tests.unit.core.session_kit import ALICE, BOB

KEY: Final = bytes(range(32))
SCHEMAS: Final = (
    (Bytes(1, 64), UInt(), Maybe(Text(8)), Maybe(Flag())),
    (Array(Tuple((Bytes(0, 4), UInt(9), Flag())), 3), Maybe(Array(UInt(), 4))),
    (Anything(), Maybe(Anything()), Maybe(Bytes(2))),
)


def record(data: bytes) -> None:
    """A stream of bytes cut into records, in pieces of any size; what is sealed by the right key comes back."""
    first, rest = cut(data)
    step = 1 + first % 67
    if first & 0x80 and rest:
        sealed = Sealer(KEY).seal(rest)
        assert Opener(KEY).open(sealed[2:]) == rest
        rest = sealed + rest
    reader, opener = RecordReader(), Opener(KEY)
    with suppress(Refused):
        for start in range(0, len(rest), step):
            reader.feed(bytearray(rest[start : start + step]))
            while (body := reader.next_record()) is not None:
                opener.open_in_place(body)


def frame(data: bytes) -> None:
    """The plaintext of a record; what was read is written to the same bytes, but for what was skipped."""
    with suppress(Refused):
        stream_data(memoryview(data))
        frames = parse_frames(data)
        again = b"".join(map(pack, frames))
        assert parse_frames(again) == frames if again else not frames
        _join(frames)


def _join(frames: list[Frame]) -> None:
    parts = Reassembler(lambda _: 1000)
    for one in frames:
        whole = parts.add(one)
        assert whole is None or len(whole.body) <= 1000


def cbor(data: bytes) -> None:
    """One value has one encoding."""
    with suppress(Refused):
        assert encode(decode(data, limit=4096)) == data
    for schema in SCHEMAS:
        with suppress(Refused):
            open_map(data, *schema, limit=4096)


def cose(data: bytes) -> None:
    """With and without kid; nobody can have signed it."""
    for with_kid in (True, False):
        with suppress(Refused):
            message = parse_sign1(data, limit=4096, with_kid=with_kid)
            key = ALICE.message.public_key if message.algorithm == COSE_EDDSA else TPM_MEMBER.signer.public_key
            message.verify(key, aad=b"fuzz\0")


def announcement(data: bytes) -> None:
    """A TXT record on the wire, as zeroconf reads it."""
    info = zeroconf.ServiceInfo("_overlay._tcp.local.", "x._overlay._tcp.local.", properties=data)
    with suppress(Refused):
        said = Announcement.from_txt(info.properties)
        assert Announcement.from_txt({key.encode(): value.encode() for key, value in said.to_txt().items()}) == said
        said.recognise([KEY, bytes(32)], [ALICE.node_id, BOB.node_id])


def control(data: bytes) -> None:
    """A line of the control socket."""
    with suppress(Refused):
        wire_json.unpack(data)


def replication(data: bytes) -> None:
    """HEADS, WANT and ITEMS of both kinds of chain."""
    for kind in ChainKind:
        for read in (open_heads, open_want, open_items):
            with suppress(Refused):
                read(kind, data)
