"""What authors, witnesses and everybody else say about checkpoints: values <-> bytes (docs/protocol/audit.md).

    CHECKPOINT  {0:1, 1:note?, 2:old_size, 3:[hash32, ...]}           cosign this; without a note: what do you know of my logs?
    COSIGNATURE {0:1, 1:kind, 2:[note, ...], 3:[[log_id16, size], ...]}
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Final

from audit.entry import LOG_ID_SIZE
from audit.notes import NOTE_MAX
from overlay.core.merkle import HASH_SIZE
from overlay.core.mesh.chains import SEQ_MAX
from overlay.core.wire import Array, Bytes, Maybe, Tuple, UInt, make_map, malformed, open_map

PROOF_MAX: Final = 64  # hashes: a proof between trees of at most 2^53 leaves has at most 54 (RFC 9162, section 2.1.4)
NOTES_MAX: Final = 32  # in one message: our guess
ROWS_MAX: Final = 4096  # in one message: our guess, some 120 KiB
REQUEST_MAX: Final = 32 * 1024  # bytes of a CHECKPOINT: a note and a proof
COSIGNATURE_MAX: Final = 1024 * 1024  # bytes of a COSIGNATURE, as for other messages

_NOTE: Final = Bytes(1, NOTE_MAX)
_ROW: Final = Tuple((Bytes(LOG_ID_SIZE), UInt(SEQ_MAX)))


@unique
class Say(IntEnum):
    """Field 1 of COSIGNATURE."""

    COSIGNED = 1  # the answer to a checkpoint: what we have cosigned last of that log, if anything
    KNOWN = 2  # the answer to a question: what we have cosigned last of your logs, the newest first
    NEWS = 3  # checkpoints that are witnessed, and how far we know logs to be


@dataclass(frozen=True, slots=True)
class Request:
    """A checkpoint to be cosigned, with what shows that it follows the one of `old_size`; no note: a question."""

    note: bytes | None
    old_size: int = 0
    proof: tuple[bytes, ...] = field(default=(), repr=False)

    def pack(self) -> bytes:
        """The body of a CHECKPOINT."""
        return make_map(self.note, self.old_size, list(self.proof))

    @classmethod
    def unpack(cls, body: bytes) -> "Request":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        note, old_size, proof = open_map(
            body, Maybe(_NOTE), UInt(SEQ_MAX), Array(Bytes(HASH_SIZE), PROOF_MAX), limit=REQUEST_MAX
        )
        if old_size == 0 and proof:
            malformed("a proof from nothing")
        return cls(note, old_size, tuple(proof))


@dataclass(frozen=True, slots=True)
class Told:
    """The other message: notes, and for news sizes up to which logs are witnessed."""

    say: Say
    notes: tuple[bytes, ...] = field(default=(), repr=False)
    sizes: Mapping[bytes, int] = field(default_factory=dict)

    def pack(self) -> bytes:
        """The body of a COSIGNATURE."""
        return make_map(int(self.say), list(self.notes), [[log_id, size] for log_id, size in sorted(self.sizes.items())])

    @classmethod
    def unpack(cls, body: bytes) -> "Told":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        say, notes, rows = open_map(
            body, UInt(255), Array(_NOTE, NOTES_MAX), Array(_ROW, ROWS_MAX), limit=COSIGNATURE_MAX
        )
        if say not in Say._value2member_map_:
            malformed(f"a message of kind {say} about checkpoints")
        return cls(Say(say), tuple(notes), dict(rows))


def make_news(notes: Sequence[bytes], sizes: Mapping[bytes, int]) -> Iterator[bytes]:
    """As many messages as it takes; none for nothing."""
    rows = sorted(sizes.items())
    for start in range(0, max(-(-len(notes) // NOTES_MAX) * ROWS_MAX, len(rows)), ROWS_MAX):
        first = start // ROWS_MAX * NOTES_MAX
        yield Told(Say.NEWS, tuple(notes[first : first + NOTES_MAX]), dict(rows[start : start + ROWS_MAX])).pack()
