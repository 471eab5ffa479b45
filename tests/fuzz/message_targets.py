"""Targets: what members sign. Calls, replies, segments, publications, batches, proofs, audit entries."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Final

from audit.bodies import describe
from audit.chain import ChainState, extend
from audit.entry import parse_entry
from overlay.core.admission import Challenge, Proof, ProofFacts, unpack_goodbye, unpack_verdict
from overlay.core.batches import parse_batch, sign_batch
from overlay.core.mesh.chains import hlc_of
from overlay.core.mesh.topics import Author, verify_publication
from overlay.core.mesh.transients import KIND, topic_prefix, verify_transient, verify_transients
from overlay.core.messages import unpack_cancel, unpack_failure, verify_call, verify_reply
from overlay.core.messages import unpack_credit as unpack_reply_credit
from overlay.core.segments import SignedStream, verify_segment
from overlay.core.stream_formats import unpack_credit, unpack_opening, unpack_reset
from overlay.core.wire import make_map, sha256, sign1
from overlay.errors import Refused
from overlay.registry import Label, Role
from tests.fuzz.kit import cut
from tests.unit.audit.audit_kit import some_log, start_of
from tests.unit.core.session_kit import ALICE, BOB, LAB, local

FIRST_H: Final = sha256(b"h(1)")
STREAM: Final = SignedStream(mesh_id=LAB.mesh_id, first_h=FIRST_H, stream=2, opening=sha256(b"opening"))


def message(data: bytes) -> None:
    """Calls, replies, segments, publications: as they stand, and as payloads that the peer has signed."""
    first, rest = cut(data)
    label, verify = MESSAGES[(first >> 1) % len(MESSAGES)]
    raw = sign1(rest, signer=ALICE.message, aad=label + LAB.mesh_id, kid=ALICE.kid) if first & 1 else rest
    with suppress(Refused):
        verify(raw)
    for unpack in UNPACK:
        with suppress(Refused):
            unpack(rest)
    with suppress(Refused):
        Proof.verify(rest, FACTS, ALICE.message.public_key)


UNPACK: Final[Sequence[Callable[[bytes], object]]] = (
    unpack_opening, unpack_credit, unpack_reset, unpack_cancel, unpack_reply_credit, unpack_failure, Challenge.unpack,
    unpack_verdict, unpack_goodbye,
)  # fmt: skip
FACTS: Final = ProofFacts(
    mesh_id=LAB.mesh_id, h=FIRST_H, role=Role.OPENER, own_leaf=bytes(32), own_endorsement=ALICE.kid, peer_leaf=bytes(32),
    peer_endorsement=BOB.kid, nonce=bytes(32),
)  # fmt: skip
AUTHOR: Final = Author(
    node_id=ALICE.node_id, name="alice", message_public=ALICE.message.public_key,
    not_before=ALICE.peer.endorsement.not_before, not_after=ALICE.peer.endorsement.not_after, logs=(bytes(16),),
)  # fmt: skip


def _author_of(kid: bytes) -> Author | None:
    return AUTHOR if kid == ALICE.kid else None


MESSAGES: Final[Sequence[tuple[bytes, Callable[[bytes], object]]]] = (
    (Label.CALL, lambda raw: verify_call(raw, own_id=BOB.node_id, mesh_id=LAB.mesh_id, first_h=FIRST_H, peer=ALICE.peer)),
    (Label.REPLY, lambda raw: verify_reply(raw, own_id=BOB.node_id, mesh_id=LAB.mesh_id, peer=ALICE.peer)),
    (Label.SEGMENT, lambda raw: verify_segment(raw, STREAM, own_id=BOB.node_id, peer=ALICE.peer)),
    (Label.PUBLISH, lambda raw: verify_publication(raw, mesh_id=LAB.mesh_id, author_of=_author_of)),
)


def batch(data: bytes) -> None:
    """A batch, or a message of one alone: as it stands; with any head that its author signed; with any messages."""
    first, rest = cut(data)
    kind = first % 4
    head = sign1(rest, signer=ALICE.message, aad=Label.BATCH + LAB.mesh_id, kid=ALICE.kid)
    with suppress(Refused):
        _read_batch((rest, rest, make_map(head, [MESSAGE]), b"")[kind] or _batch_of(rest))
    with suppress(Refused):
        verify_transient((rest, make_map(head, 0, [], MESSAGE))[kind & 1], mesh_id=LAB.mesh_id, author_of=_author_of)


def _read_batch(raw: bytes) -> None:
    found = verify_transients(parse_batch(raw), mesh_id=LAB.mesh_id, author=AUTHOR)
    for topic, numbers in found.topics.items():
        assert [number for number, _, _ in found.on(topic)] == numbers
    for index, _ in enumerate(found.batch.messages):
        verify_transient(found.batch.proof(index), mesh_id=LAB.mesh_id, author_of=_author_of)


def _batch_of(data: bytes) -> bytes:
    """These bytes, cut at 0xFF, as messages that were signed together."""
    return sign_batch(local(ALICE), LAB.mesh_id, kind=KIND, hlc=HLC, messages=data.split(b"\xff")[:64]).encode()


MESSAGE: Final = topic_prefix("news") + b"stop press"
HLC: Final = hlc_of(LAB.at)


def audit(data: bytes) -> None:
    """An audit entry as it stands, and as any payload signed by its author: alone, as the first and as the next of a log."""
    first, rest = cut(data)
    raw = sign1(rest, signer=ALICE.message, aad=Label.AUDIT + LAB.mesh_id, kid=ALICE.kid) if first & 1 else rest
    with suppress(Refused):
        says = parse_entry(raw).says
        assert says.type_name and describe(says.type, says.body)
    for state in _states():
        with suppress(Refused):
            extend(state, [raw], LAB.root, at=LAB.at if first & 2 else None)


@cache
def _states() -> tuple[ChainState, ChainState]:
    """Before the first entry of a log, and after three."""
    writer = some_log(mesh=LAB)
    start = start_of(writer)
    return start, extend(start, writer.raws, LAB.root, at=None).state
