"""CBOR, COSE and what we sign with them, once more from the description and from primitives alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.vectors.by_hand import lv, sha256, u64

EDDSA = -8


def cbor(value: Any) -> bytes:
    """RFC 8949, section 4.2.1; map keys are integers here."""
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, Mapping):
        return head(5, len(value)) + b"".join(sorted(cbor(key) + cbor(item) for key, item in value.items()))
    return head(4, len(value)) + b"".join(map(cbor, value))


def head(major: int, number: int) -> bytes:
    """Major type and argument, in as few bytes as it takes."""
    if number < 24:
        return bytes([major << 5 | number])
    for extra, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | extra]) + number.to_bytes(size, "big")
    raise ValueError("too large")


def fields(*values: Any) -> bytes:
    """{0:1, 1:a, 2:b, ...}; None leaves a field out."""
    return cbor({0: 1} | {index: value for index, value in enumerate(values, 1) if value is not None})


def protected(kid: bytes | None, algorithm: int = EDDSA) -> bytes:
    return cbor({1: algorithm} if kid is None else {1: algorithm, 4: kid})


def to_be_signed(payload: bytes, aad: bytes, kid: bytes | None, algorithm: int = EDDSA) -> bytes:
    """RFC 9052, section 4.4."""
    return cbor(["Signature1", protected(kid, algorithm), aad, payload])


def sign1(payload: bytes, signature: bytes, kid: bytes | None, algorithm: int = EDDSA) -> bytes:
    """RFC 9052, section 4.2, with its tag."""
    return b"\xd2" + cbor([protected(kid, algorithm), {}, payload, signature])


def ed25519(private: bytes, data: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).sign(data)


def ed25519_public(private: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


# --- what is signed beside COSE ---------------------------------------------------------------------------------------


def proof_input(facts: Sequence[bytes], evidence: bytes) -> bytes:
    """Mesh id, h, role, own leaf, own endorsement, peer leaf, peer endorsement, nonce; hashes where hashes are due."""
    return b"overlay/1 proof\0" + lv(*facts, sha256(evidence))


def bind(parts: Sequence[bytes], epoch: int, claims: bytes) -> bytes:
    """Mesh id, h, role, attester leaf, verifier leaf, nonce."""
    return b"overlay/1 attest\0" + lv(*parts, u64(epoch), sha256(claims))


def attest_leaf(bound: bytes) -> bytes:
    return sha256(b"\0", b"overlay/1 attest leaf\0", bound)


def qualifying_data(count: int, root: bytes) -> bytes:
    return sha256(b"overlay/1 attest root\0", count.to_bytes(4, "big"), root)


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, over leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1", merkle_root(leaves[:split]), merkle_root(leaves[split:]))


def merkle_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """RFC 9162, section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*merkle_path(leaves[:split], index), merkle_root(leaves[split:])]
    return [*merkle_path(leaves[split:], index - split), merkle_root(leaves[:split])]
