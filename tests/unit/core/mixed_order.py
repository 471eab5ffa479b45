"""Ed25519 keys that are not of prime order, and signatures under them that verify all the same."""

import hashlib

import nacl.bindings as sodium


def add_order_two(public: bytes) -> bytes:
    """A + T with T = (0, -1), the point of order 2: both coordinates change sign."""
    prime = 2**255 - 19
    value = int.from_bytes(public, "little")
    y, sign = value & (2**255 - 1), value >> 255
    return ((prime - y) | (1 - sign) << 255).to_bytes(32, "little")


def sign_mixed(secret: bytes, public: bytes, message: bytes) -> bytes:
    """A signature that libsodium accepts under `public` = A + T: nonces are tried until the hash is even, T gone."""
    order = 2**252 + 27742317777372353535851937790883648493  # RFC 8032, section 5.1
    expanded = hashlib.sha512(secret).digest()
    scalar = int.from_bytes(bytes([expanded[0] & 248]) + expanded[1:31] + bytes([expanded[31] & 63 | 64]), "little")
    for trial in range(64):
        nonce = int.from_bytes(hashlib.sha512(bytes([trial]) + message).digest(), "little") % order
        point = sodium.crypto_scalarmult_ed25519_base_noclamp(nonce.to_bytes(32, "little"))
        challenge = int.from_bytes(hashlib.sha512(point + public + message).digest(), "little") % order
        if challenge % 2 == 0:
            return point + ((nonce + challenge * scalar) % order).to_bytes(32, "little")
    raise AssertionError("no even hash in 64 trials")
