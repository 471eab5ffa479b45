"""Wycheproof through our own wrappers: X25519, AES-256-GCM, HKDF-SHA-256 and ML-KEM-768, the bad cases included."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from overlay.core.epochs import MlKem768, MlKem768Key, hkdf_expand, hkdf_extract
from overlay.core.keys import X25519Pair, x25519_is_safe
from overlay.core.limits import KEM_CIPHERTEXT_SIZE
from overlay.core.noise import XX, KKpsk0
from overlay.core.records import Opener, Sealer, _aead
from overlay.errors import Refused
from overlay.registry import Reason

pytestmark = pytest.mark.vectors

OWN = X25519Pair.from_private(b"o" * 32)
FRESH = X25519Pair.from_private(b"f" * 32)


def cases(file: dict[str, Any], **group: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, case) of all groups of this kind."""
    for found in file["testGroups"]:
        if all(found[key] == value for key, value in group.items()):
            for case in found["tests"]:
                yield f"case {case['tcId']} {case.get('comment', '')}", case


def hexes(case: dict[str, Any], *names: str) -> list[bytes]:
    """Fields of a case as bytes."""
    return [bytes.fromhex(case[name]) for name in names]


# --- X25519


def test_x25519_shared_secrets(vectors: Callable[[str], Any]) -> None:
    """The function that our handshakes compute with: right secrets, and none at all for points of low order."""
    library = XX.initiator(b"", OWN, FRESH)._connection.noise_protocol
    low_order = 0
    for name, case in cases(vectors("wycheproof/x25519_test.json")):
        public, private, shared = hexes(case, "public", "private", "shared")
        mine = library.keypair_class.from_private_bytes(private)
        theirs = library.keypair_class.from_public_bytes(public)
        if "ZeroSharedSecret" in case["flags"]:
            low_order += 1
            with pytest.raises(ValueError, match="shared key"):
                library.dh_fn.dh(mine.private, theirs.public)
        else:
            assert library.dh_fn.dh(mine.private, theirs.public) == shared, name
        assert X25519Pair.from_private(private).public == mine.public_bytes, name
        assert x25519_is_safe(public) == ("ZeroSharedSecret" not in case["flags"]), name
    assert low_order == 31


def test_x25519_keys_of_low_order_end_a_handshake(vectors: Callable[[str], Any]) -> None:
    for name, case in cases(vectors("wycheproof/x25519_test.json")):
        if "ZeroSharedSecret" not in case["flags"]:
            continue
        (public,) = hexes(case, "public")
        answerer = KKpsk0.initiator(b"", OWN, FRESH, public, b"p" * 32)
        responder = XX.responder(b"", OWN, FRESH)
        responder.read(public)
        for side in (answerer, responder):
            with pytest.raises(Refused) as caught:
                side.write()
            assert caught.value.reason is Reason.BAD_HANDSHAKE, name


# --- AES-256-GCM with a 96-bit nonce, as records use it


def test_aes_gcm(vectors: Callable[[str], Any]) -> None:
    checked = 0
    for name, case in cases(vectors("wycheproof/aes_gcm_test.json"), keySize=256, ivSize=96, tagSize=128):
        key, nonce, aad, message, ciphertext, tag = hexes(case, "key", "iv", "aad", "msg", "ct", "tag")
        aead = _aead(key)
        checked += 1
        if case["result"] == "valid":
            assert aead.encrypt(nonce, message, aad) == ciphertext + tag, name
            assert aead.decrypt(nonce, ciphertext + tag, aad) == message, name
            continue
        with pytest.raises(InvalidTag):
            aead.decrypt(nonce, ciphertext + tag, aad)
    assert checked == 66


def test_aes_gcm_with_truncated_tags(vectors: Callable[[str], Any]) -> None:
    for name, case in cases(vectors("wycheproof/aes_gcm_test.json"), keySize=256, ivSize=96, tagSize=128):
        (key, message) = hexes(case, "key", "msg")
        if case["result"] != "valid" or not message:
            continue
        body = Sealer(key).seal(message)[2:]
        assert Opener(key).open(body) == message, name
        for length in range(1, 17):
            with pytest.raises(Refused) as caught:
                Opener(key).open(body[:-length])
            assert caught.value.reason is Reason.BAD_RECORD, name


def test_aes_gcm_vector_with_the_nonce_of_a_record(vectors: Callable[[str], Any]) -> None:
    checked = 0
    for name, case in cases(vectors("wycheproof/aes_gcm_test.json"), keySize=256, ivSize=96, tagSize=128):
        key, nonce, aad, message, ciphertext, tag = hexes(case, "key", "iv", "aad", "msg", "ct", "tag")
        if aad or nonce[:4] != bytes(4):
            continue
        checked += 1
        sealer, opener = Sealer(key), Opener(key)
        sealer.records = opener.records = int.from_bytes(nonce, "big")
        assert sealer.seal(message)[2:] == ciphertext + tag, name
        assert opener.open(ciphertext + tag) == message, name
    assert checked == 1


@pytest.mark.parametrize("size", [128, 192])
def test_aes_keys_of_other_sizes_are_no_record_keys(vectors: Callable[[str], Any], size: int) -> None:
    for _, case in cases(vectors("wycheproof/aes_gcm_test.json"), keySize=size, ivSize=96):
        for make in (Sealer, Opener):
            with pytest.raises(ValueError, match="32"):
                make(bytes.fromhex(case["key"]))


# --- HKDF


def test_hkdf(vectors: Callable[[str], Any]) -> None:
    for name, case in cases(vectors("wycheproof/hkdf_sha256_test.json")):
        ikm, salt, info, okm = hexes(case, "ikm", "salt", "info", "okm")
        prk = hkdf_extract(salt=salt, ikm=ikm)
        if case["result"] == "valid":
            assert hkdf_expand(prk, info, case["size"]) == okm, name
        else:
            with pytest.raises(ValueError, match="8160"):
                hkdf_expand(prk, info, case["size"])


# --- ML-KEM-768


def test_ml_kem_768(vectors: Callable[[str], Any]) -> None:
    valid = 0
    for name, case in cases(vectors("wycheproof/mlkem_768_test.json")):
        seed, ciphertext = hexes(case, "seed", "c")
        if case["result"] == "valid":
            key, (public, secret) = MlKem768Key.from_seed(seed), hexes(case, "ek", "K")
            assert key.public == public, name
            assert key.decapsulate(ciphertext) == secret, name
            valid += 1
        elif len(ciphertext) != KEM_CIPHERTEXT_SIZE:
            with pytest.raises(Refused) as caught:
                MlKem768Key.from_seed(seed).decapsulate(ciphertext)
            assert caught.value.reason is Reason.BAD_HANDSHAKE, name
        else:
            with pytest.raises(ValueError, match="64"):
                MlKem768Key.from_seed(seed)
    assert valid == 153


def test_ml_kem_768_to_the_keys_of_the_vectors(vectors: Callable[[str], Any]) -> None:
    kem = MlKem768()
    for name, case in cases(vectors("wycheproof/mlkem_768_test.json")):
        if case["result"] != "valid":
            continue
        seed, public = hexes(case, "seed", "ek")
        secret, ciphertext = kem.encapsulate(public)
        assert MlKem768Key.from_seed(seed).decapsulate(ciphertext) == secret, name
        with pytest.raises(Refused):
            kem.encapsulate(public[:-1])
