"""The list of the Linux Integrity Measurement Architecture: every file that ran, each extended into PCR 10.

The list grows while the machine runs, so it is followed: a verifier keeps how far it has come, and reads on from there. The
kernel writes an entry before it extends the PCR, so a list may be ahead of a quote, never behind it.

Source: Linux, Documentation/security/IMA-templates.rst and security/integrity/ima (binary_runtime_measurements; little-endian,
as machines write it). In the SHA-256 bank the kernel extends SHA-256 of the template's data since 5.8; before, and for
`ima_hash=sha1` kernels in their default form, SHA-1 padded with zeros, which is not read here.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from attest.replay import ONES, ZEROS
from attest.structures import bad_evidence
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason

PCR: Final = 10  # CONFIG_IMA_MEASURE_PCR_IDX
LIST_MAX: Final = 64 * 1024 * 1024  # bytes of a whole list: our guess; 20,000 entries have some 3 MiB
PART_MAX: Final = 16 * 1024 * 1024  # bytes that are read at once: our guess
TEMPLATE_MAX: Final = 64 * 1024  # bytes of one entry's data: our guess; a path has at most 4 KiB, a signature less
NAME_MAX: Final = 15  # IMA_TEMPLATE_NAME_FIELD_MAX is larger; the templates of the kernel are shorter
AGGREGATE: Final = "boot_aggregate"  # the first entry: no file, but what is in PCRs 0 to 9
_SHA1_SIZE: Final = 20
_OLD: Final = b"ima"  # the first template: its data has no length, and 256 bytes for the name
_OLD_NAME: Final = 256
_VIOLATION: Final = bytes(_SHA1_SIZE)  # a file was written while it was read: the kernel extends ones
_FIELDS: Final = {b"ima-ng": 2, b"ima-sig": 3, b"ima-ngv2": 2, b"ima-sigv2": 3, b"ima-buf": 3, b"ima-modsig": 5}
_HEAD: Final = Struct("<I20sI")  # PCR, SHA-1 of the template's data, length of the template's name
_INTEGER: Final = Struct("<I")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One entry. `algorithm` and `digest` are of the file, or of the buffer; `path` is what the kernel called it."""

    number: int
    template: str
    algorithm: str
    digest: bytes
    path: str
    extended: bytes = field(repr=False)  # 32
    violation: bool = False

    @property
    def is_file(self) -> bool:
        """All but the first entry, which sums up PCRs of the boot log."""
        return self.number > 0 or self.path != AGGREGATE


@dataclass(frozen=True, slots=True)
class Position:
    """How far a list has been followed: so many bytes and entries of it are in this value of PCR 10."""

    offset: int = 0
    entries: int = 0
    value: bytes = ZEROS


Sink = Callable[[Measurement], None]


class Follower:
    """Reads a list on, as its bytes come, until the value of PCR 10 is the one that was quoted."""

    def __init__(self, position: Position, meets: Callable[[bytes], bool], sink: Sink | None = None) -> None:
        """`position`: where the last quote was met. `sink` gets each entry that is read, before it is known to be quoted."""
        self.met = position if meets(position.value) else None
        self._at = position
        self._meets = meets
        self._sink = sink
        self._rest = b""  # of an entry that is half there

    @property
    def needed(self) -> int:
        """The offset from which on bytes are lacking."""
        return self._at.offset + len(self._rest)

    def feed(self, data: bytes) -> Position | None:
        """The next bytes: where the quote was met, or None as long as it is not. What comes after that is not looked at.

        Raises:
            Refused: BAD_EVIDENCE.
        """
        if self.met is not None:
            return self.met
        data = self._rest + data
        start, number, value = self._at.offset, self._at.entries, self._at.value
        meets, sink, used, h = self._meets, self._sink, 0, hashlib.sha256  # names that are found fast, for many entries
        for end, template, content, violation in _entries(data, number):
            extended = ONES if violation else h(content).digest()
            value = h(value + extended).digest()
            if sink is not None:
                sink(_describe(number, template, content, extended, violation=violation))
            number, used = number + 1, end
            if meets(value):
                self.met = Position(start + used, number, value)
                return self.met
        self._at, self._rest = Position(start + used, number, value), data[used:]
        return None


def follow(data: bytes, position: Position, meets: Callable[[bytes], bool], sink: Sink | None = None) -> Position:
    """Read on until the value of PCR 10 is the one that was quoted.

    Args:
        data: the list from `position.offset` on, at most 16 MiB; it may end in the middle of an entry.
        position: where the last quote was met; the default one for the beginning.
        meets: whether a value of PCR 10 is in the quote.
        sink: gets each entry up to there, once it is known to be in the quote.

    Raises:
        Refused: BAD_EVIDENCE, or PCR_MISMATCH if no entry leads to what was quoted. `position` still holds then.
    """
    _check_size(data)
    passed: list[Measurement] = []
    found = Follower(position, meets, None if sink is None else passed.append).feed(data)
    if found is None:
        raise Refused(Reason.PCR_MISMATCH, "the measurement list does not lead to the PCR 10 that was quoted")
    if sink is not None:
        for entry in passed:
            sink(entry)
    return found


def read_all(data: bytes) -> tuple[Measurement, ...]:
    """Every whole entry of a list. Raises Refused(BAD_EVIDENCE)."""
    _check_size(data)
    return tuple(
        _describe(number, template, content, ONES if violation else sha256(content), violation=violation)
        for number, (_, template, content, violation) in enumerate(_entries(data, 0))
    )


def _check_size(data: bytes) -> None:
    if len(data) > PART_MAX:
        bad_evidence(f"{len(data)} bytes of a measurement list; at most {PART_MAX}")


def _entries(data: bytes, number: int) -> Iterator[tuple[int, bytes, bytes, bool]]:
    """Each whole entry, the first of them with this number: where it ends, template, data of the template, violation."""
    at, size, unpack, head, sha1 = 0, len(data), _HEAD.unpack_from, _HEAD.size, hashlib.sha1
    while at + head <= size:
        pcr, digest, length = unpack(data, at)
        if pcr != PCR:
            bad_evidence(f"entry {number} of the measurement list is of PCR {pcr}")
        if length > NAME_MAX:
            bad_evidence(f"entry {number} of the measurement list has a template name of {length} bytes")
        start = at + head + length
        template = data[at + head : start]
        found = _old_content(data, start) if template == _OLD else _content(data, start, number)
        if found is None:
            return
        at, content = found
        violation = digest == _VIOLATION
        if not violation and sha1(content).digest() != digest:  # what the kernel writes beside each entry
            bad_evidence(f"entry {number} of the measurement list is not what its digest says")
        yield at, template, content, violation
        number += 1


def _content(data: bytes, start: int, number: int) -> tuple[int, bytes] | None:
    """Where the entry ends, and its data; None if the list ends before it does."""
    if start + 4 > len(data):
        return None
    (size,) = _INTEGER.unpack_from(data, start)
    if size > TEMPLATE_MAX:
        bad_evidence(f"entry {number} of the measurement list has {size} bytes; at most {TEMPLATE_MAX}")
    end = start + 4 + size
    return (end, data[start + 4 : end]) if end <= len(data) else None


def _old_content(data: bytes, start: int) -> tuple[int, bytes] | None:
    """Template `ima`: SHA-1 of the file, and its name, which is hashed with zeros up to 256 bytes."""
    name = start + _SHA1_SIZE + 4
    if name > len(data):
        return None
    (size,) = _INTEGER.unpack_from(data, start + _SHA1_SIZE)
    if size >= _OLD_NAME:
        bad_evidence("a name of more than 255 bytes in a measurement list")
    if name + size > len(data):
        return None
    return name + size, data[start : start + _SHA1_SIZE] + data[name : name + size].ljust(_OLD_NAME, b"\0")


def _describe(number: int, template: bytes, content: bytes, extended: bytes, *, violation: bool) -> Measurement:
    name = template.decode("ascii", "backslashreplace")
    if template == _OLD:
        path = content[_SHA1_SIZE:].rstrip(b"\0")
        return Measurement(number, name, "sha1", content[:_SHA1_SIZE], _text(path), extended, violation)
    if template not in _FIELDS:
        return Measurement(number, name, "", b"", "", extended, violation)
    fields = _fields(content, number)
    if len(fields) < _FIELDS[template]:
        bad_evidence(f"entry {number} of the measurement list has {len(fields)} fields")
    algorithm, digest = _algorithm(fields[0])
    return Measurement(number, name, algorithm, digest, _text(fields[1].rstrip(b"\0")), extended, violation)


def _fields(content: bytes, number: int) -> list[bytes]:
    """Each behind its length."""
    found, at = [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "little")
        at += 4
        if at + size > len(content):
            bad_evidence(f"a field of entry {number} of the measurement list is cut short")
        found.append(content[at : at + size])
        at += size
    return found


def _algorithm(value: bytes) -> tuple[str, bytes]:
    """d-ng is `sha256:` NUL digest; d-ngv2 has `ima:` or `verity:` before it."""
    name, _, digest = value.partition(b"\0")
    return _text(name.rstrip(b":").rpartition(b":")[2]), digest


def _text(value: bytes) -> str:
    """For people, whatever it is."""
    return value.decode("utf-8", "backslashreplace")
