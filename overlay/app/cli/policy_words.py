"""A policy as `overlay attest policy` shows it: what it does not use is left out."""

from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from overlay.core.certificates import show_time
from overlay.core.policy import Policy
from overlay.core.policy_parts import DigestRule, Earlier, Need


def describe_policy(policy: Policy) -> dict[str, Any]:
    """By the keys of the file; ready for JSON."""
    always = {
        "version": policy.version, "attestation": policy.attestation.name.lower(), "mode": policy.mode.name.lower(),
        "minimum_level": policy.minimum_level, "pcrs": list(policy.pcrs),
        "pcr_digests": [one.hex() for one in policy.pcr_digests], "manifests": [one.hex() for one in policy.manifests],
    }  # fmt: skip
    rules = (*policy.digest_rules, *(() if policy.file_rule is None else (policy.file_rule,)))
    used = {
        "ek_roots": [_subject(der) for der in policy.ek_roots], "ek_tags": [one.hex() for one in policy.ek_tags],
        "firmware_floors": [f"{one.floor:016x} for all from {one.first:016x} on" for one in policy.firmware_floors],
        "digests": [_rule(rule, files=rule is policy.file_rule) for rule in rules],
        "missing_log": policy.without_log.name.lower() if policy.missing_log is not None or rules else "",
        "grace": [_earlier(one) for one in policy.earlier],
        "services": [_need(one) for one in policy.needs.services], "topics": [_need(one) for one in policy.needs.topics],
        "roles": [_need(one) for one in policy.needs.roles],
    }  # fmt: skip
    return always | {key: value for key, value in used.items() if value}


def _subject(der: bytes) -> str:
    try:
        return x509.load_der_x509_certificate(der).subject.rfc4514_string()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return "unreadable"


def _rule(rule: DigestRule, *, files: bool) -> str:
    counts = f"{len(rule.allowed) or 'any'} allowed, {len(rule.required)} required, {len(rule.forbidden)} forbidden"
    return f"{'files' if files else f'PCR {rule.pcr}'}: {counts}"


def _earlier(one: Earlier) -> str:
    passes = "what it lists" if one.mode.name == "ENFORCE" else "anything"
    return f"{passes} of before passes until {show_time(datetime.fromtimestamp(one.until, UTC))}"


def _need(need: Need) -> str:
    roles = f", one of {' '.join(need.roles)}" if need.roles else ""
    return f"{need.name}: level {need.level}{roles}"
