"""The protocol once more, from its description and from primitives alone: nothing here imports our modules.

Noise (revision 34) for both sides at once, since a vector knows all private keys; the key schedule; records; the gate.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PATTERNS = {
    "XX": (("e",), ("e", "ee", "s", "es"), ("s", "se")),
    "KKpsk0": (("psk", "e", "es", "ss"), ("e", "ee", "se")),
}


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def lv(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def extract(salt: bytes, ikm: bytes) -> bytes:
    """RFC 5869, section 2.2."""
    return hmac.digest(salt, ikm, "sha256")


def expand(prk: bytes, info: bytes) -> bytes:
    """RFC 5869, section 2.3, for 32 bytes."""
    return hmac.digest(prk, info + b"\1", "sha256")


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private: bytes, peer: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(peer))


def seal(key: bytes, counter: int, plaintext: bytes, ad: bytes = b"") -> bytes:
    """AES-256-GCM as Noise uses it: four zero bytes and the counter are the nonce."""
    return AESGCM(key).encrypt(bytes(4) + u64(counter), plaintext, ad)


def record(key: bytes, counter: int, plaintext: bytes) -> bytes:
    return lv(seal(key, counter, plaintext))


# --- Noise ------------------------------------------------------------------------------------------------------------


@dataclass
class Symmetric:
    """SymmetricState and CipherState (sections 5.1 and 5.2), for both sides: they are the same."""

    h: bytes
    ck: bytes
    k: bytes = b""
    n: int = 0
    trace: list[dict[str, str | int]] = field(default_factory=list)

    @classmethod
    def begin(cls, name: bytes, prologue: bytes) -> "Symmetric":
        h = name.ljust(32, b"\0") if len(name) <= 32 else sha256(name)
        return cls(sha256(h, prologue), h)

    def outputs(self, ikm: bytes, count: int) -> list[bytes]:
        """HKDF of section 4.3."""
        prk, found = extract(self.ck, ikm), [b""]
        for number in range(1, count + 1):
            found.append(hmac.digest(prk, found[-1] + bytes([number]), "sha256"))
        return found[1:]

    def mix_key(self, ikm: bytes) -> None:
        (self.ck, self.k), self.n = self.outputs(ikm, 2), 0

    def mix_hash(self, data: bytes) -> None:
        self.h = sha256(self.h, data)

    def mix_key_and_hash(self, ikm: bytes) -> None:
        self.ck, middle, self.k = self.outputs(ikm, 3)
        self.mix_hash(middle)
        self.n = 0

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        data = seal(self.k, self.n, plaintext, self.h) if self.k else plaintext
        self.n += bool(self.k)
        self.mix_hash(data)
        return data

    def note(self, message: int, step: str) -> None:
        """What an implementer compares: the state after each step."""
        state = {"h": self.h, "ck": self.ck, "k": self.k}
        row: dict[str, str | int] = {"message": message, "step": step, "n": self.n}
        self.trace.append(row | {name: value.hex() for name, value in state.items()})


@dataclass(frozen=True)
class Side:
    """Private keys of one side."""

    s: bytes
    e: bytes

    @property
    def public(self) -> bytes:
        """The static one."""
        return public(self.s)


@dataclass(frozen=True)
class Transcript:
    """All of a handshake."""

    messages: list[bytes]
    k1: bytes
    k2: bytes
    h: bytes
    trace: list[dict[str, str | int]]


def noise(
    pattern: str, prologue: bytes, initiator: Side, responder: Side, payloads: list[bytes], psk: bytes = b""
) -> Transcript:
    """Play Noise_`pattern`_25519_AESGCM_SHA256 (section 5.3)."""
    state = Symmetric.begin(f"Noise_{pattern}_25519_AESGCM_SHA256".encode(), prologue)
    state.note(0, "prologue")
    if pattern.startswith("KK"):
        state.mix_hash(public(initiator.s))
        state.mix_hash(public(responder.s))
        state.note(0, "pre-messages")
    messages = []
    for number, (tokens, payload) in enumerate(zip(PATTERNS[pattern], payloads, strict=True), 1):
        writer = initiator if number % 2 else responder
        message = b""
        for token in tokens:
            message += write_token(state, token, writer, initiator, responder, psk)
            state.note(number, token)
        message += state.encrypt_and_hash(payload)
        state.note(number, "payload")
        messages.append(message)
    k1, k2 = state.outputs(b"", 2)
    return Transcript(messages, k1, k2, state.h, state.trace)


def write_token(state: Symmetric, token: str, writer: Side, initiator: Side, responder: Side, psk: bytes) -> bytes:
    """What a token adds to the message."""
    if token == "e":
        state.mix_hash(public(writer.e))
        if psk:  # section 9.2
            state.mix_key(public(writer.e))
        return public(writer.e)
    if token == "s":
        return state.encrypt_and_hash(public(writer.s))
    if token == "psk":
        state.mix_key_and_hash(psk)
        return b""
    first, second = (getattr(side, letter) for side, letter in zip((initiator, responder), token, strict=True))
    state.mix_key(dh(first, public(second)))
    return b""


# --- ours -------------------------------------------------------------------------------------------------------------


def hello(gate_key: bytes, mode: int, tag: bytes, ephemeral: bytes) -> bytes:
    """The first 19 bytes of a connection: version, suite, mode, MAC."""
    start = bytes([1, 1, mode])
    return start + hmac.digest(gate_key, b"overlay/1 gate\0" + start + tag + ephemeral, "sha256")[:16]


def epoch_keys(epoch: int, salt: bytes, ikm: bytes, h: bytes) -> dict[str, bytes]:
    """prk, i2r, r2i, export and h of an epoch."""
    prk = extract(salt, ikm)
    labels = {"i2r": b"overlay/1 i2r\0", "r2i": b"overlay/1 r2i\0", "export": b"overlay/1 export\0"}
    return {"prk": prk, "h": h} | {name: expand(prk, label + u64(epoch)) for name, label in labels.items()}


def first_h(h_xx: bytes) -> bytes:
    return sha256(b"overlay/1 h\0", u64(1), h_xx)


def rekey_psk(epoch: int, previous_h: bytes, kem_secret: bytes, previous_export: bytes) -> bytes:
    return expand(extract(previous_h, kem_secret + previous_export), b"overlay/1 rekey psk\0" + u64(epoch))


def rekey_prologue(mesh_id: bytes, epoch: int, previous_h: bytes, offer: bytes, ciphertext: bytes) -> bytes:
    return b"overlay/1 rekey\0" + mesh_id + u64(epoch) + previous_h + sha256(offer) + sha256(ciphertext)
