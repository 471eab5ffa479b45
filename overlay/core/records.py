"""Records: `u16 length | AES-256-GCM message`, under a strict 64-bit counter from 0 for each key.

The nonce is four zero bytes || u64 counter and there is no associated data, as in Noise, section 12.4.
This is the only place that mutates buffers.
"""

import struct
from collections.abc import Sequence
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay.core.limits import NOISE_PLAINTEXT_MAX, RECORD_MAX, TAG_SIZE
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import Reason

LENGTH_SIZE: Final = 2
KEY_SIZE: Final = 32
COUNTER_END: Final = 2**64 - 1  # Noise, section 5.1: the last value is never used
NONCE_SIZE: Final = 12
_LENGTH: Final = struct.Struct(">H")
_pack_length_into: Final = _LENGTH.pack_into
_unpack_length_from: Final = _LENGTH.unpack_from
OVERHEAD: Final = LENGTH_SIZE + TAG_SIZE  # what a record adds to its plaintext


def _aead(key: bytes) -> AESGCM:
    if len(key) != KEY_SIZE:
        raise ValueError(f"a record key has {KEY_SIZE} bytes")
    return AESGCM(key)


class Sealer:
    """Encrypts what one side sends in one epoch."""

    __slots__ = ("_encrypt_into", "records", "volume")

    def __init__(self, key: bytes) -> None:
        self._encrypt_into = _aead(key).encrypt_into
        self.records = 0  # sealed under this key
        self.volume = 0  # bytes of plaintext sealed under this key

    def seal(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """One record. Raises LocalProtocolError for a plaintext that is empty or above 65,519 bytes."""
        return bytes(self.seal_all((plaintext,)))

    def seal_all(self, plaintexts: Sequence[bytes | bytearray | memoryview]) -> bytearray:
        """Several records in one buffer, to be written at once. Raises as `seal`, before anything was sealed."""
        sizes = [len(plaintext) for plaintext in plaintexts]
        if plaintexts and not 0 < min(sizes) <= max(sizes) <= NOISE_PLAINTEXT_MAX:
            raise LocalProtocolError(f"a record holds 1 to {NOISE_PLAINTEXT_MAX} bytes")
        sealed = bytearray(sum(sizes) + len(sizes) * OVERHEAD)
        room, end = memoryview(sealed), 0
        for plaintext in plaintexts:
            start, end = end, end + OVERHEAD + len(plaintext)
            room[start + LENGTH_SIZE : end - TAG_SIZE] = plaintext
            self.seal_in_place(room, start, end - TAG_SIZE)
        return sealed

    def seal_in_place(self, room: memoryview, start: int, end: int) -> int:
        """Make a record of what lies in `room[start:end]`: room for its length, and the plaintext. Where the record ends.

        Raises LocalProtocolError for a plaintext that is empty or above 65,519 bytes, and after 2^64 - 1 records.
        """
        begin, counter = start + LENGTH_SIZE, self.records
        size, sealed = end - begin, end + TAG_SIZE
        if not 0 < size <= NOISE_PLAINTEXT_MAX:
            raise LocalProtocolError(f"a record holds 1 to {NOISE_PLAINTEXT_MAX} bytes")
        if counter >= COUNTER_END:
            raise LocalProtocolError("the record counter has ended")
        self.records = counter + 1  # never the same nonce twice, whatever follows
        _pack_length_into(room, start, size + TAG_SIZE)
        self._encrypt_into(counter.to_bytes(NONCE_SIZE, "big"), room[begin:end], None, room[begin:sealed])
        self.volume += size
        return sealed


class Opener:
    """Decrypts what one side receives in one epoch; after the first refusal it refuses everything."""

    __slots__ = ("_decrypt_into", "_failed", "records", "volume")

    def __init__(self, key: bytes) -> None:
        self._decrypt_into = _aead(key).decrypt_into
        self.records = 0  # opened under this key
        self.volume = 0  # bytes of plaintext opened under this key
        self._failed = False

    def open(self, body: bytes | bytearray | memoryview) -> bytes:
        """The plaintext of the next record, given without its length. Raises as `open_in_place`."""
        return bytes(self.open_in_place(memoryview(bytearray(body))))

    def open_in_place(self, body: memoryview) -> memoryview:
        """Decrypt the next record where it lies; its plaintext is the beginning of the same buffer.

        Raises:
            Refused: BAD_RECORD if it is not the peer's next record, MALFORMED if it is empty; the buffer then holds nothing
                of use, and everything after it is refused.
        """
        counter, size = self.records, len(body) - TAG_SIZE
        if self._failed or counter >= COUNTER_END:
            raise self._refused(Reason.BAD_RECORD, "a record after the last")
        if size < 0:
            raise self._refused(Reason.BAD_RECORD if body else Reason.MALFORMED, "no room for a tag")
        plaintext = body[:size]
        try:
            self._decrypt_into(counter.to_bytes(NONCE_SIZE, "big"), body, None, plaintext)
        except InvalidTag:
            raise self._refused(Reason.BAD_RECORD, f"record {counter}") from None
        if not size:
            raise self._refused(Reason.MALFORMED, "empty record")
        self.records = counter + 1
        self.volume += size
        return plaintext

    def _refused(self, reason: Reason, detail: str) -> Refused:
        self._failed = True
        return Refused(reason, detail)


class RecordReader:
    """Cuts a stream of bytes into record bodies: `feed`, then `next_record` until it gives None.

    How TCP cut the bytes does not matter. Whole records are given as parts of the buffer that was fed, which may be
    overwritten (decrypted in place) if it is writable, and is free again when `next_record` gave None: only what is not
    whole yet is copied.
    """

    def __init__(self, maximum: int = RECORD_MAX) -> None:
        self.maximum = maximum  # of a record body; holds for every record not yet taken
        self._kept = bytearray()  # the beginning of what is not whole yet
        self._fresh = memoryview(b"")  # of what was fed last, the part that was not taken
        self._failed: Refused | None = None

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not yet taken."""
        return len(self._kept) + len(self._fresh)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes in; after a refusal they are dropped. Raises LocalProtocolError if whole records were left."""
        if self._failed:
            return
        if self.buffered >= LENGTH_SIZE + RECORD_MAX:
            raise LocalProtocolError("take the records before feeding more")
        view = memoryview(data)
        if self._fresh or view.readonly:
            view = memoryview(bytearray(self._fresh) + view)
        self._fresh = view

    def next_record(self) -> memoryview | None:
        """The next body, writable, or None if it has not come yet.

        Raises:
            Refused: MALFORMED for an empty record, TOO_LARGE above `maximum`; then again at every call.
        """
        if self._failed:
            raise self._failed
        if self._kept:
            return self._finish_kept()
        fresh = self._fresh
        if len(fresh) < LENGTH_SIZE:
            self._keep()
            return None
        (size,) = _LENGTH.unpack_from(fresh)
        if not 0 < size <= self.maximum:
            self._refuse(size)
        end = LENGTH_SIZE + size
        if len(fresh) < end:
            self._keep()
            return None
        self._fresh = fresh[end:]
        return fresh[LENGTH_SIZE:end]

    def next_records(self) -> list[memoryview]:
        """All bodies that have come, as `next_record` gives them; what it would refuse is refused when it is the first."""
        first = self.next_record()
        if first is None:
            return []
        bodies, fresh, start = [first], self._fresh, 0
        have = len(fresh)
        if not have:
            return bodies
        maximum = self.maximum
        while start + LENGTH_SIZE < have:
            (size,) = _unpack_length_from(fresh, start)
            begin, end = start + LENGTH_SIZE, start + LENGTH_SIZE + size
            if not 0 < size <= maximum or end > have:
                break
            bodies.append(fresh[begin:end])
            start = end
        self._fresh = fresh[start:]
        return bodies

    def take(self, count: int) -> bytes | None:
        """The next `count` bytes that are no record (the hello at the start), or None if they have not come yet."""
        if self._failed:
            raise self._failed
        if not self._fill(count):
            return None
        data, self._kept = bytes(self._kept), bytearray()
        return data

    def _keep(self) -> None:
        """The buffer is not ours: copy what is left of it."""
        self._fill(self.buffered)

    def _finish_kept(self) -> memoryview | None:
        """The record of which the beginning came earlier."""
        if not self._fill(LENGTH_SIZE):
            return None
        (size,) = _LENGTH.unpack_from(self._kept)
        if not 0 < size <= self.maximum:
            self._refuse(size)
        if not self._fill(LENGTH_SIZE + size):
            return None
        body, self._kept = memoryview(self._kept)[LENGTH_SIZE:], bytearray()
        return body

    def _fill(self, count: int) -> bool:
        """Whether `count` bytes are kept now, after a copy of those that are missing and have come."""
        missing = count - len(self._kept)
        if missing > 0:
            self._kept += self._fresh[:missing]
            self._fresh = self._fresh[missing:]
        return len(self._kept) >= count

    def _refuse(self, size: int) -> NoReturn:
        reason = Reason.TOO_LARGE if size else Reason.MALFORMED
        self._failed = Refused(reason, f"record of {size} bytes")
        self._kept, self._fresh = bytearray(), memoryview(b"")
        raise self._failed
