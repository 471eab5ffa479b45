"""What the mesh's policy makes of evidence that is genuine: kinds, reference values, modes and the lowest level.

- `attestation`: `require` takes TPM evidence only; `prefer` takes both kinds; `off` takes both and compares nothing
  with reference values. Evidence is shown and bound to the link in every case: there is no way to do without.
- `mode`: `learn` compares nothing, `warn` compares and lets pass, `enforce` compares and refuses, also where the policy
  holds no reference values at all.
- Reference values are PCR digests under one bitmap for TPM evidence, package manifests for software evidence.
- `minimum_level` holds in every mode.
"""

from typing import Final

from attest.evidence import Claims
from overlay.core.policy import Attestation, Mode, Policy
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


def judge_pcrs(policy: Policy, pcr_bitmap: int, pcr_digest: bytes) -> tuple[str, ...]:
    """Compare a quote with the reference values (check 13): the warnings, or Refused(PCR_SELECTION or PCR_MISMATCH)."""
    if not policy.has_tpm_references:
        return _finding(policy, Reason.PCR_MISMATCH, "the policy holds no PCR digests")
    if pcr_bitmap != policy.pcr_bitmap:
        return _finding(policy, Reason.PCR_SELECTION, f"PCRs {pcr_bitmap:#x} where {policy.pcr_bitmap:#x} are wanted")
    if pcr_digest not in policy.pcr_digests:
        return _finding(policy, Reason.PCR_MISMATCH, f"PCR digest {pcr_digest.hex()}")
    return ()


def judge_manifest(policy: Policy, claims: Claims) -> tuple[str, ...]:
    """Compare software evidence with the listed packages: the warnings, or Refused(SOFTWARE_MISMATCH)."""
    if not policy.manifests:
        return _finding(policy, Reason.SOFTWARE_MISMATCH, "the policy holds no package manifests")
    if claims.manifest not in policy.manifests:
        return _finding(policy, Reason.SOFTWARE_MISMATCH, f"package manifest {claims.manifest.hex()}")
    return ()


def check_level(policy: Policy, level: int) -> None:
    """Raises Refused(LEVEL_TOO_LOW)."""
    if level < policy.minimum_level:
        raise Refused(Reason.LEVEL_TOO_LOW, f"level {level} where {policy.minimum_level} is wanted")


def _finding(policy: Policy, reason: Reason, detail: str) -> tuple[str, ...]:
    """What a mismatch leads to: nothing, a warning, or a refusal."""
    if policy.attestation is Attestation.OFF or policy.mode is Mode.LEARN:
        return ()
    if policy.mode is Mode.WARN:
        return (str(Refused(reason, detail)),)
    raise Refused(reason, detail)
