"""Checkpoints: what the author of a log, and others with it, sign of its size and root (docs/protocol/audit.md).

    <mesh_id>/<node_id>/<log_id>      base32, base32, hex: the origin
    <size>
    <root>                            base64

as a C2SP signed note (https://c2sp.org/tlog-checkpoint). The author signs with its message key under the origin as key
name; a witness cosigns with its witness key under the name `<mesh_id>/<node_id>/w`.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from audit.entry import LOG_ID_SIZE
from audit.notes import COSIGNATURE, ED25519, Note, NoteKey, NoteSignature, cosign, parse_note, sign_note, verify_line
from overlay.core.keys import MeshId, NodeId, Signer
from overlay.core.merkle import HASH_SIZE
from overlay.core.mesh.chains import SEQ_LAST
from overlay.core.wire import malformed
from overlay.errors import Refused
from overlay.registry import Reason

_SIZE: Final = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)  # at most 2^53; nobody signs an empty log
_LINES: Final = 3  # extension lines are not recommended, and refused here


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Size and root of a log. As a value it proves nothing: see `UnverifiedCheckpoint`."""

    mesh_id: MeshId
    node_id: NodeId  # the author
    log_id: bytes  # 16
    size: int  # 1 or more
    root: bytes  # 32

    @property
    def origin(self) -> str:
        """Which log."""
        return f"{self.mesh_id}/{self.node_id}/{self.log_id.hex()}"

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def author_key(self, message_public: bytes) -> NoteKey:
        """The author's message key, as a key for notes."""
        return NoteKey(self.origin, ED25519, message_public)

    def sign(self, message: Signer) -> Note:
        """The checkpoint as a note by the author's message key."""
        return Note(self.text, (sign_note(self.text, self.origin, message),))

    def cosign(self, witness_id: NodeId, witness: Signer, timestamp: int) -> NoteSignature:
        """The line of a witness, at that time in Unix seconds."""
        return cosign(self.text, witness_name(self.mesh_id, witness_id), witness, timestamp)


@dataclass(frozen=True, slots=True)
class UnverifiedCheckpoint:
    """A note of the right form: nobody has looked at its signatures."""

    says: Checkpoint
    note: Note = field(repr=False)

    def verify(self, message_public: bytes) -> Checkpoint:
        """The checkpoint, if that message key signed it. Raises Refused(BAD_SIGNATURE)."""
        self.note.verify(self.says.author_key(message_public))
        return self.says

    def verify_any(self, message_publics: Iterable[bytes]) -> bytes:
        """Which of the author's message keys signed it. Raises Refused(BAD_SIGNATURE) if none did."""
        for public in message_publics:
            if any(one.is_of(self.says.author_key(public)) for one in self.note.signatures):
                self.verify(public)
                return public
        raise Refused(Reason.BAD_SIGNATURE, "the author's keys that are known have not signed it")

    @property
    def cosignatures(self) -> tuple[NoteSignature, ...]:
        """The lines that are not the author's, of anybody."""
        return tuple(one for one in self.note.signatures if one.name != self.says.origin)


def parse_checkpoint(raw: bytes) -> UnverifiedCheckpoint:
    """Read a checkpoint of ours. Raises Refused: MALFORMED, TOO_LARGE."""
    note = parse_note(raw)
    return UnverifiedCheckpoint(read_checkpoint(note.text), note)


def read_checkpoint(text: str) -> Checkpoint:
    """What a note's text says. Raises Refused(MALFORMED), also for any other encoding of the same."""
    lines = text.removesuffix("\n").split("\n")
    if len(lines) != _LINES:
        malformed("a checkpoint has three lines")
    origin, size, root = lines
    if not _SIZE.fullmatch(size) or int(size) > SEQ_LAST + 1:
        malformed("the size of a checkpoint")
    try:
        mesh, node, log = origin.split("/")
        found = Checkpoint(
            mesh_id=MeshId.parse(mesh), node_id=NodeId.parse(node), log_id=bytes.fromhex(log), size=int(size),
            root=base64.b64decode(root, validate=True),
        )  # fmt: skip
    except (ValueError, binascii.Error):
        malformed("the origin or root of a checkpoint")
    if len(found.log_id) != LOG_ID_SIZE or len(found.root) != HASH_SIZE or found.text != text:
        malformed("the origin or root of a checkpoint")
    return found


def witness_name(mesh_id: MeshId, witness_id: NodeId) -> str:
    """The name under which a witness cosigns."""
    return f"{mesh_id}/{witness_id}/w"


def witness_key(mesh_id: MeshId, witness_id: NodeId, witness_public: bytes) -> NoteKey:
    """A witness's key, as a key for notes."""
    return NoteKey(witness_name(mesh_id, witness_id), COSIGNATURE, witness_public)


def verify_cosignature(checkpoint: Checkpoint, signature: NoteSignature, witness_id: NodeId, witness_public: bytes) -> int:
    """When that witness cosigned it, in Unix seconds. Raises Refused: BAD_SIGNATURE, MALFORMED."""
    verify_line(checkpoint.text, signature, witness_key(checkpoint.mesh_id, witness_id, witness_public))
    return signature.timestamp
