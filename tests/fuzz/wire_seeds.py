"""Seeds for `wire_targets.py`: valid records, frames, CBOR, announcements, lines, replication."""

from collections.abc import Iterator, Sequence

from discovery.announcement import Announcement
from overlay.core.frames import Frame, pack
from overlay.core.mesh.found import AnnouncementFacts
from overlay.core.mesh.replication_frames import Head, Items, Want, make_heads, make_items, make_want
from overlay.core.records import Sealer
from overlay.core.wire import encode, make_map, sign1
from overlay.registry import ChainKind, FrameFlag, FrameType
from tests.fuzz.kit import TPM_MEMBER
from tests.fuzz.wire_targets import KEY
from tests.unit.core.session_kit import ALICE, raw_frame


def records() -> Iterator[bytes]:
    sealer = Sealer(KEY)
    yield b"\x42" + sealer.seal(b"one") + sealer.seal(b"two")
    yield b"\x80three"
    yield b"\x02\0\0"
    yield b"\x10\xff\xff" + bytes(40)


def frames() -> Iterator[bytes]:
    ping = Frame(FrameType.PING, body=make_map(1, 2))
    part = Frame(FrameType.CALL, FrameFlag.MORE, 1, b"part")
    yield pack(ping) + pack(Frame(FrameType.DONE))
    yield pack(part) + pack(part) + pack(Frame(FrameType.CALL, stream=1, body=b"end"))
    yield raw_frame(0x90, b"later") + pack(ping)
    yield pack(Frame(FrameType.STREAM_DATA, stream=2, body=b"bulk"))


def cbor() -> Iterator[bytes]:
    yield make_map(b"bytes", 7, "text", True)
    yield make_map([[b"abc", 3, False], [b"", 0, True]], [1, 2**40])
    yield make_map({1: [b"x", {2: "y"}]}, 1, b"ab")
    yield encode([[[[[[[b""]]]]]]])


def cose() -> Iterator[bytes]:
    yield sign1(b"payload", signer=ALICE.message, aad=b"fuzz\0", kid=ALICE.kid)
    yield sign1(b"payload", signer=ALICE.message, aad=b"fuzz\0", kid=None)
    yield sign1(b"payload", signer=TPM_MEMBER.signer, aad=b"fuzz\0", kid=None)


def announcements() -> Iterator[bytes]:
    facts = AnnouncementFacts(port=4711, tag=b"8 bytes!", node_id=ALICE.node_id, gate_keys=(KEY,), known=lambda: ())
    txt = Announcement.of(facts).to_txt()
    yield _txt([f"{key}={value}".encode() for key, value in txt.items()])
    yield _txt([f"{key.upper()}={value}".encode() for key, value in txt.items()] + [b"later", b"x="])


def _txt(strings: Sequence[bytes]) -> bytes:
    """RFC 6763, section 6.1."""
    return b"".join(bytes([len(one)]) + one for one in strings)


def control() -> Iterator[bytes]:
    yield b'{"id":1,"method":"call","params":{"peer":"bob","body":"aGk=","timeout":30.5}}\n'
    yield b'{"id":2,"error":{"class":"Refused","reason":"busy"},"x":[null,true,-1e3,"\\u00e9\\ud83d\\ude00"]}\n'


def replication() -> Iterator[bytes]:
    head = Head(ALICE.node_id, 3, bytes(32))
    for kind in ChainKind:
        yield from make_heads(kind, {bytes(16): head, b"l" * 16: head})
        yield make_want(kind, Want(bytes(16), 1, 5))
        yield make_items(kind, Items(bytes(16), 1, (b"item", b"another"), 1))
