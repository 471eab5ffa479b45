"""The appraiser: evidence, certificate, policy and the last appraisal, put together."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.appraiser import PolicyAppraiser
from attest.software import SoftwareProver
from overlay.core.certificate_profile import LeafFacts
from overlay.core.evidence import Appraisal, Appraiser, Evidence
from overlay.core.policy import Attestation, Mode, Policy
from overlay.core.policy_parts import Earlier, FirmwareFloor, Need, Needs
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import EvidenceKind, Reason
from tests.unit.attest.software_tpm import (
    AK,
    AK_QUALIFIED,
    GOOD_PCRS,
    MESH,
    MESSAGE,
    NOW,
    PCR_14,
    SOFTWARE_PEER,
    TPM_PEER,
    Machine,
    a_binding,
    a_peer,
    software_claims,
    tpm_claims,
)

STRICT = Policy(
    version=2, mode=Mode.ENFORCE, pcr_bitmap=PCR_14, pcr_digests=(GOOD_PCRS,), manifests=(software_claims().manifest,)
)
PROVER = SoftwareProver(signer=MESSAGE, kid=SOFTWARE_PEER.kid, mesh_id=MESH, claims=software_claims())


def appraise(
    evidence: Evidence, peer: VerifiedPeer = TPM_PEER, policy: Policy = STRICT, previous: Appraisal | None = None
) -> Appraisal:
    appraiser: Appraiser = PolicyAppraiser(lambda: policy, lambda: NOW)
    return appraiser.appraise(evidence, a_binding(), peer, previous)


def quoted(machine: Machine | None = None) -> Evidence:
    return (machine or Machine()).evidence(a_binding())


def signed(prover: SoftwareProver = PROVER) -> Evidence:
    return prover.prove([a_binding()])[0]


def refusal_of(evidence: Evidence, **others: object) -> Reason:
    with pytest.raises(Refused) as refusal:
        appraise(evidence, **others)  # type: ignore[arg-type]
    return refusal.value.reason


def test_a_good_quote_gives_level_two_and_what_to_remember() -> None:
    assert appraise(quoted()) == Appraisal(
        level=2, kind=EvidenceKind.TPM, software_version="0.1", pcr_digest=GOOD_PCRS, clock=(3, 1, 5_000)
    )


def test_good_software_evidence_gives_level_one() -> None:
    found = appraise(signed(), SOFTWARE_PEER)
    assert found == Appraisal(level=1, kind=EvidenceKind.SOFTWARE, software_version="0.1")


def test_other_measurements_are_refused() -> None:
    assert refusal_of(quoted(Machine(pcr_digest=sha256(b"drifted")))) is Reason.PCR_MISMATCH


def test_a_tpm_with_firmware_below_the_floor_is_refused() -> None:
    policy = replace(STRICT, firmware_floors=(FirmwareFloor(7),))
    assert refusal_of(quoted(Machine(firmware=6)), policy=policy) is Reason.FIRMWARE
    assert appraise(quoted(Machine(firmware=7)), policy=policy).level == 2


def test_measurements_of_before_pass_by_the_appraisers_clock() -> None:
    now, end = [NOW], int(NOW.timestamp()) + 60
    policy = replace(STRICT, pcr_digests=(sha256(b"new"),), earlier=(Earlier(end, Mode.ENFORCE, STRICT.references),))
    appraiser = PolicyAppraiser(lambda: policy, lambda: now[0])
    assert "passes until" in appraiser.appraise(quoted(), a_binding(), TPM_PEER, None).warnings[0]
    now[0] = datetime.fromtimestamp(end, UTC)
    with pytest.raises(Refused) as refusal:
        appraiser.appraise(quoted(), a_binding(), TPM_PEER, None)
    assert refusal.value.reason is Reason.PCR_MISMATCH


def test_a_role_that_needs_more_is_refused_at_a_lower_level() -> None:
    policy = replace(Policy.default(), needs=Needs(roles=(Need("worker", 3),)))
    worker = a_peer(replace(TPM_PEER.certificate.facts, roles=("worker",)))
    assert refusal_of(quoted(), peer=worker, policy=policy) is Reason.LEVEL_TOO_LOW
    assert appraise(quoted(), policy=policy).level == 2


def test_other_pcrs_than_the_policys_are_refused() -> None:
    machine = Machine(selection=bytes.fromhex("00000001000b03000000"))
    assert refusal_of(machine.evidence(a_binding(), claims=tpm_claims(0).pack())) is Reason.PCR_SELECTION


def test_other_pcrs_than_the_claimed_ones_are_refused_in_every_mode() -> None:
    evidence = Machine().evidence(a_binding(), claims=tpm_claims(PCR_14 | 1).pack())
    assert refusal_of(evidence, policy=Policy.default()) is Reason.PCR_SELECTION


def test_warn_lets_pass_and_says_what_it_found() -> None:
    found = appraise(quoted(Machine(pcr_digest=sha256(b"drifted"))), policy=replace(STRICT, mode=Mode.WARN))
    assert found.level == 2
    assert found.warnings[0].startswith("pcr mismatch: ")


def test_enforce_without_reference_values_refuses_tpm_evidence() -> None:
    assert refusal_of(quoted(), policy=Policy(version=2, mode=Mode.ENFORCE)) is Reason.PCR_MISMATCH


def test_the_first_policy_lets_first_nodes_in() -> None:
    assert appraise(quoted(), policy=Policy.default()).level == 2
    assert appraise(signed(), SOFTWARE_PEER, Policy.default()).level == 1


def test_off_compares_nothing_but_still_wants_genuine_evidence() -> None:
    off = replace(STRICT, attestation=Attestation.OFF)
    assert appraise(quoted(Machine(pcr_digest=bytes(32))), policy=off).level == 2
    forged = replace(quoted(), signature=AK.sign(b"something else"))
    assert refusal_of(forged, policy=off) is Reason.EVIDENCE_SIGNATURE


def test_require_refuses_software_evidence() -> None:
    require = replace(STRICT, attestation=Attestation.REQUIRE)
    assert PolicyAppraiser(lambda: require, lambda: NOW).accepted == (EvidenceKind.TPM,)
    assert refusal_of(signed(), peer=SOFTWARE_PEER, policy=require) is Reason.EVIDENCE_NOT_ACCEPTED


def test_a_node_with_a_tpm_that_shows_software_evidence_is_refused() -> None:
    assert refusal_of(signed(), peer=TPM_PEER) is Reason.ATTESTATION_KEY_MISMATCH


def test_a_node_without_a_tpm_that_shows_a_quote_is_refused() -> None:
    assert refusal_of(quoted(), peer=SOFTWARE_PEER) is Reason.ATTESTATION_KEY_MISMATCH


def test_an_edited_package_is_refused() -> None:
    edited = replace(PROVER, claims=replace(software_claims(), manifest=sha256(b"one byte changed")))
    assert refusal_of(signed(edited), peer=SOFTWARE_PEER) is Reason.SOFTWARE_MISMATCH


def test_a_quote_that_calls_itself_software_evidence_is_refused() -> None:
    evidence = Machine().evidence(a_binding(), claims=software_claims().pack())
    assert refusal_of(evidence, peer=SOFTWARE_PEER) is Reason.BAD_EVIDENCE


def test_a_level_below_the_policys_is_refused() -> None:
    strict = replace(STRICT, minimum_level=2)
    assert refusal_of(signed(), peer=SOFTWARE_PEER, policy=strict) is Reason.LEVEL_TOO_LOW
    low = a_peer(LeafFacts(level=1, ak_name=AK.area.name, ak_qualified_name=AK_QUALIFIED))
    assert refusal_of(quoted(), peer=low, policy=strict) is Reason.LEVEL_TOO_LOW


def test_a_tpm_that_counts_down_is_refused() -> None:
    later = appraise(quoted(Machine(clock=(3, 1, 6_000))))
    assert refusal_of(quoted(), previous=later) is Reason.TPM_CLOCK
    assert appraise(quoted(), previous=replace(later, clock=None)).level == 2


def test_a_new_policy_holds_at_once() -> None:
    policies = [STRICT, replace(STRICT, pcr_digests=(bytes(32),))]
    appraiser = PolicyAppraiser(lambda: policies[0], lambda: NOW)
    appraiser.appraise(quoted(), a_binding(), TPM_PEER, None)
    policies.pop(0)
    with pytest.raises(Refused):
        appraiser.appraise(quoted(), a_binding(), TPM_PEER, None)


@given(st.binary(max_size=100), st.binary(max_size=200))
def test_any_bytes_are_refused(claims: bytes, quote: bytes) -> None:
    for peer in (TPM_PEER, SOFTWARE_PEER):
        assert isinstance(refusal_of(replace(quoted(), claims=claims, quote=quote), peer=peer), Reason)
        assert isinstance(refusal_of(replace(signed(), claims=claims), peer=peer), Reason)
