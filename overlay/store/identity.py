"""The identity key of a node, a seed or blobs of a TPM, never overwritten; and the keys that live for one start."""

from dataclasses import dataclass, field
from typing import Final

from overlay.core.endorsement import ENDORSEMENT_MAX, START_ID_SIZE
from overlay.core.keys import Ed25519Signer, X25519Pair
from overlay.core.wire import Bytes, Maybe, make_map, open_map
from overlay.errors import Refused, StateDamaged, UsageError
from overlay.store.files import damaged
from overlay.store.state import AK_TPM, FOUNDING_KEY, IDENTITY_SEED, IDENTITY_TPM, SESSION_KEYS, StateFolder

SEED_SIZE: Final = 32
_BLOB: Final = Bytes(1, 4096)  # a TPM2B_PRIVATE or TPM2B_PUBLIC has at most about 1 KiB
_SIZE_MAX: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class TpmKey:
    """A key that only the TPM which made it can load."""

    public: bytes = field(repr=False)
    private: bytes = field(repr=False)  # encrypted by the TPM


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKeys:
    """Keys and endorsement of one start; kept so that a start while the TPM does not answer can go on with them."""

    endorsement: bytes = field(repr=False)
    noise_private: bytes = field(repr=False)  # 32
    message_seed: bytes = field(repr=False)  # 32
    start_id: bytes  # 16
    witness_seed: bytes | None = field(default=None, repr=False)  # 32; None in a file of a version that had no witnesses

    @property
    def noise(self) -> X25519Pair:
        """The Noise static key."""
        return X25519Pair.from_private(self.noise_private)

    @property
    def message(self) -> Ed25519Signer:
        """The key that signs messages."""
        return Ed25519Signer(self.message_seed)

    @property
    def witness(self) -> Ed25519Signer | None:
        """The key that cosigns others' checkpoints, and serves nothing else."""
        return None if self.witness_seed is None else Ed25519Signer(self.witness_seed)


def has_identity(folder: StateFolder) -> bool:
    """Whether the folder holds an identity key of either kind."""
    return folder.file(IDENTITY_SEED).exists() or folder.file(IDENTITY_TPM).exists()


def save_identity(folder: StateFolder, key: bytes | TpmKey) -> None:
    """Store a new identity, a seed of 32 bytes or a TPM's key; raises UsageError if there is one: it would be lost."""
    if has_identity(folder):
        raise UsageError(f"{folder.path} holds an identity already", hint="choose another folder with --state")
    if isinstance(key, TpmKey):
        _save_tpm_key(folder, IDENTITY_TPM, key)
    else:
        _save_seed(folder, IDENTITY_SEED, key)


def load_identity(folder: StateFolder) -> bytes | TpmKey:
    """The identity key, seed or TPM's; raises StateDamaged, also where there is none or both."""
    seed, tpm = _load_seed(folder, IDENTITY_SEED), _load_tpm_key(folder, IDENTITY_TPM)
    if seed is not None and tpm is not None:
        raise StateDamaged(f"{folder.path} holds two identities: {IDENTITY_SEED} and {IDENTITY_TPM}")
    key = tpm if seed is None else seed
    if key is None:
        hint = 'make one with "overlay init" or "overlay request"'
        raise StateDamaged(f"{folder.path} holds no identity key", hint=hint)
    return key


def save_attestation_key(folder: StateFolder, key: TpmKey) -> None:
    """Store the blobs of the AK."""
    _save_tpm_key(folder, AK_TPM, key)


def load_attestation_key(folder: StateFolder) -> TpmKey | None:
    """The blobs of the AK; None on a node without TPM. Raises StateDamaged."""
    return _load_tpm_key(folder, AK_TPM)


def save_founding_key(folder: StateFolder, seed: bytes) -> None:
    """Store the mesh key (32 bytes): whoever reads this file is the authority. Raises UsageError if there is one."""
    if folder.file(FOUNDING_KEY).exists():
        raise UsageError(f"{folder.path} holds a founding key already")
    _save_seed(folder, FOUNDING_KEY, seed)


def load_founding_key(folder: StateFolder) -> bytes | None:
    """The mesh key's seed; None on a machine that does not hold it. Raises StateDamaged."""
    return _load_seed(folder, FOUNDING_KEY)


def save_session_keys(folder: StateFolder, keys: SessionKeys) -> None:
    """Replace the keys of the last start."""
    fields = keys.endorsement, keys.noise_private, keys.message_seed, keys.start_id, keys.witness_seed
    folder.write(SESSION_KEYS, make_map(*fields))


def load_session_keys(folder: StateFolder) -> SessionKeys | None:
    """The keys of the last start; None before the first. Raises StateDamaged."""
    content = folder.read(SESSION_KEYS)
    if content is None:
        return None
    try:
        endorsement, noise, message, start_id, witness = open_map(
            content, Bytes(1, ENDORSEMENT_MAX), Bytes(32), Bytes(32), Bytes(START_ID_SIZE), Maybe(Bytes(32)), limit=_SIZE_MAX
        )
    except Refused as error:
        raise damaged(folder.file(SESSION_KEYS), str(error)) from None
    return SessionKeys(
        endorsement=endorsement, noise_private=noise, message_seed=message, start_id=start_id, witness_seed=witness
    )


def _save_seed(folder: StateFolder, name: str, seed: bytes) -> None:
    if len(seed) != SEED_SIZE:
        raise ValueError("a seed has 32 bytes")
    folder.write(name, make_map(seed))


def _load_seed(folder: StateFolder, name: str) -> bytes | None:
    content = folder.read(name)
    if content is None:
        return None
    try:
        (seed,) = open_map(content, Bytes(32), limit=_SIZE_MAX)
    except Refused as error:
        raise damaged(folder.file(name), str(error)) from None
    return bytes(seed)


def _save_tpm_key(folder: StateFolder, name: str, key: TpmKey) -> None:
    folder.write(name, make_map(key.public, key.private))


def _load_tpm_key(folder: StateFolder, name: str) -> TpmKey | None:
    content = folder.read(name)
    if content is None:
        return None
    try:
        public, private = open_map(content, _BLOB, _BLOB, limit=_SIZE_MAX)
    except Refused as error:
        raise damaged(folder.file(name), str(error)) from None
    return TpmKey(public, private)
