"""Seeds for `message_targets.py`: good messages, batches, audit entries."""

from collections.abc import Iterator

from audit.bodies import endorsement_body, lifecycle
from overlay.core.admission import Challenge, pack_goodbye, pack_verdict
from overlay.core.admission import Proof as AdmissionProof
from overlay.core.batches import sign_batch
from overlay.core.mesh.topics import sign_publication, topic_log_id
from overlay.core.mesh.transients import KIND, topic_prefix
from overlay.core.messages import pack_cancel, pack_failure, sign_call, sign_reply
from overlay.core.segments import sign_segment
from overlay.core.stream_formats import pack_credit, pack_opening, pack_reset
from overlay.core.wire import make_map, parse_sign1
from overlay.registry import EntryType, Reason, ReplyStatus
from tests.fuzz.message_targets import FACTS, FIRST_H, HLC, MESSAGE, STREAM
from tests.unit.attest.software_tpm import (
    Machine,
    a_binding,
)
from tests.unit.audit.audit_kit import some_log
from tests.unit.core.session_kit import ALICE, BOB, LAB, local

AS_IT_IS, SIGNED = b"\0", b"\1"


def _payload(raw: bytes) -> bytes:
    return parse_sign1(raw, limit=8192).payload


def messages() -> Iterator[bytes]:
    own, to = local(ALICE), BOB.node_id
    call = sign_call(
        own, LAB.mesh_id, to=to, call_id=bytes(16), first_h=FIRST_H, method="m", deadline=1, body=pack_opening(b"", signed=True)
    )
    reply = sign_reply(
        own, LAB.mesh_id, to=to, call_hash=bytes(32), index=0, final=True, status=ReplyStatus.OK, body=b"answer"
    )
    segment = sign_segment(own, to, STREAM, index=1, offset=5, digest=bytes(32), final=False)
    publication = sign_publication(
        own, LAB.mesh_id, topic="news", log_id=topic_log_id(LAB.mesh_id, ALICE.node_id, bytes(16), "news"), seq=0,
        prev=bytes(32), hlc=HLC, body=b"stop press",
    )  # fmt: skip
    for kind, raw in enumerate((call, reply, segment, publication)):
        yield bytes([kind << 1]) + raw
        yield bytes([kind << 1 | 1]) + _payload(raw)
    challenge = Challenge(
        nonce=bytes(32), start_id=bytes(16), kinds=(1, 2), trust_number=0, trust_hash=bytes(32), policy_version=1,
        has_link=False,
    )  # fmt: skip
    evidence = Machine().evidence(a_binding(), claims=b"claims")
    for body in (
        challenge.pack(), AdmissionProof.make(FACTS, evidence, ALICE.message), pack_verdict(None), pack_goodbye(Reason.BUSY),
        pack_credit(300_000), pack_reset(ReplyStatus.FAILED, "why"), pack_cancel(bytes(32)),
        pack_failure("KeyError", "no such"), make_map(bytes(32), 300_000),
    ):  # fmt: skip
        yield AS_IT_IS + body


def batches() -> Iterator[bytes]:
    own, weather = local(ALICE), topic_prefix("weather")
    messages = [MESSAGE, MESSAGE, weather + b"rain", MESSAGE, weather]
    one = sign_batch(own, LAB.mesh_id, kind=KIND, hlc=HLC, messages=messages)
    single = sign_batch(own, LAB.mesh_id, kind=KIND, hlc=HLC, messages=[MESSAGE])
    yield b"\0" + one.encode()
    yield b"\0" + one.proof(2)
    yield b"\1" + _payload(single.head.raw)
    yield b"\2" + _payload(single.head.raw)
    yield b"\3" + b"\xff".join(messages)


def audit() -> Iterator[bytes]:
    writer = some_log(mesh=LAB)
    lived, went_on = writer.sign(EntryType.LIFECYCLE, lifecycle("started")), endorsement_body(ALICE.credentials)
    yield b"\3" + _payload(writer.sign(EntryType.ENDORSEMENT, went_on).raw)
    for entry in (*writer.entries[:2], lived, writer.note("next")):
        yield AS_IT_IS + entry.raw
        yield SIGNED + _payload(entry.raw)
