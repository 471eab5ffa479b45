"""The TPM actor against a real TPM 2.0 (swtpm): keys, quotes, outages, slots."""

import threading
from contextlib import suppress

import pytest

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.TSS2_Exception import TSS2_Exception

from attest.areas import Attributes, parse_area
from attest.enrol import attestation_qualified_name
from attest.key_blob import KeyBlob
from attest.quote import check_signature, parse_quote
from attest.tpm import Tpm
from attest.tpm_keys import TpmIdentitySigner
from overlay.core.certificate_request import build_request, verify_request
from overlay.core.keys import IdentityKey, verify_p256
from overlay.core.wire import sha256
from overlay.errors import HostLacks, LocalProtocolError, OverlayError, Refused
from tests.tpm.conftest import Swtpm

pytestmark = pytest.mark.tpm

DATA = sha256(b"qualifying data")
PCR_14 = 1 << 14


def test_it_says_what_it_is(tpm: Tpm) -> None:
    facts = tpm.describe()
    assert facts.emulated
    assert "SW" in facts.model
    assert facts.firmware.count(".") == 3


def test_where_no_tpm_answers_the_host_lacks_one(swtpm: Swtpm) -> None:
    swtpm.stop()
    with pytest.raises(HostLacks) as error:
        Tpm.open(swtpm.tcti, timeout=20)
    assert error.value.hint


@pytest.mark.parametrize("tcti", ["nonsense", "device:/dev/null/none", ""])
def test_a_device_that_is_none_is_said_to_be_lacking(tcti: str) -> None:
    with pytest.raises(HostLacks):
        Tpm.open(tcti, timeout=20)


def test_a_quote_of_an_attestation_key_is_signed_by_it_and_says_so(tpm: Tpm) -> None:
    ak = tpm.create_attestation_key()
    attested, signature = tpm.quote(ak, DATA, PCR_14)
    assert (len(attested), len(signature), len(ak.public)) == (145, 72, 88)
    check_signature(ak.area, attested, signature)
    quote = parse_quote(attested)
    assert quote.header.extra_data == DATA
    assert quote.header.qualified_signer == attestation_qualified_name(parse_area(tpm.endorsement_public()), ak.area)
    assert quote.pcr_digest == sha256(bytes(32))


def test_every_signature_has_a_low_s(tpm: Tpm) -> None:
    ak, identity = tpm.create_attestation_key(), tpm.create_identity_key()
    for number in range(12):
        attested, signature = tpm.quote(ak, bytes([number]), 0)
        check_signature(ak.area, attested, signature)
        verify_p256(identity.area.point, tpm.sign(identity, sha256(bytes([number]))), bytes([number]))


def test_the_keys_are_of_their_kinds(tpm: Tpm) -> None:
    assert tpm.create_attestation_key().area.is_kind(Attributes.RESTRICTED | Attributes.SIGN)
    assert tpm.create_identity_key().area.is_kind(Attributes.SIGN)
    assert tpm.create_identity_key() != tpm.create_identity_key()


def test_an_attestation_key_signs_nothing_that_looks_like_a_quote(tpm: Tpm) -> None:
    ak = tpm.create_attestation_key()
    with pytest.raises(OverlayError):
        tpm.sign(KeyBlob(private=ak.private, public=ak.public), DATA)


def test_an_identity_key_is_a_signer_for_requests(tpm: Tpm) -> None:
    signer = TpmIdentitySigner(tpm, tpm.create_identity_key())
    request = verify_request(build_request(signer, "alice"))
    assert request.name == "alice"
    assert request.identity == IdentityKey.parse(signer.spki)


def test_an_extended_pcr_shows_in_the_next_quote(tpm: Tpm) -> None:
    ak = tpm.create_attestation_key()
    before = parse_quote(tpm.quote(ak, DATA, PCR_14)[0]).pcr_digest
    tpm.extend_pcr(14, sha256(b"measured"))
    assert tpm.read_pcr(14) == sha256(bytes(32), sha256(b"measured"))
    after = parse_quote(tpm.quote(ak, DATA, PCR_14)[0]).pcr_digest
    assert after == sha256(tpm.read_pcr(14)) != before


def test_a_hundred_commands_leave_nothing_in_the_few_slots(tpm: Tpm) -> None:
    ak, identity = tpm.create_attestation_key(), tpm.create_identity_key()
    for number in range(25):
        tpm.quote(ak, bytes([number]), PCR_14)
        tpm.sign(identity, DATA)
        tpm.certify(ak, identity, DATA)
        with suppress(OverlayError):
            tpm.sign(ak, DATA)


def test_threads_may_share_it(tpm: Tpm) -> None:
    ak, found = tpm.create_attestation_key(), []
    callers = [threading.Thread(target=lambda: found.append(tpm.quote(ak, DATA, PCR_14))) for _ in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 16
    for attested, signature in found:
        check_signature(ak.area, attested, signature)


def test_two_users_may_share_an_emulator(tpm: Tpm, swtpm: Swtpm) -> None:
    ak = tpm.create_attestation_key()
    with Tpm.open(swtpm.tcti, timeout=20) as other:
        other.extend_pcr(14, DATA)
        assert parse_quote(tpm.quote(ak, DATA, PCR_14)[0]).pcr_digest == sha256(other.read_pcr(14))


def test_an_outage_is_an_error_with_a_hint_and_then_it_goes_on(tpm: Tpm, swtpm: Swtpm) -> None:
    ak = tpm.create_attestation_key()
    first = parse_quote(tpm.quote(ak, DATA, PCR_14)[0]).header.clock
    swtpm.stop()
    for _ in range(2):
        with pytest.raises(OverlayError) as error:
            tpm.quote(ak, DATA, PCR_14)
        assert error.value.hint
    swtpm.start()
    again = parse_quote(tpm.quote(ak, DATA, PCR_14)[0]).header.clock
    assert again[0] == first[0] + 1


def test_a_restart_between_two_commands_is_not_noticed(tpm: Tpm, swtpm: Swtpm) -> None:
    identity = tpm.create_identity_key()
    swtpm.stop()
    swtpm.start()
    verify_p256(identity.area.point, tpm.sign(identity, sha256(b"data")), b"data")


def test_keys_of_another_tpm_are_refused_with_a_hint(tpm: Tpm) -> None:
    identity = tpm.create_identity_key()
    broken = KeyBlob(private=identity.private[:-1] + bytes([identity.private[-1] ^ 1]), public=identity.public)
    with pytest.raises(OverlayError) as error:
        tpm.sign(broken, DATA)
    assert "enrolled again" in error.value.hint


def test_what_a_killed_process_left_is_flushed_where_the_tpm_is_ours(swtpm: Swtpm) -> None:
    leaky = ESAPI(swtpm.tcti)
    for _ in range(3):
        leaky.create_primary(None, "ecc")
    leaky.close()
    with Tpm.open(swtpm.tcti, timeout=20) as shared, pytest.raises(OverlayError):
        shared.create_identity_key()
    with Tpm.open(swtpm.tcti, ours=True, timeout=20) as own:
        own.create_identity_key()


def test_arguments_that_no_tpm_takes_are_our_own_fault(tpm: Tpm) -> None:
    ak = tpm.create_attestation_key()
    for wrong in (
        lambda: tpm.quote(ak, bytes(33), 0),
        lambda: tpm.quote(ak, DATA, 1 << 24),
        lambda: tpm.extend_pcr(14, b"short"),
        lambda: tpm.extend_pcr(24, DATA),
        lambda: tpm.read_pcr(24),
    ):
        with pytest.raises(LocalProtocolError):
            wrong()
    with pytest.raises(Refused):
        check_signature(ak.area, b"nothing", bytes(72))


def test_a_closed_tpm_says_so(swtpm: Swtpm) -> None:
    tpm = Tpm.open(swtpm.tcti, timeout=20)
    tpm.close()
    tpm.close()
    with pytest.raises(LocalProtocolError):
        tpm.describe()


def test_a_busy_tpm_is_asked_again(tpm: Tpm) -> None:
    answers = [TSS2_Exception(0x922), TSS2_Exception(0x90A)]

    def command(_: ESAPI) -> str:
        if answers:
            raise answers.pop()
        return "done"

    assert tpm._run(command) == "done"


def test_a_tpm_that_does_not_answer_is_given_up(swtpm: Swtpm) -> None:
    with Tpm(swtpm.tcti, timeout=0.05) as tpm:
        release = threading.Event()
        with pytest.raises(OverlayError, match="did not answer"):
            tpm._run(lambda _: release.wait(20))
        release.set()


def test_a_measurement_is_not_tried_twice(tpm: Tpm, swtpm: Swtpm) -> None:
    """The answer may have been lost after the TPM had done it."""
    tries = []

    def command(_: ESAPI) -> None:
        tries.append(1)
        raise TSS2_Exception(0xA000A)

    with pytest.raises(OverlayError, match="cannot talk"):
        tpm._run(command, again=False)
    assert len(tries) == 1
    with pytest.raises(OverlayError, match="cannot talk"):
        tpm._run(command)
    assert len(tries) == 3


def test_a_hierarchy_with_a_password_is_named(tpm: Tpm) -> None:
    def command(_: ESAPI) -> None:
        raise TSS2_Exception(0x9A2)

    with pytest.raises(OverlayError) as error:
        tpm._run(command)
    assert "password" in error.value.hint
