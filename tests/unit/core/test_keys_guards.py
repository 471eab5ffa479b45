"""Lengths of signatures in overlay/core/keys.py: without them one signature fits two messages, or has two forms."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from overlay.core.keys import Ed25519Signer, low_s, verify_ed25519, verify_p256
from overlay.errors import Refused
from overlay.registry import Reason

SIGNER = Ed25519Signer(bytes(32))


@pytest.mark.parametrize("border", [-1, 1, 4])
def test_the_border_between_signature_and_message_cannot_be_moved(border: int) -> None:
    whole = SIGNER.sign(b"message") + b"message"
    verify_ed25519(SIGNER.public_key, whole[:64], whole[64:])
    with pytest.raises(Refused) as caught:
        verify_ed25519(SIGNER.public_key, whole[: 64 + border], whole[64 + border :])
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_zeros_before_s_do_not_make_another_signature() -> None:
    key = ec.derive_private_key(1, ec.SECP256R1())
    signature = low_s(*decode_dss_signature(key.sign(b"message", ec.ECDSA(hashes.SHA256()))))
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    verify_p256(point, signature, b"message")
    with pytest.raises(Refused) as caught:
        verify_p256(point, signature[:32] + b"\0" + signature[32:], b"message")
    assert caught.value.reason is Reason.BAD_SIGNATURE
