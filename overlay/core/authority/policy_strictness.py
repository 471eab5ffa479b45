"""Whether a new policy lets pass what the one in force does not: then it takes two operators."""

from collections.abc import Sequence

from overlay.core.policy import Policy
from overlay.core.policy_parts import DigestRule, Earlier, FirmwareFloor, Need, Needs, References


def is_looser(new: Policy, old: Policy) -> bool:
    """Whether the new policy lets pass what the old one did not, other than by new measurements: those are everyday."""
    return (
        new.attestation < old.attestation
        or new.mode < old.mode
        or new.minimum_level < old.minimum_level
        or _trusts_other_makers(new, old)
        or new.without_log < old.without_log
        or _compares_less(new.references, old.references)
        or any(_grants_more(one, old) for one in new.earlier)
        or _needs_less(new.needs, old.needs)
    )


def _trusts_other_makers(new: Policy, old: Policy) -> bool:
    """A root or a machine more raises levels; a root less leaves the machines of that maker to be taken for unknown ones."""
    return set(new.ek_roots) != set(old.ek_roots) or not set(new.ek_tags) <= set(old.ek_tags)


def _compares_less(new: References, old: References) -> bool:
    rules = {rule.pcr: rule for rule in new.digest_rules}
    return (
        bool(old.pcr_bitmap & ~new.pcr_bitmap)
        or not all(_has_floor(one, new.firmware_floors) for one in old.firmware_floors)
        or any(_asks_less(rules.get(rule.pcr), rule) for rule in old.digest_rules)
        or (old.file_rule is not None and _asks_less(new.file_rule, old.file_rule))
    )


def _has_floor(wanted: FirmwareFloor, floors: Sequence[FirmwareFloor]) -> bool:
    return any(one.first <= wanted.first and wanted.floor <= one.floor for one in floors)


def _asks_less(new: DigestRule | None, old: DigestRule) -> bool:
    """Other digests are new measurements; fewer that must be there, more that may be, or none that are named, are not."""
    if new is None:
        return True
    return (
        (bool(old.allowed) and not new.allowed)
        or len(new.required) < len(old.required)
        or not set(old.forbidden) <= set(new.forbidden)
    )


def _grants_more(new: Earlier, old: Policy) -> bool:
    """Grace for what passes now, as long as it does, is no looser; nor is grace that was there and does not last longer."""
    for one in old.earlier:
        if (one.mode, one.references) == (new.mode, new.references) and new.until <= one.until:
            return False
    return new.mode < old.strictness or _compares_less(new.references, old.references)


def _needs_less(new: Needs, old: Needs) -> bool:
    kinds = ((new.services, old.services), (new.topics, old.topics), (new.roles, old.roles))
    return any(_asks_less_of(after, before) for after, before in kinds)


def _asks_less_of(new: Sequence[Need], old: Sequence[Need]) -> bool:
    left = {need.name: need for need in new}
    return any(_is_lower(left.get(need.name), need) for need in old)


def _is_lower(new: Need | None, old: Need) -> bool:
    if new is None:
        return bool(old.level or old.roles)
    lets_others_in = bool(old.roles) and (not new.roles or not set(new.roles) <= set(old.roles))
    return new.level < old.level or lets_others_in
