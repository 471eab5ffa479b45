"""A policy as people write it, in TOML."""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Final, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from overlay.core.certificate_profile import ROLE_SIZE_MAX, ROLES_MAX, is_role
from overlay.core.limits import METHOD_MAX
from overlay.core.mesh.topics import is_topic
from overlay.core.policy import (
    EK_ROOT_MAX,
    EK_ROOTS_MAX,
    EK_TAGS_MAX,
    ENVELOPE_MAX,
    POLICY_MAX,
    Attestation,
    Policy,
)
from overlay.core.policy_parts import (
    DIGESTS_MAX,
    EARLIER_MAX,
    FILES_PCR,
    FLOORS_MAX,
    LEVEL_MAX,
    NEEDS_MAX,
    PCRS,
    RULE_DIGESTS_MAX,
    DigestRule,
    Earlier,
    FirmwareFloor,
    MissingLog,
    Mode,
    Need,
    Needs,
)
from overlay.errors import UsageError

DIGEST_SIZE: Final = 32
GRACE_MAX: Final = timedelta(days=30)  # our guess: a month for a machine that is away

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What a file says: the policy, and how long the reference values before it still pass."""

    policy: Policy
    grace: timedelta = timedelta(0)

    def in_place_of(self, before: Policy, at: datetime) -> Policy:
        """The policy with its grace: a list of earlier reference values, so that whoever never saw `before` judges the same.

        Raises:
            UsageError: too many policies one after another, or too large with those before it.
        """
        if not self.grace:
            return self.policy
        now, until = int(at.timestamp()), int((at + self.grace).timestamp())
        left = tuple(one for one in before.earlier if now < one.until and one.references != self.policy.references)
        earlier = (Earlier(until, before.strictness, before.references), *left)
        if len(earlier) > EARLIER_MAX:
            raise UsageError(
                f"{len(left)} earlier policies are still in their grace",
                hint="wait until one of them has ended, or leave out `grace`",
            )
        return _of_good_size(replace(self.policy, earlier=earlier))


def parse_policy_toml(text: str) -> Policy:
    """The policy alone, without the grace, which needs to know what was before."""
    return parse_policy_file(text).policy


def parse_policy_file(text: str) -> PolicyFile:
    """Read a policy; `version` is a must, all keys are in `docs/guide/policy.md`.

    Raises:
        UsageError: naming the key that is unknown or wrong.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"the policy is not TOML: {error}") from None
    known = {*_READERS, *_NEEDS, "digests", "grace"}
    unknown = sorted(table.keys() - known)
    if unknown:
        raise UsageError(f"unknown key in the policy: {unknown[0]}", hint=f"known keys: {', '.join(sorted(known))}")
    if "version" not in table:
        raise UsageError("the policy has no version", hint="write `version = 1`, and a higher number with each change")
    fields: dict[str, Any] = {}
    for key in table.keys() & _READERS.keys():
        name, read = _READERS[key]
        fields[name] = read(key, table[key])
    rules = _rules(table.get("digests", {}))
    policy = Policy(**fields, **rules, needs=Needs(*(_needs(kind, table.get(kind, {})) for kind in _NEEDS)))
    return PolicyFile(_of_good_size(policy), _grace(table.get("grace", "0s")))


def _of_good_size(policy: Policy) -> Policy:
    size = len(policy.pack())
    if size > POLICY_MAX - ENVELOPE_MAX:
        raise UsageError(
            f"the policy has {size} bytes where {POLICY_MAX - ENVELOPE_MAX} are allowed",
            hint="name fewer digests or certificates, or make the grace of policies before it shorter",
        )
    return policy


# --- single values ----------------------------------------------------------------------------------------------------


def _whole_number(low: int, high: int) -> Callable[[str, object], int]:
    def read(key: str, value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            _wrong(key, f"a whole number from {low} to {high}")
        return value

    return read


def _choice(kind: type[IntEnum]) -> Callable[[str, object], IntEnum]:
    words: dict[object, IntEnum] = {member.name.lower(): member for member in kind}

    def read(key: str, value: object) -> IntEnum:
        if not isinstance(value, str) or value not in words:
            _wrong(key, " or ".join(f'"{word}"' for word in words))
        return words[value]

    return read


def _pcrs(key: str, value: object) -> int:
    good = isinstance(value, list) and all(type(item) is int and 0 <= item < PCRS for item in value)
    if not isinstance(value, list) or not good or len(set(value)) != len(value):
        _wrong(key, f"a list of different numbers from 0 to {PCRS - 1}")
    return sum(1 << item for item in value)


def _digests(most: int) -> Callable[[str, object], tuple[bytes, ...]]:
    def read(key: str, value: object) -> tuple[bytes, ...]:
        if not isinstance(value, list) or len(value) > most:
            _wrong(key, f"a list of at most {most} SHA-256 digests")
        try:
            digests = tuple(bytes.fromhex(item) for item in value)
        except (TypeError, ValueError):
            digests = (b"",)
        if any(len(digest) != DIGEST_SIZE for digest in digests):
            _wrong(key, "a list of SHA-256 digests of 64 hexadecimal digits")
        return digests

    return read


def _ek_roots(key: str, value: object) -> tuple[bytes, ...]:
    wanted = f"a list of at most {EK_ROOTS_MAX} certificates in PEM"
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        _wrong(key, wanted)
    try:
        found = [one.public_bytes(Encoding.DER) for item in value for one in x509.load_pem_x509_certificates(item.encode())]
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        _wrong(key, wanted)
    roots = tuple(sorted(set(found)))
    if len(roots) > EK_ROOTS_MAX or any(len(der) > EK_ROOT_MAX for der in roots):
        _wrong(key, f"{wanted}, of at most {EK_ROOT_MAX} bytes each")
    return roots


_FIRMWARE: Final = re.compile(r"[0-9a-fA-F]{1,16}|[0-9]{1,5}(?:\.[0-9]{1,5}){3}")


def _firmware(text: str) -> int:
    """As `overlay attest check` shows it, in hexadecimal, or as `overlay doctor` does: four numbers of 16 bits."""
    if "." not in text:
        return int(text, 16)
    return int.from_bytes(b"".join(min(int(part), 0xFFFF).to_bytes(2, "big") for part in text.split(".")))


def _firmware_floors(key: str, value: object) -> tuple[FirmwareFloor, ...]:
    form = '{ floor = "7.63.0.0", first = "7.0.0.0" }'
    wanted = f"at most {FLOORS_MAX} of {form}, or 16 hexadecimal digits; first may be left out"
    if not isinstance(value, list) or len(value) > FLOORS_MAX or not all(isinstance(item, dict) for item in value):
        _wrong(key, wanted)
    floors = []
    for item in value:
        texts = [item.get("first", "0"), item.get("floor")]
        if item.keys() - {"first", "floor"} or not all(isinstance(text, str) and _FIRMWARE.fullmatch(text) for text in texts):
            _wrong(key, wanted)
        first, floor = map(_firmware, texts)
        if first >= floor:
            _wrong(key, "a floor that is higher than its first version")
        floors.append(FirmwareFloor(floor, first))
    return tuple(sorted(floors, key=lambda one: (one.first, one.floor)))


_SPAN: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _grace(value: object) -> timedelta:
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        _wrong("grace", 'a time such as "90s", "30m", "1h" or "2d"')
    grace = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if grace > GRACE_MAX:
        _wrong("grace", f"at most {GRACE_MAX.days} days")
    return grace


# --- tables -----------------------------------------------------------------------------------------------------------

_PCRS: Final = frozenset(map(str, range(PCRS)))
FILES: Final = "files"  # the name of the rule about files, where others have the number of a PCR


def _rules(value: object) -> dict[str, Any]:
    """`[digests.7]` and `[digests.files]`."""
    if not isinstance(value, dict):
        _wrong("digests", "tables such as [digests.7] and [digests.files]")
    rules = []
    for name, table in value.items():
        if name != FILES and name not in _PCRS:
            _wrong(f"digests.{name}", f"the number of a PCR from 0 to {PCRS - 1}, or {FILES}")
        if name != FILES:
            rules.append(_rule(f"digests.{name}", int(name), table))
    file_rule = _rule(f"digests.{FILES}", FILES_PCR, value[FILES]) if FILES in value else None
    return {"digest_rules": tuple(sorted(rules, key=lambda rule: rule.pcr)), "file_rule": file_rule}


def _rule(key: str, pcr: int, table: object) -> DigestRule:
    lists = ("allowed", "required", "forbidden")
    if not isinstance(table, dict) or not table or table.keys() - set(lists):
        _wrong(key, "allowed, required and forbidden: lists of SHA-256 digests")
    read = _digests(RULE_DIGESTS_MAX)
    return DigestRule(pcr, *(tuple(sorted(set(read(f"{key}.{name}", table.get(name, []))))) for name in lists))


_NEEDS: Final = ("services", "topics", "roles")


def _needs(kind: str, value: object) -> tuple[Need, ...]:
    """`[services.NAME]` and the like."""
    if not isinstance(value, dict) or len(value) > NEEDS_MAX:
        _wrong(kind, f"at most {NEEDS_MAX} tables such as [{kind}.NAME] with level and roles")
    return tuple(sorted((_need(kind, name, table) for name, table in value.items()), key=lambda need: need.name))


def _need(kind: str, name: str, table: object) -> Need:
    key = f"{kind}.{name}"
    if not _IS_NAME[kind](name):
        _wrong(key, f"the name of one of the {kind}")
    keys = {"level"} if kind == "roles" else {"level", "roles"}
    if not isinstance(table, dict) or not table or table.keys() - keys:
        _wrong(key, " and ".join(f"`{one}`" for one in sorted(keys)))
    roles = table.get("roles", [])
    good = isinstance(roles, list) and all(isinstance(role, str) and is_role(role) for role in roles)
    if not isinstance(roles, list) or not good or len(roles) > ROLES_MAX:
        _wrong(f"{key}.roles", f"a list of at most {ROLES_MAX} roles of up to {ROLE_SIZE_MAX} letters")
    return Need(name, _whole_number(0, LEVEL_MAX)(f"{key}.level", table.get("level", 0)), tuple(sorted(set(roles))))


def _is_service(name: str) -> bool:
    return name.isprintable() and 0 < len(name.encode()) <= METHOD_MAX


_IS_NAME: Final[Mapping[str, Callable[[str], bool]]] = {"services": _is_service, "topics": is_topic, "roles": is_role}


def _wrong(key: str, wanted: str) -> NoReturn:
    raise UsageError(f"{key} in the policy is wrong", hint=f"write {wanted}")


_READERS: Final[Mapping[str, tuple[str, Callable[[str, object], Any]]]] = {
    "version": ("version", _whole_number(1, 2**32)),
    "attestation": ("attestation", _choice(Attestation)),
    "mode": ("mode", _choice(Mode)),
    "minimum_level": ("minimum_level", _whole_number(0, LEVEL_MAX)),
    "pcrs": ("pcr_bitmap", _pcrs),
    "pcr_digests": ("pcr_digests", _digests(DIGESTS_MAX)),
    "manifests": ("manifests", _digests(DIGESTS_MAX)),
    "ek_roots": ("ek_roots", _ek_roots),
    "ek_tags": ("ek_tags", _digests(EK_TAGS_MAX)),
    "firmware_floors": ("firmware_floors", _firmware_floors),
    "missing_log": ("missing_log", _choice(MissingLog)),
}
