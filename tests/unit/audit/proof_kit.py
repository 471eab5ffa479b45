"""A store with a log that witnesses have seen: alice writes, bob and carol cosign."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.bodies import witnesses
from audit.checkpoint import Checkpoint
from audit.kept import KeptCheckpoint
from audit.store import AuditStore
from overlay.registry import EntryType
from tests.unit.audit.audit_kit import Writer, append_of
from tests.unit.core.authority_kit import Member, Mesh, make_member, make_mesh

NAMES = ("alice", "bob", "carol")


@dataclass
class Witnessed:
    """The logs of all three in one file, and who they are."""

    mesh: Mesh
    logs: dict[str, Writer]
    path: Path

    @property
    def alice(self) -> Writer:
        return self.logs["alice"]

    def store(self) -> AuditStore:
        return AuditStore.open_readonly(self.path)

    def checkpoint(self, size: int) -> Checkpoint:
        """Of alice's log as it is."""
        tree = append_of(self.cut(size)).state.tree
        return Checkpoint(
            mesh_id=self.mesh.mesh_id, node_id=self.alice.member.node_id, log_id=self.alice.log_id, size=size, root=tree.root
        )

    def cut(self, size: int) -> Writer:
        """Alice's log up to a size."""
        return Writer(self.mesh, self.alice.member, self.alice.opening, self.alice.log_id, self.alice.entries[:size])

    def kept(self, size: int, cosigned: Sequence[str] = ("bob", "carol"), at: int | None = None) -> KeptCheckpoint:
        """A checkpoint of alice's, cosigned by these at that time in Unix seconds."""
        one = self.checkpoint(size)
        note = one.sign(self.alice.member.message)
        for name in cosigned:
            member = self.logs[name].member
            assert member.witness is not None
            note = note.with_signatures(one.cosign(member.node_id, member.witness, at or int(self.mesh.at.timestamp()) + 60))
        return KeptCheckpoint(checkpoint=one, tree=append_of(self.cut(size)).state.tree, note=note)


def witnessed_store(
    path: Path, *, entries: int = 12, checkpoints: Sequence[tuple[int, Sequence[str]]] = ((6, ("bob", "carol")),),
    named: Sequence[str] = ("bob", "carol"), mesh: Mesh | None = None,
) -> Witnessed:
    """Alice's log: opening, who witnesses it (nobody: no such entry), notes; and checkpoints of these sizes."""
    mesh = mesh or make_mesh()
    members: dict[str, Member] = {name: make_member(mesh, name, witness=True) for name in NAMES}
    logs = {name: Writer.begin(mesh, member) for name, member in members.items()}
    for log in logs.values():
        log.open()
    if named:
        nodes = sorted(members[name].node_id for name in named)
        logs["alice"].keep(logs["alice"].sign(EntryType.WITNESSES, witnesses(nodes)))
    while len(logs["alice"].entries) < entries:
        logs["alice"].note(f"note {len(logs['alice'].entries)}")
    found = Witnessed(mesh, logs, path)
    store = AuditStore.open(path)
    records = [found.kept(size, cosigned) for size, cosigned in checkpoints]
    store.append_many([append_of(log) for log in logs.values()], records)
    store.close()
    return found
