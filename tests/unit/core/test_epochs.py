"""Tests of overlay/core/epochs.py: the key schedule binds what it says it binds; ML-KEM refuses what is malformed."""

from dataclasses import replace

import pytest

from overlay.core.epochs import (
    EpochKeys,
    Kem,
    MlKem768,
    MlKem768Key,
    first_epoch,
    hkdf_expand,
    hkdf_extract,
    next_epoch,
    rekey_prologue,
    rekey_psk,
)
from overlay.core.noise import NoiseResult
from overlay.core.wire import sha256, u64
from overlay.errors import Refused
from overlay.registry import Label, Reason, Role

RESULT = NoiseResult(k1=b"1" * 32, k2=b"2" * 32, h=b"h" * 32, remote_static=b"r" * 32)
SECRET = b"s" * 32
KEM: Kem = MlKem768()


def keys_of(epoch: EpochKeys) -> set[bytes]:
    """All secrets of an epoch."""
    return {epoch.i2r, epoch.r2i, epoch.export}


def test_the_first_epoch_is_derived_as_the_protocol_says() -> None:
    prk = hkdf_extract(salt=RESULT.h, ikm=RESULT.k1 + RESULT.k2 + SECRET)
    keys = first_epoch(RESULT, SECRET)
    assert keys.epoch == 1
    assert keys.h == sha256(Label.H, u64(1), RESULT.h)
    assert keys.i2r == hkdf_expand(prk, Label.I2R + u64(1))
    assert keys.r2i == hkdf_expand(prk, Label.R2I + u64(1))
    assert keys.export == hkdf_expand(prk, Label.EXPORT + u64(1))


def test_a_later_epoch_has_the_hash_of_its_own_handshake() -> None:
    prk = hkdf_extract(salt=RESULT.h, ikm=RESULT.k1 + RESULT.k2)
    keys = next_epoch(7, RESULT)
    assert (keys.epoch, keys.h) == (7, RESULT.h)
    assert keys.i2r == hkdf_expand(prk, Label.I2R + u64(7))


@pytest.mark.parametrize("changed", ["k1", "k2", "h"])
def test_every_input_of_noise_changes_every_key(changed: str) -> None:
    other = replace(RESULT, **{changed: b"x" * 32})
    assert not keys_of(first_epoch(RESULT, SECRET)) & keys_of(first_epoch(other, SECRET))
    assert not keys_of(next_epoch(2, RESULT)) & keys_of(next_epoch(2, other))


def test_another_kem_secret_changes_every_key_of_the_first_epoch() -> None:
    assert not keys_of(first_epoch(RESULT, SECRET)) & keys_of(first_epoch(RESULT, b"t" * 32))


def test_another_number_changes_every_key() -> None:
    assert not keys_of(next_epoch(2, RESULT)) & keys_of(next_epoch(3, RESULT))
    assert len(keys_of(next_epoch(2, RESULT))) == 3


def test_the_psk_depends_on_the_old_epoch_and_on_the_fresh_secret() -> None:
    old = first_epoch(RESULT, SECRET)
    others = [replace(old, h=b"x" * 32), replace(old, export=b"x" * 32), replace(old, epoch=2)]
    psks = {rekey_psk(old, b"f" * 32), rekey_psk(old, b"g" * 32), *(rekey_psk(other, b"f" * 32) for other in others)}
    assert len(psks) == 5
    prk = hkdf_extract(salt=old.h, ikm=b"f" * 32 + old.export)
    assert rekey_psk(old, b"f" * 32) == hkdf_expand(prk, Label.REKEY_PSK + u64(2))


def test_the_prologue_of_a_rekey_names_mesh_epoch_and_everything_said_before() -> None:
    prologue = rekey_prologue(b"m" * 32, 2, b"h" * 32, b"offer", b"ciphertext")
    assert prologue == Label.REKEY + b"m" * 32 + u64(2) + b"h" * 32 + sha256(b"offer") + sha256(b"ciphertext")


def test_each_side_sends_with_what_the_other_receives_with() -> None:
    keys = first_epoch(RESULT, SECRET)
    assert keys.sending(Role.OPENER) == keys.receiving(Role.OTHER) == keys.i2r
    assert keys.sending(Role.OTHER) == keys.receiving(Role.OPENER) == keys.r2i


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_kem_secret_of_another_length_is_a_bug(length: int) -> None:
    with pytest.raises(ValueError, match="32"):
        first_epoch(RESULT, bytes(length))
    with pytest.raises(ValueError, match="32"):
        rekey_psk(first_epoch(RESULT, SECRET), bytes(length))


def test_the_first_epoch_does_not_come_from_a_rekey() -> None:
    with pytest.raises(ValueError, match="XX"):
        next_epoch(1, RESULT)


def test_secrets_are_hidden_from_repr() -> None:
    assert repr(EpochKeys(epoch=1, i2r=b"aaa", r2i=b"bbb", export=b"ccc", h=b"h")) == "EpochKeys(epoch=1, h=b'h')"


def test_both_ends_of_an_encapsulation_hold_the_same_secret() -> None:
    key = KEM.generate()
    secret, ciphertext = KEM.encapsulate(key.public)
    assert (len(key.public), len(ciphertext), len(secret)) == (1184, 1088, 32)
    assert key.decapsulate(ciphertext) == secret


def test_every_key_is_fresh() -> None:
    assert KEM.generate().public != KEM.generate().public


def test_a_changed_ciphertext_gives_another_secret() -> None:
    key = KEM.generate()
    secret, ciphertext = KEM.encapsulate(key.public)
    assert key.decapsulate(bytes([ciphertext[0] ^ 1]) + ciphertext[1:]) != secret


@pytest.mark.parametrize("length", [0, 1087, 1089])
def test_a_ciphertext_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(Refused) as caught:
        MlKem768Key.from_seed(bytes(64)).decapsulate(bytes(length))
    assert caught.value.reason is Reason.BAD_HANDSHAKE


@pytest.mark.parametrize(
    "public", [b"", bytes(1183), bytes(1185), b"\xff" * 1184], ids=["empty", "short", "long", "not reduced"]
)
def test_a_malformed_encapsulation_key_is_refused(public: bytes) -> None:
    with pytest.raises(Refused) as caught:
        KEM.encapsulate(public)
    assert caught.value.reason is Reason.BAD_HANDSHAKE


def test_a_seed_gives_the_same_key_again() -> None:
    assert MlKem768Key.from_seed(b"d" * 64).public == MlKem768Key.from_seed(b"d" * 64).public
    with pytest.raises(ValueError, match="64"):
        MlKem768Key.from_seed(bytes(63))
