"""A file that opens with a passphrase only: Scrypt, then AES-256-GCM in chunks, so that its size needs no memory.

    header   "overlay backup\\0" 01, three bytes log2(N), r, p of Scrypt, salt (32), HMAC-SHA256 of all before it (32)
    chunks   1 MiB each, sealed (16 more); the last one is shorter or as long. Additional data: the header

Scrypt (RFC 7914) gives 64 bytes: the key of the chunks, then the key of the HMAC, which tells a wrong passphrase from a
damaged file. Nonce: number of the chunk (11 bytes), then 1 for the last one, else 0 (the STREAM construction of Hoang,
Reyhanitabar, Rogaway and Vizár, 2015), so that nothing can be cut off, moved or added. The salt makes each key new.
"""

import secrets
from collections.abc import Iterator
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from overlay.errors import CheckFailed, UsageError

MAGIC: Final = b"overlay backup\0\1"
SALT_SIZE: Final = 32
CHECK_SIZE: Final = 32
HEADER_SIZE: Final = len(MAGIC) + 3 + SALT_SIZE + CHECK_SIZE
CHUNK: Final = 1024 * 1024
TAG_SIZE: Final = 16
COST: Final = 17  # log2(N): 128 MiB and about half a second, OWASP's password storage cheat sheet (2^17, 8, 1)
COSTS: Final = range(14, 19)  # what is read: a file of somebody else takes at most 256 MiB
BLOCK_SIZE: Final = 8  # r, the same source
PARALLEL: Final = 1  # p, the same source

_HINT_BEGINNING: Final = "if the passphrase is right, the beginning of the file was changed: take another copy of it"
_HINT_COPY: Final = "take another copy of the file; nothing of this one was used"


def is_sealed(beginning: bytes) -> bool:
    """Whether a file that begins so is one of these."""
    return beginning.startswith(MAGIC)


class SealedWriter:
    """Seals what is written; the file is whole after `finish`."""

    def __init__(self, file: BinaryIO, passphrase: bytes, *, cost: int = COST) -> None:
        """Blocks for the time that Scrypt takes."""
        begin = MAGIC + bytes([cost, BLOCK_SIZE, PARALLEL]) + secrets.token_bytes(SALT_SIZE)
        key, check_key = _keys(begin, passphrase)
        self._file = file
        self._header = begin + _check(begin, check_key).finalize()
        self._key = AESGCM(key)
        self._number = 0
        self._waiting = bytearray()
        file.write(self._header)

    def write(self, data: bytes) -> None:
        """Add bytes. The last chunk waits for `finish`."""
        self._waiting += data
        while len(self._waiting) > CHUNK:
            self._seal(bytes(self._waiting[:CHUNK]), last=False)
            del self._waiting[:CHUNK]

    def finish(self) -> None:
        """Write the last chunk."""
        self._seal(bytes(self._waiting), last=True)

    def _seal(self, chunk: bytes, *, last: bool) -> None:
        self._file.write(self._key.encrypt(_nonce(self._number, last=last), chunk, self._header))
        self._number += 1


class SealedReader:
    """Opens a file from its beginning; nothing is given out that was not authenticated."""

    def __init__(self, file: BinaryIO, passphrase: bytes) -> None:
        """Blocks for the time that Scrypt takes.

        Raises:
            UsageError: it is another kind of file, or wants more of this machine than we ever ask for.
            CheckFailed: the passphrase is wrong, or the file was cut or changed.
        """
        header = file.read(HEADER_SIZE)
        if not is_sealed(header):
            raise UsageError("this file is no backup of a node", hint="`overlay backup` writes one")
        if len(header) < HEADER_SIZE:
            raise CheckFailed("the backup was cut short", hint=_HINT_COPY)
        begin, check = header[:-CHECK_SIZE], header[-CHECK_SIZE:]
        cost, block_size, parallel = begin[len(MAGIC) : len(MAGIC) + 3]
        if cost not in COSTS or (block_size, parallel) != (BLOCK_SIZE, PARALLEL):
            detail = f"Scrypt with 2^{cost}, {block_size}, {parallel}"
            raise UsageError(f"the backup asks for {detail}, which is not done here", hint=_HINT_COPY)
        key, check_key = _keys(begin, passphrase)
        try:
            _check(begin, check_key).verify(check)
        except InvalidSignature:
            raise CheckFailed("the passphrase is wrong", hint=_HINT_BEGINNING) from None
        self._file = file
        self._header = header
        self._key = AESGCM(key)
        self._chunks = self._open()
        self._left = b""

    def rewind(self) -> None:
        """Read from the first byte again."""
        self._file.seek(HEADER_SIZE)
        self._chunks = self._open()
        self._left = b""

    def read(self, size: int) -> bytes:
        """Up to that many bytes; none at the end. Raises CheckFailed if the file was cut or changed."""
        if not self._left:
            self._left = next(self._chunks, b"")
        found, self._left = self._left[:size], self._left[size:]
        return found

    def read_exactly(self, size: int) -> bytes:
        """Raises CheckFailed if there is less."""
        found = bytearray()
        while len(found) < size:
            part = self.read(size - len(found))
            if not part:
                raise CheckFailed("the backup holds less than it says", hint=_HINT_COPY)
            found += part
        return bytes(found)

    def _open(self) -> Iterator[bytes]:
        number, block = 0, self._file.read(CHUNK + TAG_SIZE)
        while True:
            after = self._file.read(CHUNK + TAG_SIZE)
            try:
                yield self._key.decrypt(_nonce(number, last=not after), block, self._header)
            except InvalidTag:
                raise CheckFailed("the backup was cut short or changed", hint=_HINT_COPY) from None
            if not after:
                return
            number, block = number + 1, after


def _keys(begin: bytes, passphrase: bytes) -> tuple[bytes, bytes]:
    """The key of the chunks and the key of the header."""
    cost, block_size, parallel = begin[len(MAGIC) : len(MAGIC) + 3]
    salt = begin[len(MAGIC) + 3 :]
    found = Scrypt(salt=salt, length=64, n=1 << cost, r=block_size, p=parallel).derive(passphrase)
    return found[:32], found[32:]


def _check(begin: bytes, key: bytes) -> HMAC:
    found = HMAC(key, SHA256())
    found.update(begin)
    return found


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
