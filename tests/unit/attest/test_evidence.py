"""Claims: their one encoding, and what is refused."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.evidence import Claims, parse_claims
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import EvidenceKind, Reason
from tests.unit.attest.software_tpm import tpm_claims


@pytest.mark.parametrize("claims", [tpm_claims(), replace(tpm_claims(), boot_log_hash=bytes(32))])
def test_claims_come_back_as_they_went(claims: Claims) -> None:
    assert parse_claims(claims.pack()) == claims


def test_the_fields_of_claims_stand_at_their_numbers() -> None:
    claims = Claims(software_version="1", policy_version=2, kind=EvidenceKind.TPM, pcr_bitmap=5, manifest=bytes(32))
    assert claims.pack() == b"\xa6\x00\x01\x01\x611\x02\x02\x03\x02\x05\x05\x06\x58\x20" + bytes(32)


def test_an_unknown_kind_of_evidence_is_not_accepted() -> None:
    with pytest.raises(Refused) as refusal:
        parse_claims(make_map("1", 1, 3, None, 0, bytes(32)))
    assert refusal.value.reason is Reason.EVIDENCE_NOT_ACCEPTED


def test_claims_that_are_too_large_are_refused() -> None:
    with pytest.raises(Refused) as refusal:
        parse_claims(bytes(1025))
    assert refusal.value.reason is Reason.TOO_LARGE


@given(st.binary(max_size=200))
def test_any_bytes_are_claims_or_refused(data: bytes) -> None:
    with suppress(Refused):
        assert parse_claims(data).pack() == data
