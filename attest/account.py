"""What logs account for: boot log and measurement list together, brought to the one digest that a TPM has quoted.

The boot log ends when the operating system runs; the kernel's list grows on. So the list is followed on top of the whole boot
log, and on top of the log without its last events, which may have come after the quote.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final

from attest.event_log import PCR_MAX, BootEvent, BootLog
from attest.ima import PCR, Position, Sink, follow
from attest.replay import Replayed, Values, last_states, meet

BEGIN: Final = Position()
TAIL: Final = 8  # events of the boot log that may have come after a quote: our guess; few services extend PCRs late


@dataclass(frozen=True, slots=True)
class Account:
    """Everything that was quoted is accounted for by these."""

    values: Values = field(repr=False)  # of the PCRs that were quoted
    events: tuple[BootEvent, ...] = field(repr=False)
    surplus: int  # events of the boot log after the quote
    position: Position  # in the measurement list


def account(
    bitmap: int, quoted: bytes, boot: BootLog, measured: bytes | None = None, position: Position = BEGIN,
    sink: Sink | None = None,
) -> Account:
    """Bring logs to a quote.

    Args:
        bitmap: the PCRs that were quoted, bit 0 is PCR 0.
        quoted: `pcrDigest`, 32 bytes.
        boot: the boot log; without events where a machine has none.
        measured: the measurement list from `position.offset` on; None where there is none.
        position: how far the list was followed at the last quote.
        sink: gets the entries from there on, once they are known to be in the quote.

    Raises:
        Refused: PCR_MISMATCH, or BAD_EVIDENCE for a list that is none.
    """
    if measured is None or not bitmap >> PCR & 1:
        found = meet(boot, bitmap, quoted)
        return Account(found.values, found.events, found.surplus, position)
    ends = Ends(boot, bitmap, quoted)
    return ends.account(follow(measured, position, ends.meet, sink))


class Ends:
    """Where the boot log may have been when the quote was made; with a value of PCR 10 one of them is what was quoted."""

    def __init__(self, boot: BootLog, bitmap: int, quoted: bytes) -> None:
        self._quoted = quoted
        self._met: Replayed | None = None
        below, above = range(PCR), range(PCR + 1, PCR_MAX)
        self._found = [
            (state, hashlib.sha256(_values(state.values, below, bitmap)), _values(state.values, above, bitmap))
            for state in last_states(boot, bitmap & ~(1 << PCR), TAIL + 1)
        ]

    def meet(self, value: bytes) -> bool:
        """Whether it is so."""
        for state, before, after in self._found:
            digest = before.copy()
            digest.update(value + after)
            if digest.digest() == self._quoted:
                self._met = state
                return True
        return False

    def account(self, end: Position) -> Account:
        """What all of it amounts to, once it has met."""
        state = self._met
        assert state is not None
        return Account({**state.values, PCR: end.value}, state.events, state.surplus, end)


def _values(values: Values, pcrs: range, bitmap: int) -> bytes:
    return b"".join(values[pcr] for pcr in pcrs if bitmap >> pcr & 1)
