"""What a worker lets one run have at most, whatever its workload asks for."""

import os
from dataclasses import dataclass
from typing import Final, Self

from overlay.core.work.workload import RunLimits
from overlay.errors import Refused
from overlay.registry import Reason

PROCESSES_MAX: Final = 4096  # our guess: an eighth of what the kernel has room for by default


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """Sizes in bytes."""

    memory: int
    output: int
    processes: int

    @classmethod
    def of_machine(cls) -> Self:
        """Three quarters of its memory; an eighth for what a run writes, which is in memory twice (`rooms.py`): our guess."""
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return cls(memory=memory // 4 * 3, output=memory // 8, processes=PROCESSES_MAX)

    def check(self, limits: RunLimits) -> None:
        """Raises Refused(TOO_LARGE)."""
        for what in ("memory", "output", "processes"):
            wanted, most = getattr(limits, what), getattr(self, what)
            if wanted > most:
                raise Refused(Reason.TOO_LARGE, f"{what} of {wanted}, where this worker gives {most}", hint="ask for less")
