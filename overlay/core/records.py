"""Records: `u16 length | AES-256-GCM message`, under a strict 64-bit counter from 0 for each key.

The nonce is four zero bytes || u64 counter and there is no associated data, as in Noise, section 12.4.
This is the only place that mutates buffers.
"""

from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay.core.limits import NOISE_PLAINTEXT_MAX, RECORD_MAX, TAG_SIZE
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import Reason

LENGTH_SIZE: Final = 2
KEY_SIZE: Final = 32
COUNTER_END: Final = 2**64 - 1  # Noise, section 5.1: the last value is never used
_COMPACT_ABOVE: Final = 65_536  # our guess: consumed bytes that the reader keeps before it moves the rest down


def _aead(key: bytes) -> AESGCM:
    if len(key) != KEY_SIZE:
        raise ValueError(f"a record key has {KEY_SIZE} bytes")
    return AESGCM(key)


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12, "big")


class Sealer:
    """Encrypts what one side sends in one epoch."""

    def __init__(self, key: bytes) -> None:
        self._aead = _aead(key)
        self._records = 0
        self._volume = 0

    @property
    def records(self) -> int:
        """How many records were sealed under this key."""
        return self._records

    @property
    def volume(self) -> int:
        """How many bytes of plaintext were sealed under this key."""
        return self._volume

    def seal(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """One record. Raises LocalProtocolError for a plaintext that is empty or above 65,519 bytes."""
        return bytes(self.seal_all((plaintext,)))

    def seal_all(self, plaintexts: Sequence[bytes | bytearray | memoryview]) -> bytearray:
        """Several records in one buffer, to be written at once. Raises as `seal`, before anything was sealed."""
        if not all(0 < len(plaintext) <= NOISE_PLAINTEXT_MAX for plaintext in plaintexts):
            raise LocalProtocolError(f"a record holds 1 to {NOISE_PLAINTEXT_MAX} bytes")
        if self._records + len(plaintexts) > COUNTER_END:
            raise LocalProtocolError("the record counter has ended")
        sealed = bytearray(sum(LENGTH_SIZE + len(plaintext) + TAG_SIZE for plaintext in plaintexts))
        room, end = memoryview(sealed), 0
        for plaintext in plaintexts:
            start, size = end + LENGTH_SIZE, len(plaintext) + TAG_SIZE
            end = start + size
            room[start - LENGTH_SIZE : start] = size.to_bytes(LENGTH_SIZE, "big")
            counter, self._records = self._records, self._records + 1  # never the same nonce twice, whatever follows
            self._aead.encrypt_into(_nonce(counter), plaintext, None, room[start:end])
            self._volume += len(plaintext)
        return sealed


class Opener:
    """Decrypts what one side receives in one epoch; after the first refusal it refuses everything."""

    def __init__(self, key: bytes) -> None:
        self._aead = _aead(key)
        self._records = 0
        self._volume = 0
        self._failed = False

    @property
    def records(self) -> int:
        """How many records were opened under this key."""
        return self._records

    @property
    def volume(self) -> int:
        """How many bytes of plaintext were opened under this key."""
        return self._volume

    def open(self, body: bytes | bytearray | memoryview) -> bytes:
        """The plaintext of the next record, given without its length.

        Raises:
            Refused: BAD_RECORD if it is not the peer's next record, MALFORMED if it is empty.
        """
        try:
            plaintext = self._open(body)
        except Refused:
            self._failed = True
            raise
        self._records += 1
        self._volume += len(plaintext)
        return plaintext

    def _open(self, body: bytes | bytearray | memoryview) -> bytes:
        if self._failed or self._records >= COUNTER_END:
            raise Refused(Reason.BAD_RECORD, "a record after the last")
        if not body:
            raise Refused(Reason.MALFORMED, "empty record")
        try:
            plaintext = self._aead.decrypt(_nonce(self._records), body, None)
        except InvalidTag:
            raise Refused(Reason.BAD_RECORD, f"record {self._records}") from None
        if not plaintext:
            raise Refused(Reason.MALFORMED, "empty record")
        return plaintext


class RecordReader:
    """Cuts a stream of bytes into record bodies: `feed`, then `next_record` until it gives None.

    How TCP cut the bytes does not matter. It holds at most one record that is not whole yet, and what was fed last.
    """

    def __init__(self, maximum: int = RECORD_MAX) -> None:
        self.maximum = maximum  # of a record body; holds for every record not yet taken
        self._buffer = bytearray()
        self._start = 0
        self._failed: Refused | None = None

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not yet taken."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes in; after a refusal they are dropped. Raises LocalProtocolError if whole records were left."""
        if self._failed:
            return
        if self.buffered >= LENGTH_SIZE + RECORD_MAX:
            raise LocalProtocolError("take the records before feeding more")
        self._buffer += data

    def next_record(self) -> bytes | None:
        """The next body, or None if it has not come yet.

        Raises:
            Refused: MALFORMED for an empty record, TOO_LARGE above `maximum`; then again at every call.
        """
        if self._failed:
            raise self._failed
        if self.buffered < LENGTH_SIZE:
            return None
        start = self._start + LENGTH_SIZE
        size = int.from_bytes(self._buffer[self._start : start], "big")
        self._check(size)
        if len(self._buffer) < start + size:
            return None
        body = bytes(memoryview(self._buffer)[start : start + size])
        self._drop(start + size)
        return body

    def take(self, count: int) -> bytes | None:
        """The next `count` bytes that are no record (the hello at the start), or None if they have not come yet."""
        if self._failed:
            raise self._failed
        if self.buffered < count:
            return None
        data = bytes(self._buffer[self._start : self._start + count])
        self._drop(self._start + count)
        return data

    def _check(self, size: int) -> None:
        if 0 < size <= self.maximum:
            return
        reason = Reason.TOO_LARGE if size else Reason.MALFORMED
        self._failed = Refused(reason, f"record of {size} bytes")
        self._buffer, self._start = bytearray(), 0
        raise self._failed

    def _drop(self, start: int) -> None:
        """Forget what lies before `start`; move the rest down only now and then."""
        if start == len(self._buffer):
            self._buffer, start = bytearray(), 0
        elif start > _COMPACT_ABOVE:
            del self._buffer[:start]
            start = 0
        self._start = start
