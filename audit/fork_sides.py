"""The two sides of a fork proof: what a node has signed, with what shows that it was this node (docs/protocol/audit.md).

    side = {0:1, 1:[endorsement, leaf, [chain, ...]], 2:entry?, 3:note?, 4:index?, 5:leaf_hash?, 6:[hash32, ...]?}

Three forms: an entry (2), a head (3, a note with the author's line and no other), a leaf under a head (3 to 6).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from audit.checkpoint import Checkpoint, UnverifiedCheckpoint, parse_checkpoint
from audit.entry import Entry, UnverifiedEntry, parse_entry
from audit.notes import NOTE_MAX
from overlay.core.certificates import Root, verify_leaf
from overlay.core.endorsement import verify_endorsement
from overlay.core.keys import MeshId
from overlay.core.limits import CHAIN_BYTES_MAX, CHAIN_DEPTH_MAX, ENDORSEMENT_MAX, ENTRY_MAX
from overlay.core.merkle import HASH_SIZE, check_inclusion
from overlay.core.mesh.chains import SEQ_LAST
from overlay.core.trust import Credentials, VerifiedPeer
from overlay.core.wire import Array, Bytes, Maybe, Tuple, UInt, malformed, read_map
from overlay.errors import Refused
from overlay.registry import Reason

PATH_MAX: Final = 64  # hashes: a path in a tree of at most 2^53 leaves has at most 53 (RFC 9162, section 2.1.3)

_DER: Final = Bytes(1, CHAIN_BYTES_MAX)
_FORM: Final = (
    Tuple((Bytes(1, ENDORSEMENT_MAX), _DER, Array(_DER, CHAIN_DEPTH_MAX))), Maybe(Bytes(1, ENTRY_MAX)),
    Maybe(Bytes(1, NOTE_MAX)), Maybe(UInt(SEQ_LAST)), Maybe(Bytes(HASH_SIZE)), Maybe(Array(Bytes(HASH_SIZE), PATH_MAX)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SignedEntry:
    """An entry that its author has signed."""

    peer: VerifiedPeer
    entry: Entry


@dataclass(frozen=True, slots=True)
class SignedHead:
    """Size and root of a log, signed by its author."""

    peer: VerifiedPeer
    head: Checkpoint


@dataclass(frozen=True, slots=True)
class SignedLeaf:
    """What stands at an index under a head that its author has signed."""

    peer: VerifiedPeer
    head: Checkpoint
    index: int
    leaf: bytes  # hash of the entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A statement and the credentials of who made it. Nobody has verified anything."""

    credentials: Credentials
    entry: UnverifiedEntry | None = field(default=None, repr=False)
    head: UnverifiedCheckpoint | None = field(default=None, repr=False)
    index: int = 0
    leaf: bytes | None = None  # with a head: what stands there at `index`
    path: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def of_entry(cls, raw: bytes, credentials: Credentials) -> "Side":
        """An entry. Raises Refused, see `parse_entry`."""
        return cls(credentials=credentials, entry=parse_entry(raw))

    @classmethod
    def of_head(cls, note: bytes, credentials: Credentials) -> "Side":
        """A checkpoint; lines of others are left out. Raises Refused, see `parse_checkpoint`."""
        return cls(credentials=credentials, head=_author_only(parse_checkpoint(note)))

    @classmethod
    def of_leaf(
        cls, note: bytes, index: int, leaf: bytes, path: Sequence[bytes], credentials: Credentials
    ) -> "Side":
        """The leaf hash that stands at an index under a checkpoint."""
        return cls(
            credentials=credentials, head=_author_only(parse_checkpoint(note)), index=index, leaf=leaf, path=tuple(path)
        )

    def fields(self) -> dict[int, Any]:
        """As it stands in the proof."""
        shown = self.credentials
        found: dict[int, Any] = {0: 1, 1: [shown.endorsement, shown.leaf, list(shown.chain)]}
        if self.entry is not None:
            found[2] = self.entry.says.raw
        if self.head is not None:
            found[3] = self.head.note.raw
        if self.leaf is not None:
            found |= {4: self.index, 5: self.leaf, 6: list(self.path)}
        return found

    @classmethod
    def read(cls, value: object) -> "Side":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        (endorsement, leaf, chain), entry, note, *place = read_map(value, *_FORM)
        credentials = Credentials(endorsement, leaf, tuple(chain))
        present = [one is not None for one in (entry, note, *place)]
        if present == [True, False, False, False, False]:
            return cls.of_entry(entry, credentials)
        if present not in ([False, True, False, False, False], [False, True, True, True, True]):
            malformed("a side of a fork proof is an entry, a head, or a leaf under a head")
        side = cls.of_leaf(note, place[0], place[1], place[2], credentials) if present[2] else cls.of_head(note, credentials)
        if side.fields().get(3) != note:
            malformed("the note of a fork proof has its author's line and no other")
        return side

    def verify(self, root: Root, at: datetime) -> SignedEntry | SignedHead | SignedLeaf:
        """What this node has signed under keys that are in force at that time.

        Raises:
            Refused: see `verify_leaf` and `verify_endorsement`; BAD_ENDORSEMENT (an entry under another one), WRONG_AUTHOR,
                OTHER_MESH, BAD_SIGNATURE, CHAIN_BROKEN (the leaf does not stand there).
        """
        shown = self.credentials
        certificate = verify_leaf(shown.leaf, shown.chain, root, at)
        peer = VerifiedPeer(certificate, verify_endorsement(shown.endorsement, certificate, root.mesh_id, at))
        if self.entry is not None:
            return SignedEntry(peer, _verify_entry(self.entry, peer, root.mesh_id))
        if self.head is None:
            malformed("an empty side")
        head = _verify_head(self.head, peer, root.mesh_id)
        if self.leaf is None:
            return SignedHead(peer, head)
        check_inclusion(self.leaf, self.index, head.size, self.path, head.root)
        return SignedLeaf(peer, head, self.index, self.leaf)


def _author_only(found: UnverifiedCheckpoint) -> UnverifiedCheckpoint:
    """The checkpoint with the first line under its origin alone."""
    lines = [one for one in found.note.signatures if one.name == found.says.origin]
    if not lines:
        raise Refused(Reason.BAD_SIGNATURE, "a checkpoint without its author's line")
    return parse_checkpoint(type(found.note)(found.note.text, (lines[0],)).raw)


def _verify_entry(unverified: UnverifiedEntry, peer: VerifiedPeer, mesh_id: MeshId) -> Entry:
    if unverified.says.kid != peer.kid:
        raise Refused(Reason.BAD_ENDORSEMENT, "an entry under another endorsement than the one beside it")
    if unverified.says.node_id != peer.node_id:
        raise Refused(Reason.WRONG_AUTHOR, "an entry of another node than the one that signed it")
    return unverified.verify(peer.message_public, mesh_id)


def _verify_head(unverified: UnverifiedCheckpoint, peer: VerifiedPeer, mesh_id: MeshId) -> Checkpoint:
    if unverified.says.mesh_id != mesh_id:
        raise Refused(Reason.OTHER_MESH, "a checkpoint of another mesh")
    if unverified.says.node_id != peer.node_id:
        raise Refused(Reason.WRONG_AUTHOR, "a checkpoint of another node than the one that signed it")
    return unverified.verify(peer.message_public)
