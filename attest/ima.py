"""The list of the Linux Integrity Measurement Architecture: every file that ran, each extended into PCR 10.

The list grows while the machine runs, so it is followed: a verifier keeps how far it has come, and reads on from there. The
kernel writes an entry before it extends the PCR, so a list may be ahead of a quote, never behind it.

Source: Linux, Documentation/security/IMA-templates.rst and security/integrity/ima (binary_runtime_measurements; little-endian,
as machines write it). In the SHA-256 bank the kernel extends SHA-256 of the template's data since 5.8; before, and for
`ima_hash=sha1` kernels in their default form, SHA-1 padded with zeros, which is not read here.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from attest.replay import ONES, ZEROS, extend
from attest.structures import bad_evidence
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason

PCR: Final = 10  # CONFIG_IMA_MEASURE_PCR_IDX
PART_MAX: Final = 16 * 1024 * 1024  # bytes that are read at once: our guess; 20,000 entries have some 3 MiB
TEMPLATE_MAX: Final = 64 * 1024  # bytes of one entry's data: our guess; a path has at most 4 KiB, a signature less
NAME_MAX: Final = 15  # IMA_TEMPLATE_NAME_FIELD_MAX is larger; the templates of the kernel are shorter
_SHA1_SIZE: Final = 20
_OLD: Final = b"ima"  # the first template: its data has no length, and 256 bytes for the name
_OLD_NAME: Final = 256
_VIOLATION: Final = bytes(_SHA1_SIZE)  # a file was written while it was read: the kernel extends ones
_FIELDS: Final = {b"ima-ng": 2, b"ima-sig": 3, b"ima-ngv2": 2, b"ima-sigv2": 3, b"ima-buf": 3, b"ima-modsig": 5}


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


@dataclass(frozen=True, slots=True)
class Position:
    """How far a list has been followed: so many bytes and entries of it are in this value of PCR 10."""

    offset: int = 0
    entries: int = 0
    value: bytes = ZEROS


Sink = Callable[[Measurement], None]


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
    found = position if meets(position.value) else None
    if found is not None and sink is None:
        return _surely(found)
    reader, now = _Reader(data), position
    passed: list[Measurement] = []
    counted = 0
    while found is None and (entry := _read(reader, now.entries)) is not None:
        now = replace(
            now, offset=position.offset + reader.offset, entries=now.entries + 1, value=extend(now.value, entry.extended)
        )
        passed.append(entry)
        if meets(now.value):
            found, counted = now, len(passed)
    if sink is not None:
        for entry in passed[:counted]:
            sink(entry)
    return _surely(found)


def _surely(found: Position | None) -> Position:
    if found is None:
        raise Refused(Reason.PCR_MISMATCH, "the measurement list does not lead to the PCR 10 that was quoted")
    return found


def read_all(data: bytes) -> tuple[Measurement, ...]:
    """Every whole entry of a list. Raises Refused(BAD_EVIDENCE)."""
    _check_size(data)
    reader, found = _Reader(data), list[Measurement]()
    while (entry := _read(reader, len(found))) is not None:
        found.append(entry)
    return tuple(found)


def _check_size(data: bytes) -> None:
    if len(data) > PART_MAX:
        bad_evidence(f"{len(data)} bytes of a measurement list; at most {PART_MAX}")


class _Cut(Exception):
    """The list ends here, for now."""


class _Reader:
    """Takes fields from the front; `offset` stands behind the last whole entry."""

    def __init__(self, data: bytes) -> None:
        self.offset = 0
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise _Cut
        part = self._data[self._at : end]
        self._at = end
        return part

    def integer(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def entry_done(self) -> None:
        self.offset = self._at


def _read(reader: _Reader, number: int) -> Measurement | None:
    """The next entry; None if the list ends before it does."""
    try:
        pcr, digest, size = reader.integer(), reader.take(_SHA1_SIZE), reader.integer()
        if pcr != PCR:
            bad_evidence(f"entry {number} of the measurement list is of PCR {pcr}")
        if size > NAME_MAX:
            bad_evidence(f"entry {number} of the measurement list has a template name of {size} bytes")
        template = reader.take(size)
        content = _old_content(reader) if template == _OLD else _content(reader, number)
    except _Cut:
        return None
    reader.entry_done()
    violation = digest == _VIOLATION
    extended = ONES if violation else sha256(content)
    if not violation and hashlib.sha1(content).digest() != digest:  # noqa: S324 - what the kernel writes beside each entry
        bad_evidence(f"entry {number} of the measurement list is not what its digest says")
    return _describe(number, template, content, extended, violation=violation)


def _content(reader: _Reader, number: int) -> bytes:
    size = reader.integer()
    if size > TEMPLATE_MAX:
        bad_evidence(f"entry {number} of the measurement list has {size} bytes; at most {TEMPLATE_MAX}")
    return reader.take(size)


def _old_content(reader: _Reader) -> bytes:
    """Template `ima`: SHA-1 of the file, and its name, which is hashed with zeros up to 256 bytes."""
    digest, size = reader.take(_SHA1_SIZE), reader.integer()
    if size >= _OLD_NAME:
        bad_evidence("a name of more than 255 bytes in a measurement list")
    return digest + reader.take(size).ljust(_OLD_NAME, b"\0")


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
