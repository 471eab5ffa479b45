"""Identity, founding and session keys: kept, never overwritten, never believed when damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from overlay.core.wire import make_map
from overlay.errors import StateDamaged, UsageError
from overlay.store.identity import (
    SessionKeys,
    TpmKey,
    has_identity,
    load_attestation_key,
    load_founding_key,
    load_identity,
    load_session_keys,
    save_attestation_key,
    save_founding_key,
    save_identity,
    save_session_keys,
)
from overlay.store.state import AK_TPM, FOUNDING_KEY, IDENTITY_SEED, IDENTITY_TPM, SESSION_KEYS, StateFolder

SEED = bytes(range(32))
BLOBS = TpmKey(b"public", b"private")
KEYS = SessionKeys(
    endorsement=b"endorsement", noise_private=SEED, message_seed=SEED, start_id=bytes(16), witness_seed=bytes(32)
)


@pytest.mark.parametrize("key", [SEED, BLOBS])
def test_an_identity_is_kept(folder: StateFolder, key: bytes | TpmKey) -> None:
    assert not has_identity(folder)
    save_identity(folder, key)
    assert has_identity(folder)
    assert load_identity(folder) == key


@pytest.mark.parametrize("first", [SEED, BLOBS])
@pytest.mark.parametrize("second", [bytes(32), TpmKey(b"a", b"b")])
def test_an_identity_is_never_overwritten(folder: StateFolder, first: bytes | TpmKey, second: bytes | TpmKey) -> None:
    save_identity(folder, first)
    with pytest.raises(UsageError, match="holds an identity already"):
        save_identity(folder, second)
    assert load_identity(folder) == first


def test_a_folder_with_no_identity_or_with_two_is_damaged(folder: StateFolder) -> None:
    with pytest.raises(StateDamaged, match="no identity key"):
        load_identity(folder)
    folder.write(IDENTITY_SEED, make_map(SEED))
    folder.write(IDENTITY_TPM, make_map(b"public", b"private"))
    with pytest.raises(StateDamaged, match="two identities"):
        load_identity(folder)


def test_an_attestation_key_is_kept(folder: StateFolder) -> None:
    assert load_attestation_key(folder) is None
    save_attestation_key(folder, BLOBS)
    assert load_attestation_key(folder) == BLOBS


def test_a_founding_key_is_kept_and_never_overwritten(folder: StateFolder) -> None:
    assert load_founding_key(folder) is None
    save_founding_key(folder, SEED)
    with pytest.raises(UsageError, match="founding key already"):
        save_founding_key(folder, bytes(32))
    assert load_founding_key(folder) == SEED


def test_session_keys_are_replaced_at_each_start(folder: StateFolder) -> None:
    assert load_session_keys(folder) is None
    save_session_keys(
        folder, SessionKeys(endorsement=b"e", noise_private=bytes(32), message_seed=SEED, start_id=bytes(16))
    )
    save_session_keys(folder, KEYS)
    found = load_session_keys(folder)
    assert found == KEYS
    assert found.noise.private == SEED
    assert len(found.message.public_key) == 32
    assert found.witness is not None
    assert found.witness.public_key != found.message.public_key


def test_session_keys_of_a_version_without_witnesses_are_read(folder: StateFolder) -> None:
    folder.write(SESSION_KEYS, make_map(b"endorsement", SEED, SEED, bytes(16)))
    found = load_session_keys(folder)
    assert found is not None
    assert found.witness is None


def test_a_seed_has_32_bytes(folder: StateFolder) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        save_identity(folder, bytes(31))
    assert not has_identity(folder)


Load = Callable[[StateFolder], object]
LOADERS: list[tuple[str, Load]] = [
    (IDENTITY_SEED, load_identity),
    (IDENTITY_TPM, load_identity),
    (AK_TPM, load_attestation_key),
    (FOUNDING_KEY, load_founding_key),
    (SESSION_KEYS, load_session_keys),
]


@pytest.mark.parametrize(("name", "load"), LOADERS)
@pytest.mark.parametrize("content", [b"", b"\xff", make_map(), make_map(b"x"), make_map(1, 2), b"\xa1\x00\x02"])
def test_a_file_of_another_form_is_named_and_left_as_it_is(
    folder: StateFolder, name: str, load: Load, content: bytes
) -> None:
    folder.write(name, content)
    before = folder.file(name).read_bytes()
    with pytest.raises(StateDamaged, match=name):
        load(folder)
    assert folder.file(name).read_bytes() == before


@pytest.mark.parametrize(("name", "load"), LOADERS)
def test_a_key_that_others_may_read_is_refused(folder: StateFolder, name: str, load: Load) -> None:
    folder.write(name, make_map(SEED))
    folder.file(name).chmod(0o640)
    with pytest.raises(StateDamaged, match="open to other users"):
        load(folder)


def test_secrets_are_not_shown() -> None:
    assert repr(KEYS) == f"SessionKeys(start_id={bytes(16)!r})"
    assert repr(BLOBS) == "TpmKey()"


def test_folders_are_apart(folder: StateFolder, tmp_path: Path) -> None:
    save_identity(folder, SEED)
    with StateFolder.create(tmp_path / "another") as another:
        assert not has_identity(another)
