"""A policy as people write it, in TOML: the file as a whole, its tables, and the grace that it asks for."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from overlay.core import policy_values as values
from overlay.core.certificate_profile import ROLE_SIZE_MAX, ROLES_MAX, is_role
from overlay.core.limits import METHOD_MAX
from overlay.core.mesh.topics import is_topic
from overlay.core.policy import EK_TAGS_MAX, ENVELOPE_MAX, POLICY_MAX, Attestation, Policy
from overlay.core.policy_parts import (
    DIGESTS_MAX,
    EARLIER_MAX,
    FILES_PCR,
    LEVEL_MAX,
    NEEDS_MAX,
    PCRS,
    RULE_DIGESTS_MAX,
    DigestRule,
    Earlier,
    MissingLog,
    Mode,
    Need,
    Needs,
)
from overlay.errors import UsageError


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
    return PolicyFile(_of_good_size(policy), values.grace(table.get("grace", "0s")))


def _of_good_size(policy: Policy) -> Policy:
    size = len(policy.pack())
    if size > POLICY_MAX - ENVELOPE_MAX:
        raise UsageError(
            f"the policy has {size} bytes where {POLICY_MAX - ENVELOPE_MAX} are allowed",
            hint="name fewer digests or certificates, or make the grace of policies before it shorter",
        )
    return policy


# --- tables -----------------------------------------------------------------------------------------------------------

_PCRS: Final = frozenset(map(str, range(PCRS)))
FILES: Final = "files"  # the name of the rule about files, where others have the number of a PCR


def _rules(value: object) -> dict[str, Any]:
    """`[digests.7]` and `[digests.files]`."""
    if not isinstance(value, dict):
        values.wrong("digests", "tables such as [digests.7] and [digests.files]")
    rules = []
    for name, table in value.items():
        if name != FILES and name not in _PCRS:
            values.wrong(f"digests.{name}", f"the number of a PCR from 0 to {PCRS - 1}, or {FILES}")
        if name != FILES:
            rules.append(_rule(f"digests.{name}", int(name), table))
    file_rule = _rule(f"digests.{FILES}", FILES_PCR, value[FILES]) if FILES in value else None
    return {"digest_rules": tuple(sorted(rules, key=lambda rule: rule.pcr)), "file_rule": file_rule}


def _rule(key: str, pcr: int, table: object) -> DigestRule:
    lists = ("allowed", "required", "forbidden")
    if not isinstance(table, dict) or not table or table.keys() - set(lists):
        values.wrong(key, "allowed, required and forbidden: lists of SHA-256 digests")
    read = values.digests(RULE_DIGESTS_MAX)
    return DigestRule(pcr, *(tuple(sorted(set(read(f"{key}.{name}", table.get(name, []))))) for name in lists))


_NEEDS: Final = ("services", "topics", "roles")


def _needs(kind: str, value: object) -> tuple[Need, ...]:
    """`[services.NAME]` and the like."""
    if not isinstance(value, dict) or len(value) > NEEDS_MAX:
        values.wrong(kind, f"at most {NEEDS_MAX} tables such as [{kind}.NAME] with level and roles")
    return tuple(sorted((_need(kind, name, table) for name, table in value.items()), key=lambda need: need.name))


def _need(kind: str, name: str, table: object) -> Need:
    key = f"{kind}.{name}"
    if not _IS_NAME[kind](name):
        values.wrong(key, f"the name of one of the {kind}")
    keys = {"level"} if kind == "roles" else {"level", "roles"}
    if not isinstance(table, dict) or not table or table.keys() - keys:
        values.wrong(key, " and ".join(f"`{one}`" for one in sorted(keys)))
    roles = table.get("roles", [])
    good = isinstance(roles, list) and all(isinstance(role, str) and is_role(role) for role in roles)
    if not isinstance(roles, list) or not good or len(roles) > ROLES_MAX:
        values.wrong(f"{key}.roles", f"a list of at most {ROLES_MAX} roles of up to {ROLE_SIZE_MAX} letters")
    return Need(name, values.whole_number(0, LEVEL_MAX)(f"{key}.level", table.get("level", 0)), tuple(sorted(set(roles))))


def _is_service(name: str) -> bool:
    return name.isprintable() and 0 < len(name.encode()) <= METHOD_MAX


_IS_NAME: Final[Mapping[str, Callable[[str], bool]]] = {"services": _is_service, "topics": is_topic, "roles": is_role}


_READERS: Final[Mapping[str, tuple[str, Callable[[str, object], Any]]]] = {
    "version": ("version", values.whole_number(1, 2**32)),
    "attestation": ("attestation", values.choice(Attestation)),
    "mode": ("mode", values.choice(Mode)),
    "minimum_level": ("minimum_level", values.whole_number(0, LEVEL_MAX)),
    "pcrs": ("pcr_bitmap", values.pcrs),
    "pcr_digests": ("pcr_digests", values.digests(DIGESTS_MAX)),
    "manifests": ("manifests", values.digests(DIGESTS_MAX)),
    "ek_roots": ("ek_roots", values.ek_roots),
    "ek_tags": ("ek_tags", values.digests(EK_TAGS_MAX)),
    "firmware_floors": ("firmware_floors", values.firmware_floors),
    "missing_log": ("missing_log", values.choice(MissingLog)),
}
