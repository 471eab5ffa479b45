"""Software evidence: signed by the message key of this link's endorsement, for this link, or refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.evidence import Proof, prove_all
from attest.software import SoftwareProver, check_software
from overlay.core.evidence import Binding, Evidence
from overlay.core.keys import Ed25519Signer
from overlay.core.wire import encode, sha256, sign1
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import EvidenceKind, Label, Reason, Role
from tests.unit.attest.software_tpm import MESH, MESSAGE, SOFTWARE_PEER, a_binding, software_claims, tpm_claims

PROVER = SoftwareProver(signer=MESSAGE, kid=SOFTWARE_PEER.kid, mesh_id=MESH, claims=software_claims())


def refusal_of(evidence: Evidence, binding: Binding | None = None) -> Reason:
    with pytest.raises(Refused) as refusal:
        check_software(evidence, binding or a_binding(), SOFTWARE_PEER)
    return refusal.value.reason


def test_it_says_what_it_makes() -> None:
    assert PROVER.kind is EvidenceKind.SOFTWARE


def shown() -> Evidence:
    return PROVER.prove([a_binding()])[0]


def test_good_evidence_passes_on_every_link() -> None:
    bindings = [a_binding(number) for number in range(5)]
    for evidence, binding in zip(PROVER.prove(bindings), bindings, strict=True):
        check_software(evidence, binding, SOFTWARE_PEER)


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(a_binding(), nonce=sha256(b"another nonce")),
        replace(a_binding(), h=sha256(b"another link or epoch")),
        replace(a_binding(), epoch=2),
        replace(a_binding(), role=Role.OTHER),
        replace(a_binding(), verifier_leaf=sha256(b"another verifier")),
        replace(a_binding(), attester_leaf=sha256(b"another attester")),
    ],
)
def test_evidence_for_something_else_is_refused(elsewhere: Binding) -> None:
    assert refusal_of(PROVER.prove([elsewhere])[0]) is Reason.EVIDENCE_NOT_BOUND


def test_other_claims_than_the_signed_ones_are_refused() -> None:
    lie = replace(software_claims(), manifest=sha256(b"other files"))
    assert refusal_of(replace(shown(), claims=lie.pack())) is Reason.EVIDENCE_NOT_BOUND


def test_a_signature_by_another_key_is_refused() -> None:
    stranger = replace(PROVER, signer=Ed25519Signer(sha256(b"stranger")))
    assert refusal_of(stranger.prove([a_binding()])[0]) is Reason.EVIDENCE_SIGNATURE


def test_a_signature_under_another_endorsement_is_refused() -> None:
    earlier = replace(PROVER, kid=sha256(b"earlier endorsement"))
    assert refusal_of(earlier.prove([a_binding()])[0]) is Reason.EVIDENCE_SIGNATURE


def test_a_signature_for_another_mesh_is_refused() -> None:
    elsewhere = replace(PROVER, mesh_id=sha256(b"other mesh"))
    assert refusal_of(elsewhere.prove([a_binding()])[0]) is Reason.EVIDENCE_SIGNATURE


def test_a_signature_for_another_purpose_is_refused() -> None:
    def prove(data: bytes) -> Proof:
        payload = encode({0: 1, 1: data})
        return Proof(quote=sign1(payload, signer=MESSAGE, aad=Label.CALL + MESH, kid=SOFTWARE_PEER.kid))

    assert refusal_of(prove_all([a_binding()], software_claims().pack(), prove)[0]) is Reason.EVIDENCE_SIGNATURE


def test_every_single_bit_of_the_signed_bytes_matters() -> None:
    evidence = shown()
    number = int.from_bytes(evidence.quote, "big")
    for bit in range(8 * len(evidence.quote)):
        flipped = (number ^ 1 << bit).to_bytes(len(evidence.quote), "big")
        assert isinstance(refusal_of(replace(evidence, quote=flipped)), Reason)


def test_parts_of_a_quote_are_refused() -> None:
    assert refusal_of(replace(shown(), ak_public=b"x")) is Reason.BAD_EVIDENCE
    assert refusal_of(replace(shown(), signature=b"x")) is Reason.BAD_EVIDENCE


def test_signed_bytes_that_are_too_large_are_refused() -> None:
    assert refusal_of(replace(shown(), quote=b"\xd2" + bytes(300))) is Reason.TOO_LARGE


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    assert isinstance(refusal_of(replace(shown(), quote=data)), Reason)


def test_a_prover_states_its_own_kind_only() -> None:
    with pytest.raises(LocalProtocolError):
        replace(PROVER, claims=tpm_claims())
