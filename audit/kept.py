"""What is to be kept of checkpoints, as values: a commit takes them along with entries (audit/witness_store.py)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from audit.checkpoint import Checkpoint
from audit.kept_forks import KeptFork
from audit.notes import Note, NoteSignature
from audit.witness import Cosigned
from overlay.core.merkle import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCheckpoint:
    """A checkpoint that agrees with the log as it is held here, with the lines that are known."""

    checkpoint: Checkpoint
    tree: Tree  # of that size: its edge makes later proofs cheap
    note: Note = field(repr=False)

    @property
    def key(self) -> tuple[bytes, int, bytes]:
        """Which row."""
        return self.checkpoint.log_id, self.checkpoint.size, self.checkpoint.root


@dataclass(frozen=True, slots=True)
class DropCheckpoints:
    """These prove nothing that a later one does not."""

    keys: tuple[tuple[bytes, int, bytes], ...]


Record = KeptCheckpoint | Cosigned | DropCheckpoints | KeptFork


def with_lines(note: Note, more: Sequence[Note]) -> Note:
    """The note and all lines of the others under the same text, each signer's first one only."""
    lines: dict[tuple[str, bytes], NoteSignature] = {}
    for other in (note, *more):
        if other.text == note.text:
            lines = {(one.name, one.key_id): one for one in other.signatures} | lines
    first = [lines.pop((one.name, one.key_id), one) for one in note.signatures]
    return Note(note.text, (*first, *lines.values()))
