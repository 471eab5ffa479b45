"""Proofs that an entry stands in a log, as C2SP defines them (https://c2sp.org/tlog-proof), so that other tools check ours.

    c2sp.org/tlog-proof@v1
    extra <base64>                  not signed by anybody: what our own verifier needs beside (audit/proofs.py)
    index <number>
    <base64 of a hash>              the path, from the leaf's sibling up; as many lines as there are

    <the checkpoint, a signed note>
"""

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

from audit.checkpoint import UnverifiedCheckpoint, parse_checkpoint
from audit.notes import NOTE_MAX
from overlay.core.limits import ENTRY_MAX
from overlay.core.merkle import HASH_SIZE
from overlay.core.mesh.chains import SEQ_LAST
from overlay.core.wire import malformed
from overlay.errors import Refused
from overlay.registry import Reason

FIRST_LINE: Final = "c2sp.org/tlog-proof@v1"
PATH_MAX: Final = 64  # hashes: a tree of 2^53 leaves has paths of 53
EXTRA_MAX: Final = 8 * ENTRY_MAX  # bytes: our guess; the entry, and one with keys for each of its author and its witnesses
PROOF_MAX: Final = EXTRA_MAX * 4 // 3 + NOTE_MAX + 8192

_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,15})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlogProof:
    """A proof of the right form. Nobody has verified anything."""

    index: int
    path: tuple[bytes, ...] = field(repr=False)
    checkpoint: UnverifiedCheckpoint
    extra: bytes = field(default=b"", repr=False)

    @property
    def raw(self) -> bytes:
        """The bytes of the proof."""
        extra = [f"extra {_base64(self.extra)}"] if self.extra else []
        lines = [FIRST_LINE, *extra, f"index {self.index}", *map(_base64, self.path), "", ""]
        return "\n".join(lines).encode() + self.checkpoint.note.raw


def parse_tlog_proof(raw: bytes) -> TlogProof:
    """Read a proof with a checkpoint of ours. Raises Refused: MALFORMED, TOO_LARGE."""
    if len(raw) > PROOF_MAX:
        raise Refused(Reason.TOO_LARGE, f"a proof of {len(raw)} bytes, {PROOF_MAX} are allowed")
    head, gap, note = raw.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        malformed("a proof is ASCII up to its checkpoint")
    if not gap or first != FIRST_LINE or not lines:
        malformed(f"a proof begins with {FIRST_LINE}")
    extra = b""
    if lines[0].startswith("extra "):
        extra = _bytes(lines.pop(0).removeprefix("extra "))
    found = _INDEX.fullmatch(lines[0]) if lines else None
    if found is None or int(found[1]) > SEQ_LAST or len(lines) > PATH_MAX + 1:
        malformed("the index of a proof, or its path is too long")
    path = tuple(map(_bytes, lines[1:]))
    if any(len(node) != HASH_SIZE for node in path):
        malformed("a hash of a proof has 32 bytes")
    return TlogProof(index=int(found[1]), path=path, checkpoint=parse_checkpoint(note), extra=extra)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    """Standard base64 in its one encoding."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        malformed("not base64")
    if not data or _base64(data) != text:
        malformed("not base64")
    return data
