"""Forks for tests: what a node signs that tells two stories, and a proof of it."""

from dataclasses import dataclass
from datetime import datetime

from audit.checkpoint import Checkpoint
from audit.entry import Entry
from audit.fork_sides import Side
from audit.forks import ForkProof, make_fork, parse_fork
from overlay.core.merkle import inclusion_proof, root_of
from overlay.registry import ForkKind
from tests.unit.audit.audit_kit import Writer, some_log
from tests.unit.core.authority_kit import Member, Mesh, make_member, make_mesh

EVE = "eve"


@dataclass
class Forker:
    """A node that writes two histories of one log; they have their first entries in common."""

    mesh: Mesh
    member: Member
    left: Writer
    right: Writer

    @classmethod
    def after(cls, common: int, left: int = 2, right: int = 2, *, mesh: Mesh | None = None, name: str = EVE) -> "Forker":
        mesh = mesh or make_mesh()
        one = some_log(common, name=name, mesh=mesh)
        other = Writer(mesh, one.member, one.opening, one.log_id, list(one.entries))
        for number in range(left):
            one.note(f"left {number}")
        for number in range(right):
            other.note(f"right {number}")
        return cls(mesh, one.member, one, other)

    @property
    def common(self) -> int:
        pairs = zip(self.left.entries, self.right.entries, strict=False)
        return next(at for at, (one, other) in enumerate(pairs) if one.hash != other.hash)

    def proof(self) -> bytes:
        """Of two entries."""
        at = self.common
        return make_fork(ForkKind.ENTRIES, entry_side(self.left, at), entry_side(self.right, at))


def entry_side(writer: Writer, seq: int, *, member: Member | None = None) -> Side:
    return Side.of_entry(writer.entries[seq].raw, (member or writer.member).credentials)


def head_of(writer: Writer, size: int) -> Checkpoint:
    root = root_of([entry.hash for entry in writer.entries[:size]])
    return Checkpoint(
        mesh_id=writer.mesh.mesh_id, node_id=writer.member.node_id, log_id=writer.log_id, size=size, root=root
    )


def note_of(writer: Writer, size: int, *, member: Member | None = None) -> bytes:
    return head_of(writer, size).sign((member or writer.member).message).raw


def head_side(writer: Writer, size: int) -> Side:
    return Side.of_head(note_of(writer, size), writer.member.credentials)


def leaf_side(writer: Writer, size: int, index: int) -> Side:
    hashes = [entry.hash for entry in writer.entries[:size]]
    path = inclusion_proof(hashes, index)
    return Side.of_leaf(note_of(writer, size), index, hashes[index], path, writer.member.credentials)


def check(raw: bytes, mesh: Mesh, at: datetime | None = None) -> ForkProof:
    return parse_fork(raw).verify(mesh.root, at or mesh.at)


def honest_entry(mesh: Mesh, name: str = "bob") -> Entry:
    return some_log(1, name=name, mesh=mesh).entries[0]


def another_start(mesh: Mesh, name: str = EVE, start: int = 2) -> Member:
    """The same node after a restart: other message key, other endorsement."""
    return make_member(mesh, name, start=start)
