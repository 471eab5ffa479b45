"""COSE_Sign1 examples of the COSE working group (https://github.com/cose-wg/Examples) against our reader.

None of them is of our profile: they name their key in the unprotected header, which has to be empty here. So the reader
refuses the good ones too, and each below stands with what else of it is not ours. Taken apart by hand, their signatures
verify through the same function as ours, and the bad ones do not.
"""

from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import cbor2
import pytest

from overlay.core.wire import UnverifiedSign1, parse_sign1
from overlay.errors import Refused
from overlay.registry import COSE_EDDSA, COSE_ES256

pytestmark = pytest.mark.vectors

GOOD = {
    "eddsa-sig-01": "a content type among the protected headers",
    "sign-pass-02": "nothing else",
    "sign-pass-03": "no tag in front",
}
BAD = {
    "sign-fail-02": "a changed payload or signature",
    "sign-fail-06": "a protected attribute was added",
    "sign-fail-07": "a protected attribute was taken away",
}
NOT_OURS = {
    "eddsa-sig-02": "Ed448, for which we have no algorithm number",
    "sign-pass-01": "the algorithm stands in the unprotected header, where nobody signs it",
    "sign-fail-01": "tag 998",
    "sign-fail-03": "algorithm -999",
    "sign-fail-04": "an algorithm by name",
}
ALGORITHMS = {"EdDSA": COSE_EDDSA, "ES256": COSE_ES256}


def raw(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["output"]["cbor"])


def public_key(case: dict[str, Any]) -> bytes:
    """As our signers give it: 32 bytes, or the uncompressed point."""
    key = case["input"]["sign0"]["key"]
    if key["kty"] == "OKP":
        return bytes.fromhex(key["x_hex"])
    return b"\4" + b"".join(urlsafe_b64decode(key[name] + "=") for name in ("x", "y"))


def verify(case: dict[str, Any]) -> bytes:
    """The payload, with the signature checked by us and everything else taken as it is."""
    value = cbor2.loads(raw(case))
    protected, _, payload, signature = value.value if isinstance(value, cbor2.CBORTag) else value
    algorithm = ALGORITHMS[case["input"]["sign0"]["alg"]]
    signed = UnverifiedSign1(algorithm, None, protected, payload, signature, raw(case))
    external = bytes.fromhex(case["input"]["sign0"].get("external", ""))
    return signed.verify(public_key(case), aad=external)


@pytest.mark.parametrize("name", [*GOOD, *BAD, *NOT_OURS])
def test_what_is_not_of_our_profile_is_refused(vectors: Callable[[str], Any], name: str) -> None:
    case = vectors(f"cose/{name}.json")
    for with_kid in (True, False):
        with pytest.raises(Refused):
            parse_sign1(raw(case), limit=1024, with_kid=with_kid)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_signature_verifies(vectors: Callable[[str], Any], name: str) -> None:
    case = vectors(f"cose/{name}.json")
    assert verify(case) == case["input"]["plaintext"].encode()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_signature_is_refused(vectors: Callable[[str], Any], name: str) -> None:
    with pytest.raises(Refused):
        verify(vectors(f"cose/{name}.json"))


@pytest.mark.parametrize("name", GOOD)
def test_a_good_signature_for_other_data_is_refused(vectors: Callable[[str], Any], name: str) -> None:
    case = vectors(f"cose/{name}.json")
    sign0 = case["input"]["sign0"] | {"external": "00"}
    with pytest.raises(Refused):
        verify(case | {"input": case["input"] | {"sign0": sign0}})
