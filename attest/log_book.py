"""What a verifier keeps of its peers' logs, so that a log comes over once, and of a list that grows only what is new."""

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final

from attest.event_log import BootEvent, BootLog
from attest.ima import Position
from attest.rules import RuleCheck
from overlay.core.keys import NodeId
from overlay.core.policy_parts import DigestRule
from overlay.errors import Refused

PEERS_MAX: Final = 1024  # our guess: more neighbours than a node has; whoever is forgotten sends its logs again
EVENTS_MAX: Final = 262_144  # of all boot logs together, some 80 MiB: our guess; real ones have 20 to 300
TEXT_KEPT: Final = 64  # bytes of what an event says, for people: our guess


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot log by its hash. `log` is None for one that cannot be read; then `why`."""

    hash: bytes
    log: BootLog | None = field(repr=False)
    why: Refused | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """How far a peer's measurement list was followed, and what the rules say of all entries up to there."""

    ak_name: bytes
    resets: int  # the TPM's reset count: with another one the list has begun anew
    position: Position
    checks: tuple[RuleCheck, ...] = field(repr=False)

    def goes_on(self, ak_name: bytes, resets: int, rules: tuple[DigestRule, ...]) -> bool:
        """Whether the list may be read on from here: for other rules all entries have to be looked at again."""
        same = tuple(check.rule for check in self.checks) == rules
        return same and (self.ak_name, self.resets) == (ak_name, resets)


@dataclass(frozen=True, slots=True)
class _Known:
    boot: Boot | None = None
    files: Files | None = None
    events: tuple[BootEvent, ...] = field(default=(), repr=False)  # of the last evidence that met the policy
    newest: tuple[bytes, int] = (b"", 0)  # the highest reset count that this attestation key has shown

    @property
    def size(self) -> int:
        """Events that are kept."""
        return len(self.events) + (len(self.boot.log.events) if self.boot is not None and self.boot.log is not None else 0)


class LogBook:
    """Of one node, for all its links."""

    def __init__(self) -> None:
        self._known: OrderedDict[NodeId, _Known] = OrderedDict()
        self._events = 0

    def boot(self, node: NodeId, digest: bytes) -> Boot | None:
        """A peer's boot log, if we have the one with this hash."""
        found = self._of(node).boot
        return found if found is not None and found.hash == digest else None

    def keep_boot(self, node: NodeId, boot: Boot) -> None:
        """A boot log has come."""
        self._keep(node, replace(self._of(node), boot=boot))

    def files(self, node: NodeId) -> Files | None:
        """How far its measurement list was followed."""
        return self._of(node).files

    def keep_files(self, node: NodeId, files: Files) -> None:
        """A quote was met there."""
        self._keep(node, replace(self._of(node), files=files))

    def good_events(self, node: NodeId) -> tuple[BootEvent, ...]:
        """What was in its boot log when its evidence was good last."""
        return self._of(node).events

    def keep_good(self, node: NodeId, events: tuple[BootEvent, ...]) -> None:
        """Its evidence was good, with these events."""
        self._keep(node, replace(self._of(node), events=events))

    def resets(self, node: NodeId, ak_name: bytes) -> int:
        """The highest reset count that a key has shown, on any link."""
        known, count = self._of(node).newest
        return count if known == ak_name else 0

    def keep_resets(self, node: NodeId, ak_name: bytes, count: int) -> None:
        """A quote of the key that holds has said so."""
        if count != self.resets(node, ak_name):
            self._keep(node, replace(self._of(node), newest=(ak_name, count)))

    def _of(self, node: NodeId) -> _Known:
        return self._known.get(node, _NOTHING)

    def _keep(self, node: NodeId, known: _Known) -> None:
        self._events += known.size - self._of(node).size
        self._known[node] = known
        self._known.move_to_end(node)
        while len(self._known) > 1 and (len(self._known) > PEERS_MAX or self._events > EVENTS_MAX):
            _, forgotten = self._known.popitem(last=False)
            self._events -= forgotten.size


_NOTHING: Final = _Known()


def trimmed(log: BootLog) -> BootLog:
    """A boot log without the long texts, which are for people only."""
    return BootLog(tuple(replace(event, data=event.data[:TEXT_KEPT]) for event in log.events), log.locality)
