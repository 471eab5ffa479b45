"""What logs account for: boot log and measurement list together, brought to the one digest that a TPM has quoted.

The boot log ends when the operating system runs; the kernel's list grows on. So the list is followed on top of the whole boot
log, and on top of the log without its last events, which may have come after the quote.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from attest.event_log import BootEvent, BootLog
from attest.ima import PCR, Measurement, Position, follow
from attest.replay import Replayed, Values, digest_of, meet, states

BEGIN: Final = Position()
TAIL: Final = 8  # events of the boot log that may have come after a quote: our guess; few services extend PCRs late


@dataclass(frozen=True, slots=True)
class Account:
    """Everything that was quoted is accounted for by these."""

    values: Values = field(repr=False)  # of the PCRs that were quoted
    events: tuple[BootEvent, ...] = field(repr=False)
    surplus: int  # events of the boot log after the quote
    position: Position  # in the measurement list
    measurements: tuple[Measurement, ...] = field(default=(), repr=False)  # those since the position before


def account(
    bitmap: int, quoted: bytes, boot: BootLog, measured: bytes | None = None, position: Position = BEGIN
) -> Account:
    """Bring logs to a quote.

    Args:
        bitmap: the PCRs that were quoted, bit 0 is PCR 0.
        quoted: `pcrDigest`, 32 bytes.
        boot: the boot log; without events where a machine has none.
        measured: the measurement list from `position.offset` on; None where there is none.
        position: how far the list was followed at the last quote.

    Raises:
        Refused: PCR_MISMATCH, or BAD_EVIDENCE for a list that is none.
    """
    if measured is None or not bitmap >> PCR & 1:
        found = meet(boot, bitmap, quoted)
        return Account(found.values, found.events, found.surplus, position)
    entries: list[Measurement] = []
    ends = _Ends(tuple(islice(states(boot, bitmap & ~(1 << PCR)), TAIL + 1)), bitmap, quoted)
    end = follow(measured, position, ends.meet, entries.append)
    state = ends.met
    assert state is not None  # `follow` has met the quote
    return Account({**state.values, PCR: end.value}, state.events, state.surplus, end, tuple(entries))


class _Ends:
    """Where the boot log may have been when the quote was made; with a value of PCR 10 one of them is what was quoted."""

    def __init__(self, found: Sequence[Replayed], bitmap: int, quoted: bytes) -> None:
        self.met: Replayed | None = None
        self._found = found
        self._bitmap = bitmap
        self._quoted = quoted

    def meet(self, value: bytes) -> bool:
        """Whether it is so."""
        for state in self._found:
            if digest_of({**state.values, PCR: value}, self._bitmap) == self._quoted:
                self.met = state
                return True
        return False
