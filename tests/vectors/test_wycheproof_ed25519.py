"""Wycheproof's Ed25519 cases through `verify_ed25519`."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from overlay.core.keys import verify_ed25519
from overlay.errors import Refused
from overlay.registry import Reason

pytestmark = pytest.mark.vectors

Load = Callable[[str], Any]


def cases(vectors: Load) -> Iterator[tuple[bytes, bytes, bytes, bool]]:
    """Public key, message, signature, whether it is valid."""
    for group in vectors("wycheproof/ed25519_test.json")["testGroups"]:
        key = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            yield key, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]), case["result"] == "valid"


def refuse(key: bytes, signature: bytes, message: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        verify_ed25519(key, signature, message)
    assert refusal.value.reason is Reason.BAD_SIGNATURE


def test_valid_signatures_pass(vectors: Load) -> None:
    valid = [case for case in cases(vectors) if case[3]]
    assert len(valid) == 88
    for key, message, signature, _ in valid:
        verify_ed25519(key, signature, message)


def test_invalid_signatures_are_refused(vectors: Load) -> None:
    invalid = [case for case in cases(vectors) if not case[3]]
    assert len(invalid) == 63
    for key, message, signature, _ in invalid:
        refuse(key, signature, message)


def test_keys_of_small_order_are_refused(vectors: Load) -> None:
    _, message, signature, _ = next(case for case in cases(vectors) if case[3])
    identity, order_two = b"\x01" + bytes(31), (2**255 - 20).to_bytes(32, "little")
    for key in (identity, order_two, bytes(32)):
        refuse(key, signature, message)
        refuse(key, key + bytes(32), message)
