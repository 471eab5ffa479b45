"""How a share of the mesh key lies on the disk: as it is, in a file of its owner's, or sealed to the TPM of this machine.

    "overlay share\\0\\1" then {0:1, 1:TPM2B_PRIVATE, 2:TPMT_PUBLIC, 3:the share under AES-256-GCM}

Each write makes a key that is used once, so the nonce is zero, and has the TPM seal that key without a policy on PCRs. The
additional data names the mesh and the file, so that one file never stands in for another. A share whose TPM is gone is gone;
the other members give its owner a new one (`overlay ca repair`), and there is no escrow.
"""

import secrets
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from attest.sealed_key import SealedKey
from overlay.core.wire import Bytes, make_map, open_map
from overlay.errors import HostLacks, OverlayError, Refused
from overlay.registry import Label
from overlay.store.state import StateFolder

if TYPE_CHECKING:
    from attest.tpm import Tpm

MAGIC: Final = b"overlay share\0\1"
KEY_SIZE: Final = 32
NONCE: Final = bytes(12)  # each key is used once
BLOB_MAX: Final = 1024  # as attest/sealed_key.py has it
SHARE_MAX: Final = 64 * 1024  # our guess: the largest group's share and its envelope take 5 KiB
CONTENT_MAX: Final = 2 * BLOB_MAX + SHARE_MAX + 64

NO_TPM: Final = "it is sealed to a TPM, and this node has none"
NO_TPM_HINT: Final = "let the node use its TPM again (`evidence`, `tcti`); if that is gone for good: `overlay ca repair`"
REFUSED_HINT: Final = "if this is another TPM, or it was cleared, the share is lost; `overlay ca repair` gets it back"


class ShareVault(Protocol):
    """Between a share and its file. Both methods block."""

    @property
    def sealing(self) -> bool:
        """Whether what it closes cannot be read elsewhere."""
        ...

    def close(self, name: str, share: bytes) -> bytes:
        """The content of the file `name`. Raises OverlayError when the TPM fails: then nothing may be written."""
        ...

    def open(self, name: str, content: bytes) -> bytes:
        """What `close` was given. Raises OverlayError when the TPM fails or the content is not what it was."""
        ...


def is_sealed(content: bytes) -> bool:
    """Whether a file was made by a vault with a TPM."""
    return content.startswith(MAGIC)


def read_share(folder: StateFolder, name: str, vault: ShareVault) -> bytes | None:
    """What was closed into a file; None without one. What lies there in the open, though there is a TPM, is sealed now.

    Raises:
        OverlayError: it cannot be opened now, and stays as it is.
    """
    content = folder.read(name)
    if content is None:
        return None
    share = vault.open(name, content)
    if vault.sealing and not is_sealed(content):
        folder.write(name, vault.close(name, share))
    return share


class PlainVault:
    """Of a node without a TPM: the file's mode protects the share, and nothing else."""

    sealing: Final = False

    def close(self, name: str, share: bytes) -> bytes:
        """The share itself."""
        del name
        return share

    def open(self, name: str, content: bytes) -> bytes:
        """The same; raises HostLacks for one that a TPM has sealed."""
        if is_sealed(content):
            raise HostLacks(f"{name} cannot be read: {NO_TPM}", hint=NO_TPM_HINT)
        return content


class TpmVault:
    """Of a node with a TPM. It still opens what was written before there was one."""

    sealing: Final = True

    def __init__(self, tpm: "Tpm", mesh_id: bytes) -> None:
        self._tpm = tpm
        self._mesh_id = mesh_id

    def close(self, name: str, share: bytes) -> bytes:
        """Under a fresh key that this TPM alone gives back."""
        key = secrets.token_bytes(KEY_SIZE)
        sealed = self._tpm.seal(key)
        return MAGIC + make_map(sealed.private, sealed.public, AESGCM(key).encrypt(NONCE, share, self._about(name)))

    def open(self, name: str, content: bytes) -> bytes:
        """Raises OverlayError: the TPM does not answer, is another one, or the content was changed."""
        if not is_sealed(content):
            return content
        try:
            blobs = Bytes(1, BLOB_MAX), Bytes(1, BLOB_MAX)
            private, public, box = open_map(content[len(MAGIC) :], *blobs, Bytes(17, SHARE_MAX), limit=CONTENT_MAX)
            key = self._tpm.unseal(SealedKey(private=private, public=public))
            return AESGCM(key).decrypt(NONCE, box, self._about(name))
        except (Refused, InvalidTag, ValueError):
            raise OverlayError(f"{name} was changed, or is another file: it does not open", hint=REFUSED_HINT) from None
        except OverlayError as error:
            raise OverlayError(f"{name} does not open: {error}", hint=REFUSED_HINT) from None

    def _about(self, name: str) -> bytes:
        return Label.SHARE_FILE + self._mesh_id + name.encode()
