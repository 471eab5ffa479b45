"""Rules of a policy about digests: those of events in the boot log, and those of files that Linux has measured.

Only digests decide. What an event calls itself is told to people, and proves nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest
from typing import Final

from attest.event_log import BootEvent
from attest.ima import Measurement
from overlay.core.policy_parts import DigestRule

PATH_SHOWN: Final = 200  # characters of a path in a sentence: our guess


class RuleCheck:
    """One rule on its way through digests, in any number of steps. `copy` is another one that has come as far."""

    __slots__ = ("_broken", "_missing", "_seen", "rule")

    def __init__(self, rule: DigestRule) -> None:
        self.rule = rule
        self._missing = frozenset(rule.required)
        self._seen = False
        self._broken = ""

    def see(self, digest: bytes, what: Callable[[], str]) -> None:
        """The next digest; `what` it is of, for people."""
        self._seen = True
        if digest in self._missing:
            self._missing -= {digest}
        if self._broken:
            return
        allowed, forbidden = _sets(self.rule)
        if digest in forbidden:
            self._broken = f"{what()} is forbidden: {digest.hex()}"
        elif allowed is not None and digest not in allowed:
            self._broken = f"{what()} is not among the allowed ones: {digest.hex()}"

    @property
    def broken(self) -> str:
        """What is wrong with all that was seen; empty if nothing is. Where nothing was measured, nothing is known."""
        if self._broken:
            return self._broken
        if self._missing:
            return f"what has to be in PCR {self.rule.pcr} is not there: {min(self._missing).hex()}"
        return "" if self._seen else f"nothing was measured into PCR {self.rule.pcr}"

    def copy(self) -> "RuleCheck":
        """So that what is seen from here on may be forgotten again."""
        other = RuleCheck(self.rule)
        other._missing, other._seen, other._broken = self._missing, self._seen, self._broken
        return other


@lru_cache(maxsize=64)  # more rules than a policy and those before it have
def _sets(rule: DigestRule) -> tuple[frozenset[bytes] | None, frozenset[bytes]]:
    """What a rule allows, None for anything; what it forbids."""
    return frozenset(rule.allowed) | frozenset(rule.required) if rule.allowed else None, frozenset(rule.forbidden)


@dataclass(frozen=True, slots=True)
class Logs:
    """What a quote proves of the logs of its machine."""

    events: tuple[BootEvent, ...] = field(repr=False)  # of quoted PCRs, up to the quote
    files: tuple[RuleCheck, ...] | None = None  # rules about files, all entries up to the quote seen; None without a list

    def broken(self, rule: DigestRule) -> str:
        """What is wrong by a rule about events; empty if nothing is."""
        return broken_by_events(rule, self.events)

    def broken_by_files(self, rule: DigestRule) -> str | None:
        """The same by a rule about files; None if there was no list to look at."""
        return next((check.broken for check in self.files or () if check.rule == rule), None)


def broken_by_events(rule: DigestRule, events: Iterable[BootEvent]) -> str:
    """What is wrong with the events of a boot log, all of them proven by a quote; empty if nothing is."""
    check = RuleCheck(rule)
    for event in events:
        if event.pcr == rule.pcr and event.is_extended:
            check.see(event.digest, lambda: describe(event))  # noqa: B023 (it is called at once, if at all)
    return check.broken


def see_file(check: RuleCheck, entry: Measurement) -> None:
    """One entry of a measurement list. A file that was written while it was read has no digest: zeros stand for it."""
    if entry.is_file:
        check.see(entry.digest, lambda: f"file {entry.number} ({entry.path[:PATH_SHOWN]!r})")


def describe(event: BootEvent) -> str:
    """An event, for people."""
    return f"event {event.number} of the boot log ({event.type_name}, PCR {event.pcr})"


def what_changed(before: Iterable[BootEvent], now: Iterable[BootEvent]) -> str:
    """The first event, by PCR, that is another one than at the last good evidence; empty if there is none, or was no log."""
    old, new = list(before), list(now)
    if not old:
        return ""
    for pcr in sorted({event.pcr for event in (*old, *new)}):
        pairs = zip_longest((one for one in old if one.pcr == pcr), (one for one in new if one.pcr == pcr))
        for was, is_now in pairs:
            if was is None or is_now is None or was.digest != is_now.digest:
                return f"{describe(is_now or was)} {_how(was, is_now)}"
    return ""


def _how(was: BootEvent | None, is_now: BootEvent | None) -> str:
    if is_now is None:
        return "is gone"
    return f"is new: {is_now.digest.hex()}" if was is None else f"has become {is_now.digest.hex()}"
