"""Seeds for `note_targets.py`: good notes, checkpoints and messages."""

from collections.abc import Iterator

from audit.notes import ED25519, NoteKey
from audit.witness_frames import Request, Say, Told
from tests.fuzz.note_targets import WITNESS, checkpoint
from tests.unit.core.session_kit import ALICE, LAB


def notes() -> Iterator[bytes]:
    """As they stand (0) and as texts to be signed (1)."""
    one = checkpoint(3)
    assert WITNESS.witness is not None
    cosigned = one.sign(ALICE.message).with_signatures(one.cosign(WITNESS.node_id, WITNESS.witness, int(LAB.at.timestamp())))
    yield b"\0" + one.sign(ALICE.message).raw
    yield b"\0" + cosigned.raw
    yield b"\1" + one.text.encode()
    yield b"\1a text\n\nwith an empty line"
    yield b"\0" + NoteKey("alice", ED25519, ALICE.message.public_key).text.encode()


def witness() -> Iterator[bytes]:
    """Messages (0) and proofs (1)."""
    one = checkpoint(2).sign(ALICE.message).raw
    yield b"\0" + Request(one).pack()
    yield b"\0" + Request(one, 1, (bytes(32),)).pack()
    yield b"\0" + Request(None).pack()
    yield b"\0" + Told(Say.COSIGNED, (one,)).pack()
    yield b"\0" + Told(Say.NEWS, (one, one), {bytes(16): 9}).pack()
    yield b"\x15" + bytes(64)
