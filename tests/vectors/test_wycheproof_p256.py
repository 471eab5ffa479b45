"""Wycheproof's ECDSA P-256 cases through `verify_p256`, which takes r || s and wants s low.

Cases that differ from a good signature only in their DER cannot be said in r || s and are left out, but counted.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from overlay.core.keys import P256_ORDER, low_s, verify_p256
from overlay.errors import Refused
from overlay.registry import Reason

pytestmark = pytest.mark.vectors

Load = Callable[[str], Any]


def cases(vectors: Load) -> Iterator[tuple[bytes, bytes, bytes, bool]]:
    """Public key, message, signature in DER, whether it is valid."""
    for group in vectors("wycheproof/ecdsa_secp256r1_sha256_test.json")["testGroups"]:
        key = bytes.fromhex(group["publicKey"]["uncompressed"])
        for case in group["tests"]:
            yield key, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]), case["result"] == "valid"


def numbers(signature: bytes) -> tuple[int, int] | None:
    """r and s, or None if they cannot be written as 32 bytes each."""
    try:
        r, s = decode_dss_signature(signature)
    except ValueError:
        return None
    fits = min(r, s) >= 0 and max(r, s) < 2**256
    return (r, s) if fits and encode_dss_signature(r, s) == signature else None


def raw(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def refuse(key: bytes, signature: bytes, message: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        verify_p256(key, signature, message)
    assert refusal.value.reason is Reason.BAD_SIGNATURE


def test_valid_signatures_pass_with_a_low_s_and_only_so(vectors: Load) -> None:
    valid = [(key, message, numbers(signature)) for key, message, signature, good in cases(vectors) if good]
    assert len(valid) == 174
    for key, message, found in valid:
        assert found is not None
        lowered = low_s(*found)
        verify_p256(key, lowered, message)
        high = P256_ORDER - int.from_bytes(lowered[32:], "big")
        refuse(key, raw(found[0], high), message)


def test_invalid_signatures_are_refused_as_they_are_and_with_a_low_s(vectors: Load) -> None:
    invalid = [(key, message, numbers(signature)) for key, message, signature, good in cases(vectors) if not good]
    assert len(invalid) == 310
    sayable = [(key, message, found) for key, message, found in invalid if found is not None]
    assert len(sayable) == 75
    for key, message, (r, s) in sayable:
        refuse(key, raw(r, s), message)
        if 0 < s < P256_ORDER:
            refuse(key, low_s(r, s), message)


def test_a_signature_of_another_length_is_refused(vectors: Load) -> None:
    key, message, signature, _ = next(case for case in cases(vectors) if case[3])
    found = numbers(signature)
    assert found is not None
    lowered = low_s(*found)
    for wrong in (b"", lowered[:-1], lowered + b"\0", signature):
        refuse(key, wrong, message)


def test_keys_that_are_no_points_are_refused(vectors: Load) -> None:
    key, message, signature, _ = next(case for case in cases(vectors) if case[3])
    found = numbers(signature)
    assert found is not None
    for wrong in (b"", b"\0", key[:-1], key[:-1] + bytes([key[-1] ^ 1]), b"\x04" + bytes(64)):
        refuse(wrong, low_s(*found), message)
