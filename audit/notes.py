"""Signed notes: a text with lines of signatures under it, as C2SP defines them, so that other tools check ours.

    text (ends in a newline), an empty line, then lines `— <key name> <base64 of key id and signature>`

Ed25519 (https://c2sp.org/signed-note, type 1) and timestamped cosignatures (https://c2sp.org/tlog-cosignature, type 4).
What a key has not signed must not be believed: a note is unverified until `verify` has returned.
"""

import base64
import binascii
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn, Self

from overlay.core.keys import Signer, verify_ed25519
from overlay.core.wire import malformed, sha256, u64
from overlay.errors import Refused
from overlay.registry import Reason

NOTE_MAX: Final = 16_384  # bytes: our guess; a checkpoint with 16 cosignatures has less than 6 KiB
SIGNATURES_MAX: Final = 32  # signed-note: a verifier accepts at least 16
KEY_ID_SIZE: Final = 4
ED25519: Final = 0x01  # signed-note, signature types
COSIGNATURE: Final = 0x04
COSIGNATURE_SIZE: Final = 8 + 64  # tlog-cosignature: u64 timestamp, Ed25519 signature
TIMESTAMP_MAX: Final = 2**63 - 1  # tlog-cosignature
_DASH: Final = "\N{EM DASH} "


@dataclass(frozen=True, slots=True)
class NoteKey:
    """Who signs notes: a name, a type of signature, and 32 bytes of an Ed25519 public key."""

    name: str
    kind: int
    public: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_name(self.name)

    @property
    def id(self) -> bytes:
        """The key id: 4 bytes that tell keys of one name apart, and prove nothing."""
        return sha256(f"{self.name}\n".encode(), bytes([self.kind]), self.public)[:KEY_ID_SIZE]

    @property
    def text(self) -> str:
        """The verifier key, as other tools take it: name, key id and key, with plus signs between them."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes([self.kind]) + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> "NoteKey":
        """From a verifier key. Raises Refused(MALFORMED); UNSUPPORTED for other types than ours."""
        name, first, rest = text.partition("+")
        key_id, second, encoded = rest.partition("+")
        if not first or not second:
            malformed("a verifier key is name+id+key")
        kind, *public = _from_base64(encoded) or b"\0"
        if kind not in {ED25519, COSIGNATURE}:
            raise Refused(Reason.UNSUPPORTED, f"signatures of type {kind}")
        if len(public) != 32:
            malformed("an Ed25519 key has 32 bytes")
        found = cls(name, kind, bytes(public))
        if found.id.hex() != key_id:
            malformed("the id of a verifier key does not follow from it")
        return found


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One line under a note. Nobody has verified it."""

    name: str
    key_id: bytes  # 4
    signature: bytes = field(repr=False)

    @property
    def line(self) -> str:
        """As it stands under the text."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"

    def is_of(self, key: NoteKey) -> bool:
        """Whether it claims to be made by that key."""
        return (self.name, self.key_id) == (key.name, key.id)

    @property
    def timestamp(self) -> int:
        """What a cosignature says of its time, in Unix seconds. Raises Refused(MALFORMED) for other signatures."""
        if len(self.signature) != COSIGNATURE_SIZE:
            malformed("a cosignature has 72 bytes")
        return int.from_bytes(self.signature[:8], "big")


@dataclass(frozen=True, slots=True)
class Note:
    """A text and the signatures under it."""

    text: str
    signatures: tuple[NoteSignature, ...] = ()

    @property
    def raw(self) -> bytes:
        """The bytes of the note."""
        return (self.text + "\n" + "".join(one.line for one in self.signatures)).encode()

    def with_signatures(self, *signatures: NoteSignature) -> Self:
        """The note with more lines under it."""
        return replace(self, signatures=(*self.signatures, *signatures))

    def signature_of(self, key: NoteKey) -> NoteSignature:
        """The first line of that key, not verified. Raises Refused(BAD_SIGNATURE) if there is none."""
        for one in self.signatures:
            if one.is_of(key):
                return one
        raise Refused(Reason.BAD_SIGNATURE, f"no signature of {key.name} with key id {key.id.hex()}")

    def verify(self, key: NoteKey) -> NoteSignature:
        """The first line of that key, which holds. Raises Refused: BAD_SIGNATURE, MALFORMED (its time)."""
        found = self.signature_of(key)
        verify_line(self.text, found, key)
        return found


def parse_note(raw: bytes) -> Note:
    """Read the bytes of a note. Raises Refused: MALFORMED, TOO_LARGE."""
    if len(raw) > NOTE_MAX:
        raise Refused(Reason.TOO_LARGE, f"a note of {len(raw)} bytes, {NOTE_MAX} are allowed")
    try:
        note = raw.decode()
    except UnicodeDecodeError:
        malformed("a note is UTF-8")
    if any(character < " " and character != "\n" for character in note):
        malformed("control characters in a note")
    text, gap, lines = note.rpartition("\n\n")
    if not gap or not lines.endswith("\n"):
        malformed("a note is a text, an empty line and lines of signatures")
    found = lines.removesuffix("\n").split("\n")
    if len(found) > SIGNATURES_MAX:
        raise Refused(Reason.TOO_LARGE, f"{len(found)} signatures under a note, {SIGNATURES_MAX} are allowed")
    return Note(text + "\n", tuple(parse_line(line) for line in found))


def parse_line(line: str) -> NoteSignature:
    """Read one signature line, without its newline. Raises Refused(MALFORMED)."""
    name, gap, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not gap:
        malformed("a signature line is a dash, a name and a signature")
    _check_name(name)
    data = _from_base64(encoded)
    if len(data) <= KEY_ID_SIZE:
        malformed("a signature line without a signature")
    return NoteSignature(name, data[:KEY_ID_SIZE], data[KEY_ID_SIZE:])


def sign_note(text: str, name: str, signer: Signer) -> NoteSignature:
    """A plain Ed25519 signature (type 1) for under a text; blocks as long as the signer does."""
    key = NoteKey(name, ED25519, signer.public_key)
    return NoteSignature(name, key.id, signer.sign(text.encode()))


def cosign(text: str, name: str, signer: Signer, timestamp: int) -> NoteSignature:
    """A cosignature (type 4) of that time, in Unix seconds, for under a checkpoint."""
    key = NoteKey(name, COSIGNATURE, signer.public_key)
    return NoteSignature(name, key.id, u64(timestamp) + signer.sign(_cosigned(text, timestamp)))


def verify_line(text: str, signature: NoteSignature, key: NoteKey) -> None:
    """Whether that key has signed that text. Raises Refused: BAD_SIGNATURE, MALFORMED (the time of a cosignature)."""
    if not signature.is_of(key):
        raise Refused(Reason.BAD_SIGNATURE, "a signature of another key")
    if key.kind == ED25519:
        verify_ed25519(key.public, signature.signature, text.encode())
    elif key.kind == COSIGNATURE:
        if signature.timestamp > TIMESTAMP_MAX:
            malformed("a cosignature of a time beyond 2^63 - 1")
        verify_ed25519(key.public, signature.signature[8:], _cosigned(text, signature.timestamp))
    else:
        raise Refused(Reason.UNSUPPORTED, f"signatures of type {key.kind}")


def _cosigned(text: str, timestamp: int) -> bytes:
    """What a cosignature signs (tlog-cosignature, Ed25519 signed message)."""
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


def _check_name(name: str) -> None:
    """signed-note: not empty, no Unicode spaces, no plus sign."""
    if not name or "+" in name or any(character.isspace() for character in name):
        malformed("the name of a note key is empty or has spaces or plus signs")


def _from_base64(text: str) -> bytes:
    """Standard base64 (RFC 4648, section 4) in its one encoding."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        _no_base64()
    if base64.b64encode(data).decode() != text:
        _no_base64()
    return data


def _no_base64() -> NoReturn:
    malformed("not base64")
