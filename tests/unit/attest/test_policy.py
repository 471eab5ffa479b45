"""What the policy makes of genuine evidence: kinds, modes, reference values, levels."""

from dataclasses import replace

import pytest

from attest.levels import level_of
from attest.policy import accepted_kinds, check_kind, check_level, judge_manifest, judge_pcrs
from overlay.core.certificate_profile import LeafFacts
from overlay.core.policy import Attestation, Mode, Policy
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import EvidenceKind, Reason
from tests.unit.attest.software_tpm import AK, GOOD_PCRS, PCR_14, SOFTWARE_PEER, TPM_PEER, a_peer, software_claims

CLAIMS = software_claims()
STRICT = Policy(
    version=1, mode=Mode.ENFORCE, pcr_bitmap=PCR_14, pcr_digests=(bytes(32), GOOD_PCRS), manifests=(CLAIMS.manifest,)
)
EMPTY = Policy(version=1, mode=Mode.ENFORCE)
OTHER = sha256(b"other")


def in_mode(policy: Policy, mode: Mode) -> Policy:
    return replace(policy, mode=mode)


def test_what_the_policy_lists_passes_without_warning() -> None:
    assert judge_pcrs(STRICT, PCR_14, GOOD_PCRS) == ()
    assert judge_manifest(STRICT, CLAIMS) == ()


@pytest.mark.parametrize(
    ("policy", "bitmap", "digest", "reason"),
    [
        (STRICT, PCR_14, OTHER, Reason.PCR_MISMATCH),
        (STRICT, PCR_14 | 1, GOOD_PCRS, Reason.PCR_SELECTION),
        (STRICT, 0, GOOD_PCRS, Reason.PCR_SELECTION),
        (EMPTY, 0, sha256(), Reason.PCR_MISMATCH),
        (EMPTY, PCR_14, GOOD_PCRS, Reason.PCR_MISMATCH),
        (replace(STRICT, pcr_bitmap=0), 0, GOOD_PCRS, Reason.PCR_MISMATCH),
        (replace(STRICT, pcr_digests=()), PCR_14, GOOD_PCRS, Reason.PCR_MISMATCH),
    ],
)
def test_enforce_refuses_what_the_policy_does_not_list(
    policy: Policy, bitmap: int, digest: bytes, reason: Reason
) -> None:
    with pytest.raises(Refused) as refusal:
        judge_pcrs(policy, bitmap, digest)
    assert refusal.value.reason is reason
    assert judge_pcrs(in_mode(policy, Mode.LEARN), bitmap, digest) == ()
    assert len(judge_pcrs(in_mode(policy, Mode.WARN), bitmap, digest)) == 1
    assert judge_pcrs(replace(policy, attestation=Attestation.OFF), bitmap, digest) == ()


@pytest.mark.parametrize("policy", [EMPTY, replace(STRICT, manifests=(OTHER,))])
def test_enforce_refuses_a_package_that_the_policy_does_not_list(policy: Policy) -> None:
    with pytest.raises(Refused) as refusal:
        judge_manifest(policy, CLAIMS)
    assert refusal.value.reason is Reason.SOFTWARE_MISMATCH
    assert judge_manifest(in_mode(policy, Mode.LEARN), CLAIMS) == ()
    assert len(judge_manifest(in_mode(policy, Mode.WARN), CLAIMS)) == 1
    assert judge_manifest(replace(policy, attestation=Attestation.OFF), CLAIMS) == ()


def test_require_takes_tpm_evidence_only() -> None:
    require = replace(STRICT, attestation=Attestation.REQUIRE)
    assert accepted_kinds(require) == (EvidenceKind.TPM,)
    check_kind(require, EvidenceKind.TPM, TPM_PEER)
    with pytest.raises(Refused) as refusal:
        check_kind(require, EvidenceKind.SOFTWARE, SOFTWARE_PEER)
    assert refusal.value.reason is Reason.EVIDENCE_NOT_ACCEPTED


@pytest.mark.parametrize("attestation", [Attestation.OFF, Attestation.PREFER])
def test_else_both_kinds_are_taken(attestation: Attestation) -> None:
    policy = replace(STRICT, attestation=attestation)
    assert set(accepted_kinds(policy)) == set(EvidenceKind)
    check_kind(policy, EvidenceKind.SOFTWARE, SOFTWARE_PEER)


@pytest.mark.parametrize("attestation", list(Attestation))
@pytest.mark.parametrize("facts", [LeafFacts(level=2), LeafFacts(level=1, ak_name=AK.area.name)])
def test_a_node_with_a_tpm_cannot_fall_back_to_software_evidence(attestation: Attestation, facts: LeafFacts) -> None:
    with pytest.raises(Refused) as refusal:
        check_kind(replace(STRICT, attestation=attestation), EvidenceKind.SOFTWARE, a_peer(facts))
    assert refusal.value.reason is Reason.ATTESTATION_KEY_MISMATCH


@pytest.mark.parametrize("mode", list(Mode))
def test_a_level_below_the_lowest_is_refused_in_every_mode(mode: Mode) -> None:
    policy = replace(STRICT, mode=mode, minimum_level=2)
    check_level(policy, 2)
    with pytest.raises(Refused) as refusal:
        check_level(policy, 1)
    assert refusal.value.reason is Reason.LEVEL_TOO_LOW


@pytest.mark.parametrize(
    ("kind", "certificate", "level"),
    [
        (EvidenceKind.SOFTWARE, 1, 1),
        (EvidenceKind.SOFTWARE, 0, 0),
        (EvidenceKind.TPM, 2, 2),
        (EvidenceKind.TPM, 1, 1),
        (EvidenceKind.TPM, 5, 2),
    ],
)
def test_the_level_is_the_lower_of_what_is_shown_and_what_is_certified(
    kind: EvidenceKind, certificate: int, level: int
) -> None:
    assert level_of(kind, certificate) == level
