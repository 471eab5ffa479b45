"""A log for tests: a member of a test mesh writes entries, good ones and, where a field is given, bad ones."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from audit.bodies import LogOpen, application, endorsement_body
from audit.chain import Append, ChainState, extend
from audit.entry import Entry, Place, make_log_id, sign_entry
from audit.store import AuditStore
from overlay.core.keys import NodeId, Signer
from overlay.core.mesh.chains import hlc_of
from overlay.registry import GENESIS, EntryType
from tests.unit.core.authority_kit import Member, Mesh, make_member, make_mesh

SECOND = timedelta(seconds=1)


@dataclass
class Writer:
    """Writes a log as an author does, but checks nothing. `entries` are all that it wrote."""

    mesh: Mesh
    member: Member
    opening: LogOpen
    log_id: bytes
    entries: list[Entry] = field(default_factory=list)

    @classmethod
    def begin(cls, mesh: Mesh, member: Member, opening: LogOpen | None = None) -> "Writer":
        """A writer of a log whose first entry is not written yet."""
        opening = opening or LogOpen(k=0, credentials=member.credentials)
        last = opening.former.last if opening.former else GENESIS
        return cls(mesh, member, opening, make_log_id(mesh.mesh_id, member.node_id, opening.k, last, member.start_id))

    @property
    def raws(self) -> list[bytes]:
        return [entry.raw for entry in self.entries]

    @property
    def place(self) -> Place:
        """Where the next entry belongs, a second after the one before."""
        at = self.entries[-1].at + SECOND if self.entries else self.mesh.at
        prev = self.entries[-1].hash if self.entries else GENESIS
        return Place(node_id=self.member.node_id, log_id=self.log_id, seq=len(self.entries), prev=prev, hlc=hlc_of(at))

    def sign(
        self, kind: int, body: Mapping[int, Any], *, signer: Signer | None = None, kid: bytes | None = None,
        mesh: Mesh | None = None, **place: Any,
    ) -> Entry:
        """An entry that is not kept; any field can be given."""
        return sign_entry(
            replace(self.place, **place), kind, body, signer=signer or self.member.message, kid=kid or self.member.kid,
            mesh_id=(mesh or self.mesh).mesh_id,
        )

    def open(self, **fields: Any) -> Entry:
        return self.keep(self.sign(EntryType.LOG_OPEN, self.opening.body(), **fields))

    def note(self, text: str = "note", **fields: Any) -> Entry:
        return self.keep(self.sign(EntryType.APPLICATION, application("test", text), **fields))

    def change_to(self, member: Member, **fields: Any) -> Entry:
        """An entry `endorsement`; what follows is written under it."""
        self.member = member
        return self.keep(self.sign(EntryType.ENDORSEMENT, endorsement_body(member.credentials), **fields))

    def keep(self, entry: Entry) -> Entry:
        self.entries.append(entry)
        return entry


def start_of(writer: Writer) -> ChainState:
    """The state before the first entry."""
    return ChainState(node_id=writer.member.node_id, log_id=writer.log_id)


def state_after(writer: Writer, *, at: datetime | None = None) -> ChainState:
    """The state after all that the writer kept."""
    extension = extend(start_of(writer), writer.raws, writer.mesh.root, at=at)
    assert extension.held is None
    return extension.state


def some_log(entries: int = 3, *, name: str = "alice", mesh: Mesh | None = None, start: int = 1) -> Writer:
    """A log that holds: log.open, then notes."""
    mesh = mesh or make_mesh()
    writer = Writer.begin(mesh, make_member(mesh, name, start=start))
    writer.open()
    for number in range(1, entries):
        writer.note(f"note {number}")
    return writer


def other_node() -> NodeId:
    return NodeId(b"\7" * 32)


def append_of(writer: Writer, start: int = 0) -> Append:
    """The writer's entries from `start` on, ready to be stored."""
    return Append(state=state_after(writer), entries=tuple(writer.entries[start:]))


def stored_logs(path: Path, *writers: Writer) -> Path:
    """A store with these logs, closed again."""
    store = AuditStore.open(path)
    store.append_many([append_of(writer) for writer in writers])
    store.close()
    return path


def edit(path: Path, statement: str, *values: object) -> None:
    """Change a store behind everybody's back."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = DELETE")
    assert connection.execute(statement, values).rowcount != 0
    connection.close()
