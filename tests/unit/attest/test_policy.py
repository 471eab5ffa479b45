"""What the policy makes of genuine evidence: kinds, modes, reference values, levels."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from attest.levels import level_of
from attest.policy import Measured, accepted_kinds, check_kind, check_level, judge_manifest, judge_quote
from overlay.core.certificate_profile import LeafFacts
from overlay.core.policy import Attestation, Mode, Policy
from overlay.core.policy_parts import Earlier, FirmwareFloor, Need, Needs, References
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import EvidenceKind, Reason
from tests.unit.attest.software_tpm import AK, GOOD_PCRS, NOW, PCR_14, SOFTWARE_PEER, TPM_PEER, a_peer, software_claims

CLAIMS = software_claims()
STRICT = Policy(
    version=1, mode=Mode.ENFORCE, pcr_bitmap=PCR_14, pcr_digests=(bytes(32), GOOD_PCRS), manifests=(CLAIMS.manifest,)
)
EMPTY = Policy(version=1, mode=Mode.ENFORCE)
OTHER = sha256(b"other")


def in_mode(policy: Policy, mode: Mode) -> Policy:
    return replace(policy, mode=mode)


def test_what_the_policy_lists_passes_without_warning() -> None:
    assert judge_quote(STRICT, NOW, Measured(PCR_14, GOOD_PCRS, 0)) == ()
    assert judge_manifest(STRICT, NOW, CLAIMS) == ()


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
        judge_quote(policy, NOW, Measured(bitmap, digest, 0))
    assert refusal.value.reason is reason
    assert judge_quote(in_mode(policy, Mode.LEARN), NOW, Measured(bitmap, digest, 0)) == ()
    assert len(judge_quote(in_mode(policy, Mode.WARN), NOW, Measured(bitmap, digest, 0))) == 1
    assert judge_quote(replace(policy, attestation=Attestation.OFF), NOW, Measured(bitmap, digest, 0)) == ()


@pytest.mark.parametrize("policy", [EMPTY, replace(STRICT, manifests=(OTHER,))])
def test_enforce_refuses_a_package_that_the_policy_does_not_list(policy: Policy) -> None:
    with pytest.raises(Refused) as refusal:
        judge_manifest(policy, NOW, CLAIMS)
    assert refusal.value.reason is Reason.SOFTWARE_MISMATCH
    assert judge_manifest(in_mode(policy, Mode.LEARN), NOW, CLAIMS) == ()
    assert len(judge_manifest(in_mode(policy, Mode.WARN), NOW, CLAIMS)) == 1
    assert judge_manifest(replace(policy, attestation=Attestation.OFF), NOW, CLAIMS) == ()


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


def test_a_role_may_need_more_than_other_nodes() -> None:
    policy = replace(STRICT, minimum_level=1, needs=Needs(roles=(Need("signer", 2),)))
    check_level(policy, 1, ("operator",))
    check_level(policy, 2, ("operator", "signer"))
    with pytest.raises(Refused, match="signer") as refusal:
        check_level(policy, 1, ("operator", "signer"))
    assert refusal.value.reason is Reason.LEVEL_TOO_LOW


# --- firmware -------------------------------------------------------------------------------------------------------

FLOOR = replace(STRICT, firmware_floors=(FirmwareFloor(first=0x0007_0000, floor=0x0007_0040),))


def test_firmware_below_the_floor_is_refused() -> None:
    with pytest.raises(Refused) as refusal:
        judge_quote(FLOOR, NOW, Measured(PCR_14, GOOD_PCRS, 0x0007_003F))
    assert refusal.value.reason is Reason.FIRMWARE
    assert judge_quote(FLOOR, NOW, Measured(PCR_14, GOOD_PCRS, 0x0007_0040)) == ()
    assert judge_quote(FLOOR, NOW, Measured(PCR_14, GOOD_PCRS, 0x0006_FFFF)) == ()


def test_firmware_is_looked_at_before_the_digests() -> None:
    with pytest.raises(Refused) as refusal:
        judge_quote(FLOOR, NOW, Measured(0, OTHER, 0x0007_0000))
    assert refusal.value.reason is Reason.FIRMWARE


def test_old_firmware_is_only_told_of_where_the_mode_is_warn() -> None:
    old = Measured(PCR_14, GOOD_PCRS, 0x0007_0000)
    assert judge_quote(in_mode(FLOOR, Mode.LEARN), NOW, old) == ()
    assert "0000000000070000 is too old" in judge_quote(in_mode(FLOOR, Mode.WARN), NOW, old)[0]


# --- grace ----------------------------------------------------------------------------------------------------------

UNTIL = int(NOW.timestamp()) + 3600
END = datetime.fromtimestamp(UNTIL, UTC)
BEFORE = References(pcr_bitmap=PCR_14 | 1, pcr_digests=(OTHER,), manifests=(OTHER,), firmware_floors=(FirmwareFloor(5),))
GRACE = replace(STRICT, earlier=(Earlier(UNTIL, Mode.ENFORCE, BEFORE),))
AS_BEFORE = Measured(PCR_14 | 1, OTHER, 5)


def test_in_grace_old_and_new_pass_and_the_old_is_told_of() -> None:
    assert judge_quote(GRACE, NOW, Measured(PCR_14, GOOD_PCRS, 0)) == ()
    assert "passes until 2026-03-01T13:00:00Z" in judge_quote(GRACE, NOW, AS_BEFORE)[0]
    assert "passes until" in judge_manifest(GRACE, NOW, replace(CLAIMS, manifest=OTHER))[0]


def test_after_grace_what_was_good_before_is_refused() -> None:
    with pytest.raises(Refused) as refusal:
        judge_quote(GRACE, END, AS_BEFORE)
    assert refusal.value.reason is Reason.PCR_SELECTION
    with pytest.raises(Refused) as refusal:
        judge_manifest(GRACE, END, replace(CLAIMS, manifest=OTHER))
    assert refusal.value.reason is Reason.SOFTWARE_MISMATCH


@pytest.mark.parametrize(
    "mixed", [Measured(PCR_14 | 1, OTHER, 4), Measured(PCR_14, OTHER, 5), Measured(PCR_14 | 1, GOOD_PCRS, 5)]
)
def test_grace_is_for_what_one_policy_listed_and_not_for_a_mixture(mixed: Measured) -> None:
    with pytest.raises(Refused):
        judge_quote(GRACE, NOW, mixed)


@pytest.mark.parametrize("mode", [Mode.LEARN, Mode.WARN])
def test_whatever_passed_before_passes_in_grace_and_not_after(mode: Mode) -> None:
    policy = replace(STRICT, earlier=(Earlier(UNTIL, mode, References()),))
    assert "passes until" in judge_quote(policy, NOW, Measured(1, bytes(32), 0))[0]
    with pytest.raises(Refused):
        judge_quote(policy, END, Measured(1, bytes(32), 0))


def test_grace_does_not_lower_the_level() -> None:
    with pytest.raises(Refused):
        check_level(replace(GRACE, minimum_level=3), 2)


@pytest.mark.parametrize(
    ("kind", "certificate", "level"),
    [
        (EvidenceKind.SOFTWARE, 1, 1),
        (EvidenceKind.SOFTWARE, 0, 0),
        (EvidenceKind.TPM, 2, 2),
        (EvidenceKind.TPM, 1, 1),
        (EvidenceKind.TPM, 3, 3),
        (EvidenceKind.TPM, 4, 4),
        (EvidenceKind.TPM, 5, 4),
        (EvidenceKind.SOFTWARE, 4, 1),
    ],
)
def test_the_level_is_the_lower_of_what_is_shown_and_what_is_certified(
    kind: EvidenceKind, certificate: int, level: int
) -> None:
    assert level_of(kind, certificate) == level
