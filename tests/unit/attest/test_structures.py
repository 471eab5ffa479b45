"""The signature's form, and the reader."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.structures import EcdsaSignature, Reader, pack_selection
from overlay.core.keys import P256_ORDER
from overlay.errors import Refused
from overlay.registry import Reason

GOOD = EcdsaSignature(bytes(range(64))).pack()


def test_a_signature_comes_back_as_it_went() -> None:
    assert EcdsaSignature.parse(GOOD).raw == bytes(range(64))
    assert GOOD[:6] == bytes.fromhex("0018000b0020")


def test_a_high_s_is_lowered() -> None:
    high = (P256_ORDER - 5).to_bytes(32, "big")
    assert EcdsaSignature.lowered(b"\x07", high).raw == bytes(31) + b"\x07" + bytes(31) + b"\x05"
    assert EcdsaSignature.lowered(b"\x07", b"\x05").raw == bytes(31) + b"\x07" + bytes(31) + b"\x05"


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\0",
        b"\x00\x14" + GOOD[2:],  # RSASSA
        GOOD[:2] + b"\x00\x0c" + GOOD[4:],  # SHA-384
        GOOD[:4] + b"\x00\x1f" + GOOD[6:37] + b"\x00\x21" + GOOD[37:38] + GOOD[40:],  # r of 31 bytes, s of 33
    ],
)
def test_a_signature_of_another_form_is_refused(bad: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        EcdsaSignature.parse(bad)
    assert refusal.value.reason is Reason.EVIDENCE_SIGNATURE


@given(st.binary(min_size=60, max_size=80))
def test_any_bytes_are_a_signature_or_refused(data: bytes) -> None:
    with suppress(Refused):
        assert EcdsaSignature.parse(data).pack() == data


def test_a_selection_has_pcr_0_in_the_lowest_bit_of_its_first_byte() -> None:
    assert pack_selection(1 << 0 | 1 << 14) == bytes.fromhex("00000001000b03014000")


def test_a_reader_refuses_to_go_past_the_end() -> None:
    with pytest.raises(Refused) as refusal:
        Reader(b"\x00\x05abc", "field").sized()
    assert refusal.value.reason is Reason.BAD_EVIDENCE
