"""What a policy consists of beside its modes: reference values, rules about logs, floors, needs; and their form on the wire.

    floor    = [first, floor]                                   u64 as in TPMS_ATTEST.firmwareVersion
    rule     = [PCR, [allowed], [required], [forbidden]]        SHA-256 digests
    earlier  = [until, mode, PCR bitmap, [PCR digests], [manifests], [floors], [rules], [file rule]]
    needs    = [[need of a service], [of a topic], [of a role]]     need = [name, level, [roles]]
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, unique
from itertools import pairwise
from typing import Any, Final

from overlay.core.certificate_profile import ROLE_SIZE_MAX, ROLES_MAX
from overlay.core.limits import METHOD_MAX
from overlay.core.wire import Array, Bytes, Text, Tuple, UInt, malformed

DIGESTS_MAX: Final = 1024  # our guess: digests of each kind
RULE_DIGESTS_MAX: Final = 4096  # our guess: the files of a small system; a distribution's do not fit into a signed policy
FLOORS_MAX: Final = 64  # our guess: some for each of the ten makers of TPMs
EARLIER_MAX: Final = 4  # our guess: whoever changes reference values more often than their grace ends waits
NEEDS_MAX: Final = 256  # our guess: of services, of topics and of roles
PCRS: Final = 24  # TCG PC Client platform TPM profile, section 4.6
FILES_PCR: Final = 10  # into which Linux measures files (IMA)
LEVEL_MAX: Final = 5
TIME_MAX: Final = 253_402_300_799  # seconds: the end of the year 9999, as far as datetime reaches

DIGEST: Final = Bytes(32)
DIGESTS: Final = Array(DIGEST, DIGESTS_MAX)
FLOORS: Final = Array(Tuple((UInt(), UInt())), FLOORS_MAX)
_LISTED: Final = Array(DIGEST, RULE_DIGESTS_MAX)
_RULE: Final = Tuple((UInt(PCRS - 1), _LISTED, _LISTED, _LISTED))
RULES: Final = Array(_RULE, PCRS)
FILE_RULE: Final = Array(_RULE, 1)
_ROLES: Final = Array(Text(ROLE_SIZE_MAX), ROLES_MAX)
_NEEDS: Final = Array(Tuple((Text(METHOD_MAX), UInt(LEVEL_MAX), _ROLES)), NEEDS_MAX)
NEEDS: Final = Tuple((_NEEDS, _NEEDS, _NEEDS))


@unique
class Mode(IntEnum):
    """What happens to a node whose measurements are not among the reference values."""

    LEARN = 0
    WARN = 1
    ENFORCE = 2


@unique
class MissingLog(IntEnum):
    """What a node is worth that shows a quote and no log to go with it."""

    ALLOW = 0
    WARN = 1
    REFUSE = 2


EARLIER: Final = Array(
    Tuple((UInt(TIME_MAX), UInt(max(Mode)), UInt(2**PCRS - 1), DIGESTS, DIGESTS, FLOORS, RULES, FILE_RULE)), EARLIER_MAX
)


@dataclass(frozen=True, slots=True)
class FirmwareFloor:
    """Firmware from `first` up to, but not including, `floor` is too old.

    Nothing in a quote names the TPM's maker, and each maker numbers its firmware in its own way: `first` keeps a floor to
    one maker's numbers. Where two makers' numbers meet, the floor holds for both.
    """

    floor: int  # u64
    first: int = 0

    def is_too_old(self, firmware: int) -> bool:
        """`firmware`: the number in the quote."""
        return self.first <= firmware < self.floor


@dataclass(frozen=True, slots=True)
class DigestRule:
    """What the digests of one PCR's events may be, 32 bytes each. Event types and texts are nobody's word, so only digests.

    - none of `forbidden` occurs
    - each of `required` occurs
    - where `allowed` is not empty, no other digest than these and the required ones occurs
    """

    pcr: int
    allowed: tuple[bytes, ...] = field(default=(), repr=False)
    required: tuple[bytes, ...] = field(default=(), repr=False)
    forbidden: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """Which measurements are good: those of a policy, or those of one before it."""

    pcr_bitmap: int = 0  # bit i: PCR i of the SHA-256 bank is quoted
    pcr_digests: tuple[bytes, ...] = field(default=(), repr=False)  # allowed: SHA-256 over the values of those PCRs
    manifests: tuple[bytes, ...] = field(default=(), repr=False)  # allowed package manifests
    firmware_floors: tuple[FirmwareFloor, ...] = ()
    digest_rules: tuple[DigestRule, ...] = ()  # about the boot log, PCRs rising
    file_rule: DigestRule | None = None  # about the files that Linux has measured (IMA): their SHA-256 digests

    @property
    def has_tpm_references(self) -> bool:
        """Whether there is anything to compare a quote with; `enforce` without refuses TPM evidence."""
        return bool(self.pcr_bitmap and (self.pcr_digests or self.has_rules))

    @property
    def has_rules(self) -> bool:
        """Whether a log is needed to judge by them."""
        return bool(self.digest_rules) or self.file_rule is not None


@dataclass(frozen=True, slots=True)
class Earlier:
    """Reference values of a policy before, which pass until a time, and how strictly they were compared."""

    until: int  # Unix seconds
    mode: Mode  # other than `enforce`: whatever it was, it passed, and so it does until then
    references: References


@dataclass(frozen=True, slots=True)
class Need:
    """What a service, a topic or a role asks of whoever uses or has it."""

    name: str
    level: int = 0
    roles: tuple[str, ...] = ()  # one of these, sorted; none: any


@dataclass(frozen=True, slots=True)
class Needs:
    """All of them, sorted by name. What is not named needs nothing more than a link does."""

    services: tuple[Need, ...] = ()
    topics: tuple[Need, ...] = ()
    roles: tuple[Need, ...] = ()  # a role counts for nodes of this level only; these have no `roles` themselves

    def service(self, name: str) -> Need | None:
        """Of a service."""
        return _named(self.services, name)

    def topic(self, name: str) -> Need | None:
        """Of a topic."""
        return _named(self.topics, name)

    def role(self, name: str) -> Need | None:
        """Of a role."""
        return _named(self.roles, name)


NOTHING: Final = Needs()


def _named(needs: tuple[Need, ...], name: str) -> Need | None:
    return next((need for need in needs if need.name == name), None)


# --- to the wire and back ---------------------------------------------------------------------------------------------


def floors_out(floors: Sequence[FirmwareFloor]) -> list[list[int]]:
    """[[first, floor], ...]."""
    return [[one.first, one.floor] for one in floors]


def floors_in(value: Sequence[Any]) -> tuple[FirmwareFloor, ...]:
    """What `floors_out` gave."""
    return tuple(FirmwareFloor(floor, first) for first, floor in value)


def rules_out(rules: Sequence[DigestRule]) -> list[list[Any]]:
    """[[PCR, allowed, required, forbidden], ...]."""
    return [[one.pcr, list(one.allowed), list(one.required), list(one.forbidden)] for one in rules]


def rules_in(value: Sequence[Any]) -> tuple[DigestRule, ...]:
    """What `rules_out` gave; raises Refused(MALFORMED) for two about one PCR."""
    rules = tuple(DigestRule(pcr, tuple(allowed), tuple(required), tuple(none)) for pcr, allowed, required, none in value)
    _rising([one.pcr for one in rules], "rules are sorted by PCR, one for each")
    return rules


def file_rules(rule: DigestRule | None) -> tuple[DigestRule, ...]:
    """None or one, for `rules_out`."""
    return () if rule is None else (rule,)


def file_rule_in(value: Sequence[Any]) -> DigestRule | None:
    """None or one; raises Refused(MALFORMED) for a rule about another PCR than that of files."""
    rules = rules_in(value)
    if any(one.pcr != FILES_PCR for one in rules):
        malformed(f"files are measured into PCR {FILES_PCR}")
    return rules[0] if rules else None


def earlier_out(earlier: Sequence[Earlier]) -> list[list[Any]]:
    """As at the top of this file."""
    return [
        [
            one.until, int(one.mode), one.references.pcr_bitmap, list(one.references.pcr_digests),
            list(one.references.manifests), floors_out(one.references.firmware_floors),
            rules_out(one.references.digest_rules), rules_out(file_rules(one.references.file_rule)),
        ]
        for one in earlier
    ]


def earlier_in(value: Sequence[Any]) -> tuple[Earlier, ...]:
    """What `earlier_out` gave; raises Refused(MALFORMED)."""
    return tuple(
        Earlier(until, Mode(mode), References(
            pcr_bitmap=bitmap, pcr_digests=tuple(digests), manifests=tuple(manifests), firmware_floors=floors_in(floors),
            digest_rules=rules_in(rules), file_rule=file_rule_in(file_rule),
        ))
        for until, mode, bitmap, digests, manifests, floors, rules, file_rule in value
    )


def needs_out(needs: Needs) -> list[list[Any]] | None:
    """As at the top of this file; None where nothing is needed."""
    if needs == NOTHING:
        return None
    kinds = (needs.services, needs.topics, needs.roles)
    return [[[one.name, one.level, list(one.roles)] for one in kind] for kind in kinds]


def needs_in(value: Sequence[Any] | None) -> Needs:
    """What `needs_out` gave; raises Refused(MALFORMED) for two of one name."""
    if value is None:
        return NOTHING
    services, topics, roles = (tuple(Need(name, level, tuple(roles)) for name, level, roles in kind) for kind in value)
    for kind in (services, topics, roles):
        _rising([one.name for one in kind], "needs are sorted by name, one for each")
    if any(one.roles for one in roles):
        malformed("a role needs no roles")
    return Needs(services, topics, roles)


def _rising(keys: Sequence[Any], wanted: str) -> None:
    if any(first >= second for first, second in pairwise(keys)):
        malformed(wanted)
