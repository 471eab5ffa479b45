"""Quotes out of files: what holds, and what does not."""

import pytest

from attest.areas import PublicArea
from attest.event_log import parse_boot_log
from attest.offline import Appraised, appraise
from attest.replay import digest_of, replay
from attest.structures import ECDSA_WITH_SHA256, EcdsaSignature, sized
from overlay.core.keys import P256_ORDER
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.attest.event_log_kit import BOOT, log
from tests.unit.attest.software_tpm import AK, PCR_14, Machine

NONCE = b"a nonce that we chose"
QUOTE = Machine().attested(NONCE)
SIGNATURE = AK.sign(QUOTE)


def check(
    attested: bytes = QUOTE, signature: bytes = SIGNATURE, key: bytes = AK.area.raw, nonce: bytes | None = NONCE
) -> Appraised:
    return appraise(attested, signature, key, nonce=nonce, boot=None, measured=None)


def reason(**changes: bytes) -> Reason:
    with pytest.raises(Refused) as error:
        check(**changes)
    return error.value.reason


def test_a_quote_that_holds_says_what_it_is_of() -> None:
    found = check()
    assert (found.bitmap, found.quote.header.extra_data, found.account) == (PCR_14, NONCE, None)
    assert isinstance(found.key, PublicArea)
    assert check(key=sized(AK.area.raw)).key == found.key


def test_a_quote_for_another_nonce_is_refused() -> None:
    assert reason(nonce=b"another one") is Reason.EVIDENCE_NOT_BOUND
    assert check(nonce=None).quote.header.extra_data == NONCE


def test_a_high_s_is_lowered_and_one_out_of_range_refused() -> None:
    raw = EcdsaSignature.parse(SIGNATURE).raw
    r, s = raw[:32], int.from_bytes(raw[32:], "big")
    high = ECDSA_WITH_SHA256 + sized(r) + sized((P256_ORDER - s).to_bytes(32, "big"))
    assert check(signature=high).bitmap == PCR_14
    for other in (P256_ORDER, P256_ORDER + s, 2**256 - 1):
        if other < 2**256:
            beyond = ECDSA_WITH_SHA256 + sized(r) + sized(other.to_bytes(32, "big"))
            assert reason(signature=beyond) is Reason.EVIDENCE_SIGNATURE
    assert reason(signature=ECDSA_WITH_SHA256 + sized(bytes(33)) + sized(r)) is Reason.EVIDENCE_SIGNATURE


def test_another_algorithm_is_refused() -> None:
    assert reason(signature=b"\0\x14" + SIGNATURE[2:]) is Reason.EVIDENCE_SIGNATURE


@pytest.mark.parametrize("place", range(0, len(SIGNATURE), 7))
def test_a_changed_signature_is_refused(place: int) -> None:
    wrong = bytearray(SIGNATURE)
    wrong[place] ^= 1
    assert reason(signature=bytes(wrong)) in (Reason.EVIDENCE_SIGNATURE, Reason.BAD_EVIDENCE)


def test_two_banks_are_refused() -> None:
    where = QUOTE.index(b"\0\0\0\x01\0\x0b\x03")
    two = QUOTE[:where] + b"\0\0\0\x02" + QUOTE[where + 4 : where + 10] + QUOTE[where + 4 :]
    assert reason(attested=two, signature=AK.sign(two)) is Reason.PCR_SELECTION
    sha1 = QUOTE[:where] + b"\0\0\0\x01\0\x04\x03" + QUOTE[where + 7 :]
    assert reason(attested=sha1, signature=AK.sign(sha1)) is Reason.PCR_SELECTION


def test_a_log_that_does_not_lead_there_is_refused() -> None:
    boot = parse_boot_log(log(*BOOT))
    with pytest.raises(Refused) as error:
        appraise(QUOTE, SIGNATURE, AK.area.raw, nonce=NONCE, boot=boot, measured=None)
    assert error.value.reason is Reason.PCR_MISMATCH
    assert digest_of(replay(boot), PCR_14) not in QUOTE
