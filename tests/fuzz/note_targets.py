"""Targets: signed notes, checkpoints, and what authors and witnesses say to each other."""

from contextlib import suppress
from typing import Final

from audit.checkpoint import Checkpoint, parse_checkpoint
from audit.notes import COSIGNATURE, ED25519, NoteKey, parse_note, sign_note
from audit.witness import Misbehaved, Witness, WitnessKey
from audit.witness_book import WitnessBook
from audit.witness_frames import Request, Told
from overlay.core.wire import sha256
from overlay.errors import Refused
from tests.fuzz.kit import cut
from tests.unit.core.authority_kit import DAY, make_member
from tests.unit.core.session_kit import ALICE, LAB

WITNESS: Final = make_member(LAB, "bob", witness=True)
PROOF_SIZE: Final = 32


def checkpoint(size: int) -> Checkpoint:
    """One of Alice's."""
    return Checkpoint(
        mesh_id=LAB.mesh_id, node_id=ALICE.node_id, log_id=bytes(16), size=size, root=sha256(b"root", bytes([size]))
    )


def note(data: bytes) -> None:
    """A note as it stands, and any text that a known key has signed."""
    first, rest = cut(data)
    if first & 1:
        text = rest.decode(errors="replace").replace("\r", "") + "\n"
        raw = (text + "\n" + sign_note(text, "alice", ALICE.message).line).encode()
    else:
        raw = rest
    with suppress(Refused):
        found = parse_note(raw)
        assert found.raw == raw
        for kind in (ED25519, COSIGNATURE):
            with suppress(Refused):
                found.verify(NoteKey("alice", kind, ALICE.message.public_key))
    with suppress(Refused):
        one = parse_checkpoint(raw)
        assert one.says.text == one.note.text
        with suppress(Refused):
            one.verify(ALICE.message.public_key)
    with suppress(Refused):
        key = NoteKey.parse(rest.decode(errors="replace"))
        assert key.text == rest.decode(errors="replace")


def witness(data: bytes) -> None:
    """CHECKPOINT and COSIGNATURE as they stand; and checkpoints that their author has signed, with any proof."""
    first, rest = cut(data)
    machine = Witness(LAB.mesh_id, WITNESS.node_id)
    assert WITNESS.witness is not None
    machine.use(WitnessKey(WITNESS.witness, LAB.at, LAB.at + DAY))
    machine.receive(ALICE.peer, Request(checkpoint(1).sign(ALICE.message).raw).pack(), LAB.at)
    if first & 1:
        proof = tuple(rest[at : at + PROOF_SIZE] for at in range(0, len(rest) - PROOF_SIZE + 1, PROOF_SIZE))
        rest = Request(checkpoint(first >> 1 or 1).sign(ALICE.message).raw, first >> 4, proof).pack()
    for event in machine.receive(ALICE.peer, rest, LAB.at):
        if not isinstance(event, Misbehaved):
            assert machine.messages_to_send() is not None
    book = WitnessBook()
    book.peer_opened(ALICE.node_id)
    with suppress(Refused):
        book.heard(ALICE.node_id, Told.unpack(rest).sizes)
