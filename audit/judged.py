"""What a judge found of checkpoints, as values (audit/witnessed.py)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from audit.checkpoint import Checkpoint
from audit.notes import Note, NoteSignature
from audit.quorum import WitnessSet
from overlay.core.keys import NodeId

NOBODY: Final = WitnessSet()


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """A checkpoint whose author's line holds, with the cosignatures that hold."""

    checkpoint: Checkpoint
    witnesses: WitnessSet
    lines: Mapping[NodeId, NoteSignature] = field(repr=False)

    @property
    def at(self) -> int | None:
        """Since when it is witnessed, in Unix seconds; None: by too few."""
        return self.witnesses.reached_at({node: line.timestamp for node, line in self.lines.items()})

    @property
    def sentence(self) -> str:
        """For people."""
        return self.witnesses.sentence(len(self.lines))

    def note(self, signed: Note) -> Note:
        """The note with the author's line, which stands first, and those that hold."""
        return Note(signed.text, (*signed.signatures[:1], *self.lines.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessReport:
    """What witnesses say of one log."""

    witnesses: WitnessSet = NOBODY  # those of its end
    size: int = 0  # entries that are witnessed
    sentence: str = ""  # how well those are
    unproven: tuple[range, ...] = ()  # entries whose endorsement has ended, and that were not witnessed in time
    fault: str = ""  # a checkpoint by the author that says something else than the log

    @property
    def line(self) -> str:
        """For people; empty where there is nothing to say."""
        if self.fault:
            return self.fault
        said = []
        if self.witnesses.nodes:
            said.append(f"witnessed up to {self.size}: {self.sentence}" if self.size else f"not witnessed: {self.sentence}")
        if count := sum(len(one) for one in self.unproven):
            first = self.unproven[0].start
            said.append(f"{count} unproven from entry {first} on: nobody attests that they were written in time")
        return "; ".join(said)
