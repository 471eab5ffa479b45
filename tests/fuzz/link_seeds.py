"""Seeds for `link_targets.py`: talks as lists of steps."""

from collections.abc import Iterator

from overlay.core.admission import pack_goodbye, pack_verdict
from overlay.core.frames import Frame, pack
from overlay.core.mesh.replication_frames import Head, make_heads
from overlay.core.messages import sign_call
from overlay.core.rounds import pack_evidence
from overlay.core.stream_formats import pack_credit, pack_reset
from overlay.core.wire import make_map, sha256, u64
from overlay.registry import ChainKind, FrameType, Reason, ReplyStatus
from tests.fuzz.kit import open_pair
from tests.unit.attest.software_tpm import (
    a_binding,
)
from tests.unit.core.session_kit import ALICE, BOB, LAB, evidence_for, local, raw_frame

RECORD, FRAME, CALL, OPEN_STREAM, SEGMENT, DATA, TIME, HONEST, OURS, WIRE = range(10)


def _steps(*steps: tuple[int, bytes]) -> bytes:
    return b"".join(bytes([what]) + len(said).to_bytes(2, "big") + said for what, said in steps)


def _frame(kind: FrameType, body: bytes = b"", *, flags: int = 0, stream: int = 0) -> tuple[int, bytes]:
    return FRAME, bytes([kind, flags, stream]) + body


def admission() -> Iterator[bytes]:
    honest, ping = (HONEST, b""), _frame(FrameType.PING, make_map(1, 1))
    yield _steps(honest, honest, ping, (OURS, b"\1\1"), honest)
    yield _steps(ping)
    yield _steps(_frame(FrameType.VERDICT, pack_verdict(None)), honest)
    yield _steps(_frame(FrameType.VERDICT, pack_verdict(Reason.PCR_MISMATCH)))
    yield _steps(_frame(FrameType.PROOF, make_map(bytes(64), b"claims", evidence_for(a_binding()).pack())))
    yield _steps((TIME, b"\1\x2c"), _frame(FrameType.GOODBYE, pack_goodbye(Reason.BUSY)))
    yield _steps((RECORD, pack(Frame(FrameType.CALL, stream=1))), (WIRE, bytes(30)))


def link() -> Iterator[bytes]:
    honest, minute = (HONEST, b""), (TIME, b"\2\x58")
    ping = _frame(FrameType.PING, make_map(1, 1))
    yield _steps(ping, (CALL, b"\1hello"), (CALL, b"\x81answer"), _frame(FrameType.GOODBYE, pack_goodbye(Reason.SHUTDOWN)))
    end = _frame(FrameType.STREAM_END, stream=1)
    yield _steps((OPEN_STREAM, b"\x41"), (DATA, b"\1\4\1"), (SEGMENT, b"\1\0\0\x08\0\0"), end)
    yield _steps((OPEN_STREAM, b"\1body"), (DATA, b"\1\xff\7"), (DATA, b"\1\0"), _frame(FrameType.STREAM_DATA, b"", stream=1))
    yield _steps((OURS, b"\5\1body"), _frame(FrameType.STREAM_CREDIT, pack_credit(300_000), stream=2), (OURS, b"\7\2ending"))
    yield _steps(_frame(FrameType.STREAM_RESET, pack_reset(ReplyStatus.BUSY, "later"), stream=2), (OPEN_STREAM, b"\x80body"))
    yield _steps(minute, honest, ping, minute, honest)
    yield _steps((OURS, b"\3"), honest, ping, (OURS, b"\0"), honest, (CALL, b"\3hello"))
    nonce, evidence = make_map(2, bytes(32)), pack_evidence(9, evidence_for(a_binding()))
    yield _steps((OURS, b"\1\1"), _frame(FrameType.ROUND_NONCE, nonce), _frame(FrameType.ATTEST_OPEN, make_map(3)))
    yield _steps(_frame(FrameType.ATTEST_OPEN, make_map(9)), _frame(FrameType.EVIDENCE, evidence))
    yield _steps(_frame(FrameType.OFFER, u64(2) + bytes(1184)), honest, _frame(FrameType.RESP, u64(2) + bytes(48)))
    own = ALICE.credentials
    yield _steps(_frame(FrameType.CREDENTIALS, make_map(own.endorsement, own.leaf, [])), ping)
    yield _steps(_frame(FrameType.HEADS, next(make_heads(ChainKind.TOPIC, {bytes(16): Head(ALICE.node_id, 3, bytes(32))}))))
    yield _steps(_frame(FrameType.CALL, b"part", flags=1, stream=1), _frame(FrameType.CALL, b"end", stream=1))
    yield _steps((OURS, b"\2"), _frame(FrameType.PONG, make_map(1, 1)), _frame(FrameType.CANCEL, stream=1))
    yield _steps(_frame(FrameType.JOIN, b"part", flags=1, stream=3), (RECORD, raw_frame(0x90, b"later")), (WIRE, b"\0\1x"))
    waiting = sha256(_call(b"waits"))
    yield _steps((CALL, b"\1waits"), _frame(FrameType.CANCEL, make_map(waiting), stream=1), (CALL, b"\3pieces"))
    yield _steps((OURS, b"\4\0ask"), (CALL, b"\x82part"), (CALL, b"\x84end"), (OURS, b"\4\0cancelled"), (CALL, b"\x80late"))


def _call(body: bytes) -> bytes:
    """The call that the step makes."""
    return sign_call(
        local(ALICE), LAB.mesh_id, to=BOB.node_id, call_id=sha256(body)[:16], first_h=open_pair().bob.session.first_h,
        method="fuzz", deadline=0, body=body,
    )  # fmt: skip


def cuts() -> Iterator[bytes]:
    signed, data = (OPEN_STREAM, b"\x41"), (DATA, b"\1\4\3")
    empty, end = _frame(FrameType.STREAM_DATA, stream=1), _frame(FrameType.STREAM_END, stream=1)
    yield b"\x08" + _steps((OPEN_STREAM, b"\1"), data, data, end)
    yield b"\x40" + _steps((OPEN_STREAM, b"\1"), (DATA, b"\1\xe0\4"), data)
    yield b"\x10" + _steps(signed, data, (SEGMENT, b"\1\0\0\x10\0\0"), empty)
    yield b"\1" + _steps((CALL, b"\1hello"), (OPEN_STREAM, b"\1"), (OPEN_STREAM, b"\3"), data, (DATA, b"\3\1\1"), data)
