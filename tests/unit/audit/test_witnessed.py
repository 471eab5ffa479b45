"""What a store alone proves of witnesses: who counts, since when, what is unproven, and what a checkpoint gives away."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from audit.bodies import witnesses
from audit.checkpoint import Checkpoint, UnverifiedCheckpoint
from audit.judged import WitnessReport
from audit.kept import KeptCheckpoint
from audit.notes import NoteSignature
from audit.quorum import WitnessSet
from audit.store import AuditStore
from audit.verifier import verify_store
from audit.witnessed import Judge
from overlay.core.merkle import Tree
from overlay.errors import Refused
from overlay.registry import EntryType, Reason
from tests.unit.audit.audit_kit import SECOND, Writer, append_of, edit, some_log
from tests.unit.core.authority_kit import DAY, HOUR, Member, make_member, make_mesh

MESH = make_mesh()
ALICE = make_member(MESH, "alice", endorsement_life=HOUR)
BOB, CAROL, DAVE = (make_member(MESH, name, witness=True) for name in ("bob", "carol", "dave"))
END = ALICE.peer.endorsement.not_after
SOON = MESH.at + timedelta(minutes=5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.sqlite3"


def alices(*nodes: Member, notes: int = 3) -> Writer:
    """Her log: log.open, who witnesses it, notes."""
    writer = Writer.begin(MESH, ALICE)
    writer.open()
    writer.keep(writer.sign(EntryType.WITNESSES, witnesses(sorted(node.node_id for node in nodes))))
    for number in range(notes):
        writer.note(str(number))
    return writer


def checkpoint(writer: Writer, size: int) -> KeptCheckpoint:
    tree = Tree().extend(entry.hash for entry in writer.entries[:size])
    one = Checkpoint(
        mesh_id=MESH.mesh_id, node_id=writer.member.node_id, log_id=writer.log_id, size=size, root=tree.root
    )
    return KeptCheckpoint(checkpoint=one, tree=tree, note=one.sign(writer.member.message))


def line(kept: KeptCheckpoint, member: Member, at: datetime = SOON) -> NoteSignature:
    assert member.witness is not None
    return kept.checkpoint.cosign(member.node_id, member.witness, int(at.timestamp()))


def cosigned(kept: KeptCheckpoint, *lines: NoteSignature) -> KeptCheckpoint:
    return replace(kept, note=kept.note.with_signatures(*lines))


class Kept:
    """A store with these logs and checkpoints, and its judge."""

    def __init__(self, path: Path, *writers: Writer, kept: tuple[KeptCheckpoint, ...] = ()) -> None:
        self.store = AuditStore.open(path)
        self.store.append_many([append_of(one) for one in writers], kept)
        self.judge = Judge(self.store, MESH.root)

    def report(self, writer: Writer, at: datetime | None = SOON) -> WitnessReport:
        return self.judge.report(writer.member.node_id, writer.log_id, len(writer.entries), at)


def shown(*members: Member) -> list[Writer]:
    """Logs that show the keys of these."""
    found = [Writer.begin(MESH, member) for member in members]
    for one in found:
        one.open()
    return found


def test_a_checkpoint_is_witnessed_by_q_of_those_whom_the_log_names(path: Path) -> None:
    log = alices(BOB, CAROL, DAVE)
    one = checkpoint(log, 4)
    kept = Kept(path, log, *shown(BOB, CAROL, DAVE), kept=(cosigned(one, line(one, BOB), line(one, CAROL, SOON + SECOND)),))
    (found,) = kept.judge.witnessed(log.log_id)
    assert found.at == int((SOON + SECOND).timestamp())
    assert found.sentence == "2 of 3, tolerates 0 liars"
    assert kept.report(log).line == "witnessed up to 4: 2 of 3, tolerates 0 liars"
    kept.store.close()
    (report, *_) = [log for log in verify_store(path, MESH.root).logs if log.node_id == ALICE.node_id]
    assert report.line.endswith("; witnessed up to 4: 2 of 3, tolerates 0 liars")


def bad_lines(one: KeptCheckpoint) -> Iterator[tuple[str, NoteSignature]]:
    good = line(one, CAROL)
    yield "a node that is no witness of this log", line(one, DAVE)
    yield "a time before the endorsement", line(one, CAROL, CAROL.peer.endorsement.not_before - SECOND)
    yield "a time after the endorsement", line(one, CAROL, CAROL.peer.endorsement.not_after + SECOND)
    yield "another key", NoteSignature(good.name, good.key_id, line(one, DAVE).signature)
    yield "another time", NoteSignature(good.name, good.key_id, bytes(8) + good.signature[8:])
    yield "no cosignature", NoteSignature(good.name, good.key_id, bytes(64))
    yield "the message key", one.checkpoint.cosign(CAROL.node_id, CAROL.message, int(SOON.timestamp()))
    yield "the same witness twice", line(one, BOB, SOON + SECOND)


@pytest.mark.parametrize("what", [what for what, _ in bad_lines(checkpoint(alices(BOB, CAROL), 4))])
def test_a_cosignature_that_does_not_hold_does_not_count(path: Path, what: str) -> None:
    log = alices(BOB, CAROL)
    one = checkpoint(log, 4)
    kept = Kept(path, log, *shown(BOB, CAROL, DAVE), kept=(cosigned(one, line(one, BOB), dict(bad_lines(one))[what]),))
    (found,) = kept.judge.witnessed(log.log_id)
    assert (found.at, set(found.lines)) == (None, {BOB.node_id})
    assert kept.report(log).line == "not witnessed: 1 of 2, tolerates 0 liars"
    kept.store.close()


def test_a_witness_whose_log_has_not_shown_its_key_does_not_count_yet(path: Path) -> None:
    log = alices(BOB)
    one = checkpoint(log, 4)
    kept = Kept(path, log, kept=(cosigned(one, line(one, BOB)),))
    assert kept.judge.witnessed(log.log_id)[0].at is None
    kept.store.append_many([append_of(one) for one in shown(BOB)])
    assert kept.judge.witnessed(log.log_id)[0].at is None
    kept.judge.forget(BOB.node_id)
    assert kept.judge.witnessed(log.log_id)[0].at is not None
    kept.store.close()


def test_a_checkpoint_by_another_key_than_the_authors_does_not_count(path: Path) -> None:
    log = alices(BOB)
    one = checkpoint(log, 4)
    forged = replace(one, note=one.checkpoint.sign(BOB.message).with_signatures(line(one, BOB)))
    kept = Kept(path, log, *shown(BOB), kept=(forged,))
    assert kept.judge.witnessed(log.log_id) == []
    with pytest.raises(Refused) as refused:
        kept.judge.check_author(UnverifiedCheckpoint(one.checkpoint, forged.note))
    assert refused.value.reason is Reason.BAD_SIGNATURE
    kept.store.close()


def test_a_checkpoint_is_judged_by_the_last_set_that_it_covers(path: Path) -> None:
    log = alices(BOB)
    log.keep(log.sign(EntryType.WITNESSES, witnesses([BOB.node_id, CAROL.node_id])))
    before, after = checkpoint(log, 5), checkpoint(log, 6)
    kept = Kept(path, log, *shown(BOB, CAROL), kept=tuple(cosigned(one, line(one, BOB)) for one in (before, after)))
    later, earlier = kept.judge.witnessed(log.log_id)
    assert (earlier.at, earlier.sentence) == (int(SOON.timestamp()), "1 of 1, tolerates 0 liars")
    assert (later.at, later.sentence) == (None, "1 of 2, tolerates 0 liars")
    assert kept.report(log).size == 5
    kept.store.close()


@pytest.mark.parametrize(("at", "proven"), [(END, 4), (END + timedelta(minutes=10), 4), (END + timedelta(minutes=11), 0)])
def test_what_was_witnessed_too_late_is_unproven_once_the_endorsement_has_ended(path: Path, at: datetime, proven: int) -> None:
    log = alices(BOB)
    one = checkpoint(log, 4)
    kept = Kept(path, log, *shown(BOB), kept=(cosigned(one, line(one, BOB, at)),))
    assert kept.report(log, END).unproven == ()
    assert kept.report(log, None).unproven == ()
    assert kept.report(log, END + SECOND).unproven == (range(proven, 5),)
    assert "unproven from entry" in kept.report(log, END + SECOND).line
    kept.store.close()


def test_single_entries_are_marked(path: Path) -> None:
    log = alices(BOB)
    one = checkpoint(log, 3)
    kept = Kept(path, log, *shown(BOB), kept=(cosigned(one, line(one, BOB)),))
    assert kept.judge.unproven(log.entries, END) == frozenset()
    assert kept.judge.unproven(log.entries, END + SECOND) == {entry.hash for entry in log.entries[3:]}
    stranger = some_log(1, mesh=MESH, name="eve").entries
    assert kept.judge.unproven(stranger, SOON) == {stranger[0].hash}
    kept.store.close()


def test_each_endorsement_has_its_own_time(path: Path) -> None:
    log = alices(BOB, notes=1)
    log.change_to(make_member(MESH, "alice", start=2))
    log.note()
    one = checkpoint(log, len(log.entries))
    kept = Kept(path, log, *shown(BOB), kept=(cosigned(one, line(one, BOB, END + HOUR)),))
    assert kept.report(log, END + 2 * HOUR).unproven == (range(3),)
    assert kept.report(log, END + 2 * DAY).unproven == (range(3),)
    kept.store.close()


def test_without_witnesses_everything_is_unproven_after_the_endorsement(path: Path) -> None:
    log = some_log(3, mesh=MESH)
    kept = Kept(path, log)
    assert kept.report(log) == WitnessReport(sentence="no witnesses")
    assert kept.report(log).line == ""
    assert kept.report(log, MESH.at + 2 * DAY).unproven == (range(3),)
    kept.store.close()


def test_a_log_that_its_author_has_rewritten_as_a_whole_is_given_away_by_the_checkpoint_of_the_old_one(path: Path) -> None:
    old, new = alices(BOB), alices(BOB, notes=2)
    new.note("another")
    one = checkpoint(old, 5)
    kept = Kept(path, new, *shown(BOB), kept=(cosigned(one, line(one, BOB)),))
    assert kept.report(new).fault
    kept.store.close()
    (report,) = [log for log in verify_store(path, MESH.root).logs if not log.holds]
    assert report.fault is not None
    assert (report.node_id, report.fault.reason) == (ALICE.node_id, Reason.FORKED)
    assert "signed another root of its first 5 entries" in report.line


def test_a_witness_set_of_a_form_that_we_do_not_know_leaves_the_one_before(path: Path) -> None:
    log = alices(BOB)
    log.keep(log.sign(EntryType.WITNESSES, {0: 9}))
    kept = Kept(path, log)
    assert kept.report(log).witnesses == WitnessSet((BOB.node_id,))
    kept.store.close()


def test_keys_that_were_edited_in_the_store_do_not_count(path: Path) -> None:
    log = alices(BOB)
    one = checkpoint(log, 4)
    kept = Kept(path, log, *shown(BOB), kept=(cosigned(one, line(one, BOB)),))
    kept.store.close()
    edit(path, "UPDATE entries SET raw = x'00' WHERE type = 1")
    store = AuditStore.open_readonly(path)
    assert Judge(store, MESH.root).witnessed(log.log_id) == []
    store.close()
