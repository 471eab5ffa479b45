"""A proof for who knows the mesh's root and nothing else: who wrote an entry, where it stands, and who has witnessed it.

The extra line of the tlog-proof carries what was written beside the entry; none of it is believed unverified:

    {0:1, 1:root, 2:entry, 3:[entry with keys, ...], 4:witnesses?, 5:[hash32, ...], 6:authority?}

1: the certificate of the founding root. 3: the entries that carry the keys which signed entry, checkpoint and cosignatures.
4: the entry that names the witnesses, 5: its path to the same root. 6: the authority objects, where recovery keys have put
a root in place.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from audit.bodies import read_body
from audit.chain import KEYED, KeyInForce, verify_key
from audit.checkpoint import Checkpoint, witness_key, witness_name
from audit.entry import Entry, UnverifiedEntry, parse_entry
from audit.notes import NoteKey, NoteSignature, verify_line
from audit.quorum import WitnessSet, is_timely, witness_set
from audit.tlog_proof import EXTRA_MAX, PATH_MAX, TlogProof
from overlay.core.authority.stored_chain import unpack_chain
from overlay.core.certificates import Root, parse_root
from overlay.core.keys import MeshId, NodeId
from overlay.core.limits import ENTRY_MAX
from overlay.core.merkle import HASH_SIZE, check_inclusion
from overlay.core.wire import Array, Bytes, Maybe, make_map, open_map
from overlay.errors import Refused
from overlay.registry import EntryType, Reason

KEYS_MAX: Final = 16  # entries with keys: of the author at most two, of up to seven witnesses one each
ROOT_MAX: Final = 8192  # bytes
_ENTRY: Final = Bytes(1, ENTRY_MAX)
_FORM: Final = (
    Bytes(1, ROOT_MAX), _ENTRY, Array(_ENTRY, KEYS_MAX), Maybe(_ENTRY), Array(Bytes(HASH_SIZE), PATH_MAX),
    Maybe(Bytes(1, EXTRA_MAX)),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """What stands beside: bytes, not verified."""

    root: bytes
    entry: bytes = field(repr=False)
    keys: tuple[bytes, ...] = field(repr=False)
    witnesses: bytes | None = field(default=None, repr=False)
    witnesses_path: tuple[bytes, ...] = field(default=(), repr=False)
    authority: bytes | None = field(default=None, repr=False)

    def pack(self) -> bytes:
        """For the extra line."""
        return make_map(
            self.root, self.entry, list(self.keys), self.witnesses, list(self.witnesses_path), self.authority
        )

    @classmethod
    def unpack(cls, data: bytes) -> "Extra":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        root, entry, keys, witnesses, path, authority = open_map(data, *_FORM, limit=EXTRA_MAX)
        return cls(
            root=root, entry=entry, keys=tuple(keys), witnesses=witnesses, witnesses_path=tuple(path), authority=authority
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedProof:
    """All of this is proven."""

    entry: Entry
    name: str  # of the author, by its certificate
    checkpoint: Checkpoint
    witnesses: WitnessSet  # that the author has named
    cosigned: Mapping[NodeId, int]  # when, in Unix seconds, by their own clocks
    author_key: NoteKey
    witness_keys: tuple[NoteKey, ...] = ()
    not_after: datetime  # when the endorsement ended under which the entry was written

    @property
    def witnessed_at(self) -> datetime | None:
        """Since when enough witnesses have seen it; None: too few."""
        at = self.witnesses.reached_at(self.cosigned)
        return None if at is None else datetime.fromtimestamp(at, UTC)

    @property
    def timely(self) -> bool:
        """Whether it was witnessed before the key that signed it had ended: else only its author says when."""
        return is_timely(self.witnesses.reached_at(self.cosigned), self.not_after)

    @property
    def line(self) -> str:
        """For people."""
        entry = f"entry {self.entry.seq} of {self.name}, log {self.entry.log_id.hex()[:8]}"
        if self.witnessed_at is None:
            said = f"witnessed by too few: {self.witnesses.sentence(len(self.cosigned))}"
            return f"{entry} holds; {said if self.witnesses.nodes else 'nobody has witnessed it'}"
        late = "" if self.timely else "; witnessed too late to prove when it was written"
        sentence = self.witnesses.sentence(len(self.cosigned))
        return f"{entry} holds; witnessed at {self.witnessed_at:%Y-%m-%d %H:%M:%S} UTC by {sentence}{late}"


def check_proof(proof: TlogProof, mesh: MeshId | Root) -> CheckedProof:
    """Verify all of a proof, by the mesh's root or its id alone; nothing is asked of anybody.

    Raises:
        Refused: OTHER_MESH; CHAIN_BROKEN, the entry is not there; BAD_SIGNATURE; BAD_ENDORSEMENT, no key of its author is
            shown; and whatever `parse_entry` and `verify_key` raise.
    """
    extra = Extra.unpack(proof.extra)
    root = _root(extra, mesh)
    says = proof.checkpoint.says
    if says.mesh_id != root.mesh_id:
        raise Refused(Reason.OTHER_MESH, "the checkpoint is of another mesh")
    keys = [_key(raw, root) for raw in extra.keys]
    own = [key for key in keys if key.peer.node_id == says.node_id]
    entry, key = _entry(parse_entry(extra.entry), own, root)
    _check_place(entry, proof.index, proof.path, says)
    author = proof.checkpoint.verify_any([one.peer.message_public for one in own])
    witnesses = _witnesses(extra, own, says, root)
    lines = {node: found for node in witnesses.nodes if (found := _cosigned(proof, node, keys)) is not None}
    return CheckedProof(
        entry=entry, name=key.peer.name, checkpoint=says, witnesses=witnesses,
        cosigned={node: line.timestamp for node, (line, _) in lines.items()}, author_key=says.author_key(author),
        witness_keys=tuple(one for _, one in lines.values()), not_after=key.not_after,
    )


def _root(extra: Extra, mesh: MeshId | Root) -> Root:
    """The founding root that is meant, with those that recovery put in its place."""
    root = mesh if isinstance(mesh, Root) else parse_root(extra.root)
    mesh_id = mesh.mesh_id if isinstance(mesh, Root) else mesh
    if root.mesh_id != mesh_id:
        raise Refused(Reason.OTHER_MESH, f"the proof is of the mesh {root.mesh_id}")
    return root_with(root, extra.authority)


def root_with(root: Root, authority: bytes | None) -> Root:
    """The founding root, and those that recovery keys have put in its place. Raises Refused for objects that do not hold."""
    if authority is None:
        return root
    recovered = unpack_chain(authority, root).recovered_roots
    return replace(root, recovered=lambda: recovered)


def _key(raw: bytes, root: Root) -> KeyInForce:
    """The key that an entry carries, verified up to the root; the entry is signed under it."""
    unverified = parse_entry(raw)
    if unverified.says.type not in KEYED:
        raise Refused(Reason.MALFORMED, "an entry without keys where one with keys was expected")
    key = verify_key(unverified.says, root)
    unverified.verify(key.peer.message_public, root.mesh_id)
    return key


def _entry(unverified: UnverifiedEntry, own: Iterable[KeyInForce], root: Root) -> tuple[Entry, KeyInForce]:
    """The entry, and the key that signed it."""
    says = unverified.says
    for key in own:
        if key.kid == says.kid and key.peer.node_id == says.node_id:
            if not key.not_before <= says.at <= key.not_after:
                raise Refused(Reason.NOT_IN_FORCE, "the entry was not written in the life of its endorsement")
            return unverified.verify(key.peer.message_public, root.mesh_id), key
    raise Refused(Reason.BAD_ENDORSEMENT, "the key under which the entry is signed is not shown")


def _check_place(entry: Entry, index: int, path: tuple[bytes, ...], checkpoint: Checkpoint) -> None:
    """The entry stands there, in that log."""
    if (entry.node_id, entry.log_id, entry.seq) != (checkpoint.node_id, checkpoint.log_id, index):
        raise Refused(Reason.CHAIN_BROKEN, "the checkpoint is of another log, or the index is another one")
    check_inclusion(entry.hash, index, checkpoint.size, path, checkpoint.root)


def _witnesses(extra: Extra, own: Iterable[KeyInForce], checkpoint: Checkpoint, root: Root) -> WitnessSet:
    """Those whom the author has named in the log."""
    if extra.witnesses is None:
        return WitnessSet()
    unverified = parse_entry(extra.witnesses)
    if unverified.says.type != EntryType.WITNESSES:
        raise Refused(Reason.MALFORMED, "an entry of another type where one with witnesses was expected")
    entry = unverified.says  # its place under the author's checkpoint is as good as a signature
    _check_place(entry, entry.seq, extra.witnesses_path, checkpoint)
    return witness_set(read_body(EntryType.WITNESSES, entry.body)["nodes"])


def _cosigned(proof: TlogProof, node: NodeId, keys: Iterable[KeyInForce]) -> tuple[NoteSignature, NoteKey] | None:
    """The first line of a witness that holds, under a key that was in force at the time that it says."""
    checkpoint, note = proof.checkpoint.says, proof.checkpoint.note
    mine = [line for line in note.signatures if line.name == witness_name(checkpoint.mesh_id, node)]
    for key in keys:
        public = key.peer.endorsement.witness_public
        if public is None or key.peer.node_id != node:
            continue
        named = witness_key(checkpoint.mesh_id, node, public)
        for line in mine:
            if line.is_of(named) and int(key.not_before.timestamp()) <= line.timestamp <= int(key.not_after.timestamp()):
                verify_line(checkpoint.text, line, named)
                return line, named
    return None
