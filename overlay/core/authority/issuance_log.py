"""Whether certificates that are shown stand in the logs of as many signers as it took to sign them: trust, and look.

Entries, certificates and time in; what is not logged in time comes out, once. Rules:

- an entry counts for the author of its log, and only if it names this very content: a serial follows from node and time alone
- a certificate has ten minutes from when it is first seen here, because logs travel, too
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from overlay.core.keys import NodeId

LOGGED_WITHIN: Final = 600.0  # protocol: seconds
ISSUED_MAX: Final = 65_536  # certificates of which entries are kept, the newest: our guess, what 20,000 nodes need in two days


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate, as an entry names it."""

    serial: bytes  # 20
    content: bytes  # SHA-256 of what was signed


@dataclass(frozen=True, slots=True)
class Unlogged:
    """It was shown, and too few have written that they signed it."""

    issued: Issued
    node_id: NodeId
    name: str
    logs: int
    wanted: int


class IssuanceLog:
    """What one node knows of that."""

    def __init__(self, patience: float = LOGGED_WITHIN) -> None:
        self.patience = patience
        self._logs: OrderedDict[Issued, set[NodeId]] = OrderedDict()
        self._shown: dict[Issued, tuple[NodeId, str, float]] = {}  # and when they were seen first
        self._told: set[Issued] = set()

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        waiting = (seen for one, (_, _, seen) in self._shown.items() if one not in self._told)
        return min(waiting, default=math.inf) + self.patience

    def entry(self, author: NodeId, issued: Issued) -> None:
        """An entry of that author's log says that it gave its share of this signature."""
        self._logs.setdefault(issued, set()).add(author)
        self._logs.move_to_end(issued)
        while len(self._logs) > ISSUED_MAX:
            self._logs.popitem(last=False)

    def logs(self, issued: Issued, signers: frozenset[NodeId]) -> int:
        """In how many logs of these it stands."""
        return len(self._logs.get(issued, set()) & signers)

    def shown(self, certificates: dict[Issued, tuple[NodeId, str]], now: float) -> None:
        """Those that are in use here now; all others are forgotten."""
        before = self._shown
        self._shown = {
            one: (node, name, before[one][2] if one in before else now) for one, (node, name) in certificates.items()
        }
        self._told &= self._shown.keys()

    def tick(self, signers: frozenset[NodeId], wanted: int, now: float) -> list[Unlogged]:
        """What is over its time, each told once while it is shown."""
        found = []
        for one, (node, name, seen) in self._shown.items():
            logs = self.logs(one, signers)
            if now >= seen + self.patience and logs < wanted and one not in self._told:
                found.append(Unlogged(one, node, name, logs, wanted))
        self._told |= {one.issued for one in found}
        return found
