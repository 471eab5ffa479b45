"""Guards of overlay/core/wire.py that another check would make up for: each is shown to refuse by itself."""

import cbor2
import pytest

from overlay.core.keys import Ed25519Signer
from overlay.core.wire import Anything, decode, encode, open_map, parse_sign1, sign1
from overlay.errors import Refused
from overlay.registry import COSE_SIGN1_TAG_BYTE, Reason

TAGGED = [(2, bytes(20)), (28, [1]), (30, [1, 2]), (35, "a"), (36, "Subject: a"), (37, bytes(16)), (258, [1])]


def causes(error: BaseException) -> list[str]:
    """What an error says, and what those say that led to it."""
    before = error.__cause__ or error.__context__
    return [str(error), *(causes(before) if before is not None else [])]


@pytest.mark.parametrize(("tag", "value"), TAGGED)
def test_the_decoder_of_a_tag_never_runs(tag: int, value: object) -> None:
    with pytest.raises(Refused) as caught:
        decode(cbor2.dumps(cbor2.CBORTag(tag, value)), limit=100)
    assert caught.value.reason is Reason.MALFORMED
    assert any(cause.endswith(f"CBOR tag {tag}") for cause in causes(caught.value))


def test_a_field_of_any_kind_must_be_there_all_the_same() -> None:
    with pytest.raises(Refused, match="field 1 is missing"):
        open_map(encode({0: 1}), Anything(), limit=100)


@pytest.mark.parametrize("header", [{}, {1: -19}, {1: -8, 2: [4]}, {1: -8, 3: 0}, {4: b"k" * 32}, {1: -8, 4: b"k" * 32}])
def test_a_header_other_than_our_two_is_malformed_where_no_kid_belongs(header: dict[int, object]) -> None:
    signed = sign1(b"payload", signer=Ed25519Signer(bytes(32)), aad=b"", kid=None)
    _, unprotected, payload, signature = cbor2.loads(signed[1:])
    parts = [cbor2.dumps(header, canonical=True), unprotected, payload, signature]
    raw = bytes([COSE_SIGN1_TAG_BYTE]) + cbor2.dumps(parts, canonical=True)
    with pytest.raises(Refused, match="protected header") as caught:
        parse_sign1(raw, limit=1000, with_kid=False)
    assert caught.value.reason is Reason.MALFORMED
