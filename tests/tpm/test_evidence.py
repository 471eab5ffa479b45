"""Evidence of a real TPM 2.0 (swtpm), from enrolment to the verdict."""

from dataclasses import replace

import pytest

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from attest.appraiser import PolicyAppraiser
from attest.credential import make_credential
from attest.enrol import check_request
from attest.evidence import parse_claims
from attest.key_blob import KeyBlob
from attest.tpm import Tpm
from attest.tpm_keys import TpmIdentitySigner, TpmProver, show_tpm
from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificate_request import build_request, verify_request
from overlay.core.evidence import Prover
from overlay.core.policy import Mode, Policy
from overlay.core.policy_file import parse_policy_toml
from overlay.core.policy_parts import FirmwareFloor
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import sha256
from overlay.errors import LocalProtocolError, OverlayError, Refused
from overlay.net.system import wall_clock
from overlay.registry import EvidenceKind, Reason
from tests.tpm.conftest import Swtpm
from tests.unit.attest.software_tpm import PCR_14, a_binding, a_peer, software_claims, tpm_claims

pytestmark = pytest.mark.tpm


def enrol(tpm: Tpm, ak: KeyBlob) -> VerifiedPeer:
    """What a signer would put into the certificate, once the TPM has opened the credential."""
    identity = tpm.create_identity_key()
    csr = build_request(TpmIdentitySigner(tpm, identity), "bob")
    checked = check_request(show_tpm(tpm, ak=ak, identity=identity, request=csr), csr, verify_request(csr).identity)
    secret = sha256(b"secret")
    assert tpm.activate(ak, make_credential(checked.ek, checked.ak_name, secret)) == secret
    return a_peer(LeafFacts(level=2, ak_name=checked.ak_name, ak_qualified_name=checked.ak_qualified_name))


def policy(*values: bytes) -> Policy:
    """Enforces these values of PCR 14."""
    return Policy(version=2, mode=Mode.ENFORCE, pcr_bitmap=PCR_14, pcr_digests=tuple(map(sha256, values)))


def test_a_tpm_enrols_proves_itself_and_is_gone_when_its_measurements_drift(tpm: Tpm) -> None:
    tpm.extend_pcr(14, sha256(b"package"))
    ak = tpm.create_attestation_key()
    peer, appraiser = enrol(tpm, ak), PolicyAppraiser(lambda: policy(sha256(bytes(32), sha256(b"package"))), wall_clock)
    prover: Prover = TpmProver(tpm=tpm, ak=ak, claims=tpm_claims())
    assert prover.kind is EvidenceKind.TPM
    bindings = [a_binding(number) for number in range(5)]
    previous = None
    for evidence, binding in zip(prover.prove(bindings), bindings, strict=True):
        previous = appraiser.appraise(evidence, binding, peer, previous)
        assert previous.level == 2
    tpm.extend_pcr(14, sha256(b"something else"))
    with pytest.raises(Refused) as refusal:
        appraiser.appraise(prover.prove([a_binding()])[0], a_binding(), peer, previous)
    assert refusal.value.reason is Reason.PCR_MISMATCH


def test_a_tpm_says_in_its_quote_which_firmware_it_has_and_too_old_firmware_is_refused(tpm: Tpm) -> None:
    ak = tpm.create_attestation_key()
    peer, prover = enrol(tpm, ak), TpmProver(tpm=tpm, ak=ak, claims=tpm_claims())
    text = f'version = 2\nfirmware_floors = [{{ floor = "{tpm.describe().firmware}" }}]'
    own = parse_policy_toml(text).firmware_floors[0].floor
    at_floor = replace(policy(bytes(32)), firmware_floors=(FirmwareFloor(own),))
    above = replace(at_floor, firmware_floors=(FirmwareFloor(own + 1),))
    assert own > 0
    PolicyAppraiser(lambda: at_floor, wall_clock).appraise(prover.prove([a_binding()])[0], a_binding(), peer, None)
    with pytest.raises(Refused) as refusal:
        PolicyAppraiser(lambda: above, wall_clock).appraise(prover.prove([a_binding()])[0], a_binding(), peer, None)
    assert refusal.value.reason is Reason.FIRMWARE


def test_the_clock_goes_on_over_a_restart_and_an_old_state_is_noticed(tpm: Tpm, swtpm: Swtpm) -> None:
    ak = tpm.create_attestation_key()
    peer, appraiser = enrol(tpm, ak), PolicyAppraiser(Policy.default, wall_clock)
    prover = TpmProver(tpm=tpm, ak=ak, claims=tpm_claims())
    before = appraiser.appraise(prover.prove([a_binding()])[0], a_binding(), peer, None)
    swtpm.stop()
    swtpm.start()
    after = appraiser.appraise(prover.prove([a_binding()])[0], a_binding(), peer, before)
    assert after.clock is not None
    assert before.clock is not None
    assert after.clock[0] == before.clock[0] + 1
    rolled_back = replace(before, clock=(after.clock[0] + 1, 0, 0))
    with pytest.raises(Refused) as refusal:
        appraiser.appraise(prover.prove([a_binding()])[0], a_binding(), peer, rolled_back)
    assert refusal.value.reason is Reason.TPM_CLOCK


def test_a_request_shown_for_another_csr_is_refused(tpm: Tpm) -> None:
    ak, identity = tpm.create_attestation_key(), tpm.create_identity_key()
    signer = TpmIdentitySigner(tpm, identity)
    csr, other = build_request(signer, "bob"), build_request(signer, "mallory")
    with pytest.raises(Refused) as refusal:
        check_request(show_tpm(tpm, ak=ak, identity=identity, request=csr), other, verify_request(other).identity)
    assert refusal.value.reason is Reason.EVIDENCE_NOT_BOUND


def test_an_unrestricted_key_is_no_attestation_key_whatever_it_signs(tpm: Tpm) -> None:
    """An identity key can sign anything, so also a made-up quote."""
    ak, identity = tpm.create_attestation_key(), tpm.create_identity_key()
    signer = TpmIdentitySigner(tpm, identity)
    csr = build_request(signer, "bob")
    shown = show_tpm(tpm, ak=ak, identity=identity, request=csr)
    with pytest.raises(Refused) as refusal:
        check_request(replace(shown, ak_public=identity.public), csr, verify_request(csr).identity)
    assert refusal.value.reason is Reason.BAD_EVIDENCE


def test_a_credential_for_another_key_does_not_open(tpm: Tpm) -> None:
    ak, other, identity = tpm.create_attestation_key(), tpm.create_attestation_key(), tpm.create_identity_key()
    csr = build_request(TpmIdentitySigner(tpm, identity), "bob")
    checked = check_request(show_tpm(tpm, ak=ak, identity=identity, request=csr), csr, verify_request(csr).identity)
    with pytest.raises(OverlayError):
        tpm.activate(other, make_credential(checked.ek, checked.ak_name, bytes(32)))


def test_a_boot_log_that_grows_under_a_quote_is_quoted_again(tpm: Tpm) -> None:
    """The quote vouches for the hash of a log that is at least as long as what was quoted."""
    found = iter([sha256(b"short"), sha256(b"longer"), sha256(b"longer"), sha256(b"longer")])
    prover = TpmProver(tpm=tpm, ak=tpm.create_attestation_key(), claims=tpm_claims(), logs=lambda: next(found))
    (evidence,) = prover.prove([a_binding()])
    assert parse_claims(evidence.claims).boot_log_hash == sha256(b"longer")
    assert next(found, None) is None


def test_a_prover_states_its_own_kind_only(tpm: Tpm) -> None:
    with pytest.raises(LocalProtocolError):
        TpmProver(tpm=tpm, ak=tpm.create_attestation_key(), claims=software_claims())
