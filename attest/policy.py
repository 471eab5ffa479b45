"""What the mesh's policy makes of evidence that is genuine: kinds, reference values, modes and the lowest level.

- `attestation`: `require` takes TPM evidence only; `prefer` takes both kinds; `off` takes both and compares nothing
  with reference values. Evidence is shown and bound to the link in every case: there is no way to do without.
- `mode`: `learn` compares nothing, `warn` compares and lets pass, `enforce` compares and refuses, also where the policy
  holds no reference values at all.
- Reference values are floors for the firmware and PCR digests under one bitmap for TPM evidence, package manifests for
  software evidence.
- Rules about logs: about the boot log, as far as the quote proves it, and about the list of files that ran. What a log means
  that is missing, or does not lead to the quote, is for the policy to say (`missing_log`).
- Grace: what earlier policies listed passes until a time, with a warning, as a whole: never the firmware of one and the PCRs
  of another.
- `minimum_level` and the levels that roles need hold in every mode.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from attest.evidence import Claims
from attest.rules import Logs
from overlay.core.certificates import show_time
from overlay.core.policy import Attestation, Policy
from overlay.core.policy_parts import PCRS, DigestRule, MissingLog, Mode, References
from overlay.core.trust import VerifiedPeer
from overlay.errors import Refused
from overlay.registry import EvidenceKind, Reason

DEFAULT_PCRS: Final = 0x4087  # 0, 1, 2, 7 and 14, where a policy names none: firmware, Secure Boot, and what shim measures


def accepted_kinds(policy: Policy) -> tuple[EvidenceKind, ...]:
    """The kinds of evidence that the policy takes, best first."""
    if policy.attestation is Attestation.REQUIRE:
        return (EvidenceKind.TPM,)
    return (EvidenceKind.TPM, EvidenceKind.SOFTWARE)


def check_kind(policy: Policy, kind: EvidenceKind, peer: VerifiedPeer) -> None:
    """Refuse a kind that the policy does not take, and software evidence of a node that was enrolled with a TPM.

    Raises:
        Refused: EVIDENCE_NOT_ACCEPTED, or ATTESTATION_KEY_MISMATCH for the second: not a fallback but an alarm.
    """
    facts = peer.certificate.facts
    if kind is EvidenceKind.SOFTWARE and (facts.ak_name is not None or facts.level >= 2):
        raise Refused(Reason.ATTESTATION_KEY_MISMATCH, "enrolled with a TPM, but shows software evidence")
    if kind not in accepted_kinds(policy):
        raise Refused(Reason.EVIDENCE_NOT_ACCEPTED, f"the policy does not take {kind.name.lower()} evidence")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a genuine quote says of its machine."""

    pcr_bitmap: int
    pcr_digest: bytes
    firmware: int  # as the TPM's maker numbers it
    logs: Logs | Refused | None = None  # why there are none that can be used; None: nobody has asked for them


def judge_quote(policy: Policy, at: datetime, measured: Measured) -> tuple[str, ...]:
    """Compare a quote with the reference values (checks 12 and 13): the warnings.

    Raises:
        Refused: FIRMWARE, PCR_SELECTION or PCR_MISMATCH, in this order; LOG_MISSING, or why a log cannot be used.
    """
    compared = _judge(policy, at, lambda references: compare_quote(references, measured))
    return (*compared, *_judge_missing(policy, measured))


def meets_rules(policy: Policy, at: datetime, measured: Measured) -> bool:
    """Whether the policy has rules about the boot log, and they are met, whatever the mode; or earlier ones that still pass."""
    if not isinstance(measured.logs, Logs):
        return False
    passing = (policy.references, *(one.references for one in policy.in_grace(at)))
    return any(one.digest_rules and _has_logs(one, measured) and compare_quote(one, measured) is None for one in passing)


def wants_logs(policy: Policy, at: datetime) -> bool:
    """Whether anything is to be decided by logs."""
    if not (policy.digest_rules or policy.file_rule or policy.missing_log or policy.earlier):
        return False  # most policies
    passing = (policy.references, *(one.references for one in policy.in_grace(at)))
    return policy.without_log is not MissingLog.ALLOW or any(one.has_rules for one in passing)


def file_rules(policy: Policy, at: datetime) -> tuple[DigestRule, ...]:
    """All rules about files by which somebody may pass now, each once."""
    passing = (policy.references, *(one.references for one in policy.in_grace(at)))
    return tuple(dict.fromkeys(one.file_rule for one in passing if one.file_rule is not None))


def _has_logs(references: References, measured: Measured) -> bool:
    """Whether there are logs for all rules."""
    return isinstance(measured.logs, Logs) and (references.file_rule is None or measured.logs.files is not None)


def _judge_missing(policy: Policy, measured: Measured) -> tuple[str, ...]:
    """What a log that is missing leads to."""
    if policy.strictness is Mode.LEARN or measured.logs is None or _has_logs(policy.references, measured):
        return ()
    found = measured.logs if isinstance(measured.logs, Refused) else Refused(Reason.LOG_MISSING, "no list of files was sent")
    if policy.without_log is MissingLog.REFUSE and policy.mode is Mode.ENFORCE:
        raise found
    return () if policy.without_log is MissingLog.ALLOW else (str(found),)


def compare_quote(references: References, measured: Measured) -> Refused | None:
    """What is wrong with a quote by one set of reference values, if anything is. Without logs, rules about them say nothing."""
    return (
        _compare_firmware(references, measured.firmware) or _compare_pcrs(references, measured)
        or _compare_logs(references, measured)
    )


def _compare_logs(references: References, measured: Measured) -> Refused | None:
    """Check 13, the rules. What stands in a log counts only where its PCR was quoted."""
    logs = measured.logs
    if not isinstance(logs, Logs):
        return None
    for rule in references.digest_rules:
        if not measured.pcr_bitmap >> rule.pcr & 1:
            return Refused(Reason.PCR_SELECTION, f"PCR {rule.pcr} was not quoted, and there is a rule about it")
        if broken := logs.broken(rule):
            return Refused(Reason.PCR_MISMATCH, broken)
    if references.file_rule is not None and (broken := logs.broken_by_files(references.file_rule) or ""):
        return Refused(Reason.PCR_MISMATCH, broken)
    return None


def _compare_firmware(references: References, firmware: int) -> Refused | None:
    """Check 12."""
    if any(floor.is_too_old(firmware) for floor in references.firmware_floors):
        return Refused(Reason.FIRMWARE, f"the TPM's firmware {firmware:016x} is too old")
    return None


def _compare_pcrs(references: References, measured: Measured) -> Refused | None:
    """Check 13, the digests."""
    if not references.has_tpm_references:
        return Refused(Reason.PCR_MISMATCH, "the policy holds neither PCR digests nor rules about logs")
    if measured.pcr_bitmap != references.pcr_bitmap:
        wanted = references.pcr_bitmap
        return Refused(Reason.PCR_SELECTION, f"PCRs {measured.pcr_bitmap:#x} where {wanted:#x} are wanted")
    if references.pcr_digests and measured.pcr_digest not in references.pcr_digests:
        return Refused(Reason.PCR_MISMATCH, f"PCR digest {measured.pcr_digest.hex()} over PCR {_list(measured.pcr_bitmap)}")
    return None


def _list(bitmap: int) -> str:
    return " ".join(str(pcr) for pcr in range(PCRS) if bitmap >> pcr & 1) or "none"


def judge_manifest(policy: Policy, at: datetime, claims: Claims) -> tuple[str, ...]:
    """Compare software evidence with the listed packages: the warnings, or Refused(SOFTWARE_MISMATCH)."""
    return _judge(policy, at, lambda references: _compare_manifest(references, claims.manifest))


def _compare_manifest(references: References, manifest: bytes) -> Refused | None:
    if not references.manifests:
        return Refused(Reason.SOFTWARE_MISMATCH, "the policy holds no package manifests")
    if manifest not in references.manifests:
        return Refused(Reason.SOFTWARE_MISMATCH, f"package manifest {manifest.hex()}")
    return None


def check_level(policy: Policy, level: int, roles: Sequence[str] = ()) -> None:
    """Raises Refused(LEVEL_TOO_LOW): below what every node needs, or what a node with one of these roles does."""
    if level < policy.minimum_level:
        raise Refused(Reason.LEVEL_TOO_LOW, f"level {level} where {policy.minimum_level} is wanted")
    for role in roles:
        need = policy.needs.role(role)
        if need is not None and level < need.level:
            raise Refused(Reason.LEVEL_TOO_LOW, f"level {level} where {need.level} is wanted of the role {role}")


def _judge(policy: Policy, at: datetime, compare: Callable[[References], Refused | None]) -> tuple[str, ...]:
    """What a mismatch leads to: nothing, a warning, or a refusal."""
    if policy.strictness is Mode.LEARN:
        return ()
    found = compare(policy.references)
    if found is None:
        return ()
    for one in policy.in_grace(at):
        if one.mode is not Mode.ENFORCE or compare(one.references) is None:
            return (f"{found}; it passes until {show_time(datetime.fromtimestamp(one.until, UTC))}",)
    if policy.mode is Mode.WARN:
        return (str(found),)
    raise found
