"""The key schedule: from Noise and ML-KEM-768 (FIPS 203) to the keys of an epoch.

HKDF is RFC 5869 with SHA-256. Every secret and every hash has 32 bytes.
"""

from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from overlay.core.limits import KEM_CIPHERTEXT_SIZE
from overlay.core.noise import NoiseResult
from overlay.core.wire import sha256, u64
from overlay.errors import Refused
from overlay.registry import Label, Reason, Role

SECRET_SIZE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochKeys:
    """The keys of one epoch of a link, the same on both sides. i is the opener of the TCP connection, for life."""

    epoch: int
    i2r: bytes = field(repr=False)
    r2i: bytes = field(repr=False)
    export: bytes = field(repr=False)
    h: bytes

    def sending(self, role: Role) -> bytes:
        """The key under which that side sends."""
        return self.i2r if role is Role.OPENER else self.r2i

    def receiving(self, role: Role) -> bytes:
        """The key under which that side receives."""
        return self.sending(role.peer)


def first_epoch(result: NoiseResult, kem_secret: bytes) -> EpochKeys:
    """Epoch 1, from XX and the ML-KEM secret that its payloads agreed on."""
    prk = hkdf_extract(salt=result.h, ikm=result.k1 + result.k2 + _secret(kem_secret))
    return _expand(prk, epoch=1, h=sha256(Label.H, u64(1), result.h))


def next_epoch(epoch: int, result: NoiseResult) -> EpochKeys:
    """Epoch 2 and later, from KKpsk0; the old keys and the ML-KEM secret are in its psk."""
    if epoch < 2:
        raise ValueError("the first epoch comes from XX")
    prk = hkdf_extract(salt=result.h, ikm=result.k1 + result.k2)
    return _expand(prk, epoch=epoch, h=result.h)


def rekey_psk(previous: EpochKeys, kem_secret: bytes) -> bytes:
    """The psk of the epoch after `previous`."""
    prk = hkdf_extract(salt=previous.h, ikm=_secret(kem_secret) + previous.export)
    return hkdf_expand(prk, Label.REKEY_PSK + u64(previous.epoch + 1))


def rekey_prologue(mesh_id: bytes, epoch: int, previous_h: bytes, offer: bytes, ciphertext: bytes) -> bytes:
    """The prologue of KKpsk0 for `epoch`; `offer` is the whole body of OFFER, u64 epoch || encapsulation key."""
    return b"".join((Label.REKEY, mesh_id, u64(epoch), previous_h, sha256(offer), sha256(ciphertext)))


def hkdf_extract(*, salt: bytes, ikm: bytes) -> bytes:
    """RFC 5869, section 2.2, with SHA-256."""
    return HKDF.extract(SHA256(), salt, ikm)


def hkdf_expand(prk: bytes, info: bytes, length: int = SECRET_SIZE) -> bytes:
    """RFC 5869, section 2.3, with SHA-256; raises ValueError above 8,160 bytes."""
    return HKDFExpand(SHA256(), length, info).derive(prk)


def _expand(prk: bytes, *, epoch: int, h: bytes) -> EpochKeys:
    number = u64(epoch)
    return EpochKeys(
        epoch=epoch,
        i2r=hkdf_expand(prk, Label.I2R + number),
        r2i=hkdf_expand(prk, Label.R2I + number),
        export=hkdf_expand(prk, Label.EXPORT + number),
        h=h,
    )


def _secret(kem_secret: bytes) -> bytes:
    """Guards the border between two secrets that stand side by side."""
    if len(kem_secret) != SECRET_SIZE:
        raise ValueError(f"an ML-KEM secret has {SECRET_SIZE} bytes")
    return kem_secret


# --- ML-KEM ---------------------------------------------------------------------------------------------------------


class KemKey(Protocol):
    """A fresh decapsulation key, for one use."""

    @property
    def public(self) -> bytes:
        """The encapsulation key, 1,184 bytes."""
        ...

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The secret, 32 bytes; of a wrong ciphertext another one. Raises Refused(BAD_HANDSHAKE) for its length."""
        ...


class Kem(Protocol):
    """Where fresh ML-KEM-768 keys and encapsulations come from: chance comes in as an argument."""

    def generate(self) -> KemKey:
        """A fresh key."""
        ...

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        """(secret of 32 bytes, ciphertext of 1,088) for a peer's key. Raises Refused(BAD_HANDSHAKE)."""
        ...


class MlKem768Key:
    """A KemKey over `cryptography`."""

    def __init__(self, key: MLKEM768PrivateKey) -> None:
        self._key = key
        self.public: Final = key.public_key().public_bytes_raw()

    @classmethod
    def from_seed(cls, seed: bytes) -> "MlKem768Key":
        """The key of a 64-byte seed d || z (FIPS 203, section 7.1); raises ValueError for another length."""
        return cls(MLKEM768PrivateKey.from_seed_bytes(seed))

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """See `KemKey`."""
        if len(ciphertext) != KEM_CIPHERTEXT_SIZE:
            raise Refused(Reason.BAD_HANDSHAKE, "length of an ML-KEM ciphertext")
        return self._key.decapsulate(ciphertext)


class MlKem768:
    """The Kem over `cryptography`, with the operating system's randomness."""

    def generate(self) -> MlKem768Key:
        """See `Kem`."""
        return MlKem768Key(MLKEM768PrivateKey.generate())

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        """See `Kem`. Another length and coefficients that are not reduced are refused (FIPS 203, section 7.2)."""
        try:
            return MLKEM768PublicKey.from_public_bytes(public).encapsulate()
        except ValueError:
            raise Refused(Reason.BAD_HANDSHAKE, "ML-KEM key") from None
