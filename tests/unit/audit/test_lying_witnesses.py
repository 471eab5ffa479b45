"""Authors and witnesses that lie, played with the real machines: what they reach, and what they give away."""

from dataclasses import replace
from pathlib import Path

import pytest

from audit.bodies import witnesses
from audit.checkpoint import Checkpoint, parse_checkpoint
from audit.judged import Witnessed
from audit.notes import Note
from audit.quorum import WitnessSet
from audit.store import AuditStore
from audit.witness import Cosigned, MakeDurable, TwoRoots, Witness, WitnessKey
from audit.witness_frames import Request
from audit.witnessed import Judge
from overlay.core.merkle import consistency_proof, root_of
from overlay.core.wire import sha256
from overlay.registry import EntryType
from tests.unit.audit.audit_kit import Writer, append_of
from tests.unit.core.authority_kit import DAY, Member, make_member, make_mesh

MESH = make_mesh()
ALICE = make_member(MESH, "alice")
FIVE = [make_member(MESH, name, witness=True) for name in ("bob", "carol", "dave", "eve", "frank")]
SET = WitnessSet(tuple(sorted(node.node_id for node in FIVE)))
LEFT = [sha256(b"left", bytes([number])) for number in range(20)]
RIGHT = [*LEFT[:5], *(sha256(b"right", bytes([number])) for number in range(15))]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """Knows the keys of all."""
    store = AuditStore.open(tmp_path / "audit.sqlite3")
    logs = [Writer.begin(MESH, member) for member in (ALICE, *FIVE)]
    for log in logs:
        log.open()
    logs[0].keep(logs[0].sign(EntryType.WITNESSES, witnesses(SET.nodes)))
    store.append_many([append_of(log) for log in logs])
    return Judge(store, MESH.root)


def checkpoint(leaves: list[bytes], size: int) -> Checkpoint:
    return Checkpoint(
        mesh_id=MESH.mesh_id, node_id=ALICE.node_id, log_id=bytes(16), size=size, root=root_of(leaves[:size])
    )


def machine(member: Member, *known: Cosigned) -> Witness:
    found = Witness(MESH.mesh_id, member.node_id, known)
    assert member.witness is not None
    found.use(WitnessKey(member.witness, MESH.at, MESH.at + DAY))
    return found


def show(witness: Witness, leaves: list[bytes], size: int) -> Cosigned | TwoRoots | None:
    """What a witness makes of a checkpoint that comes with the best proof there is; what it cosigns is durable then."""
    one = checkpoint(leaves, size)
    last = witness.last(ALICE.node_id, bytes(16))
    old = 0 if last is None else last.checkpoint.size
    proof = consistency_proof(leaves[:size], old) if 0 < old < size else ()
    events = witness.receive(ALICE.peer, Request(one.sign(ALICE.message).raw, old, proof).pack(), MESH.at)
    for event in events:
        if isinstance(event, MakeDurable):
            witness.stored(event.cosigned, MESH.at)
            return event.cosigned
        if isinstance(event, TwoRoots):
            return event
    return None


def judged(judge: Judge, leaves: list[bytes], size: int, *cosigned: Cosigned | TwoRoots | None) -> Witnessed:
    """The checkpoint with the lines that witnesses have given."""
    one = checkpoint(leaves, size)
    notes = [parse_checkpoint(found.note) for found in cosigned if isinstance(found, Cosigned)]
    lines = [line for found in notes if found.says == one for line in found.cosignatures]
    return judge.judge(one, Note(one.text, (*one.sign(ALICE.message).signatures, *lines)), SET)


def test_an_author_that_shows_two_histories_gets_a_quorum_for_one_at_most(judge: Judge) -> None:
    """Whatever it shows first to whom: honest witnesses each cosign one of the two."""
    for split in range(6):
        nodes = [machine(member) for member in FIVE]
        first = [show(node, LEFT if index < split else RIGHT, 10) for index, node in enumerate(nodes)]
        again = [show(node, RIGHT if index < split else LEFT, 10) for index, node in enumerate(nodes)]
        assert all(isinstance(one, TwoRoots) for one in again)
        reached = [judged(judge, leaves, 10, *first, *again).at for leaves in (LEFT, RIGHT)]
        assert None in reached


def test_its_two_roots_are_in_the_hands_of_every_witness_that_it_shows_both(judge: Judge) -> None:
    bob = machine(FIVE[0])
    show(bob, LEFT, 10)
    fork = show(bob, RIGHT, 10)
    assert isinstance(fork, TwoRoots)
    one, other = parse_checkpoint(fork.ours), parse_checkpoint(fork.theirs)
    judge.check_author(one)
    judge.check_author(other)
    assert (one.says.size, one.says.root) == (10, root_of(LEFT[:10]))
    assert (other.says.size, other.says.root) == (10, root_of(RIGHT[:10]))


def test_one_of_five_witnesses_may_cosign_both_histories(judge: Judge) -> None:
    honest, liar = [machine(member) for member in FIVE[:4]], [machine(FIVE[4]), machine(FIVE[4])]
    left = [*(show(node, LEFT, 10) for node in honest[:3]), show(liar[0], LEFT, 10)]
    right = [*(show(node, RIGHT, 10) for node in honest[3:]), show(liar[1], RIGHT, 10)]
    assert judged(judge, LEFT, 10, *left, *right).at is not None
    assert judged(judge, RIGHT, 10, *left, *right).at is None


def test_two_liars_are_one_too_many_of_five(judge: Judge) -> None:
    """What is promised is not more than what the table says."""
    assert SET.tolerated == 1
    left = [show(machine(member), LEFT, 10) for member in (*FIVE[:2], *FIVE[3:])]
    right = [show(machine(member), RIGHT, 10) for member in (FIVE[2], *FIVE[3:])]
    assert judged(judge, LEFT, 10, *left).at is not None
    assert judged(judge, RIGHT, 10, *right).at is None
    third = show(machine(FIVE[1]), RIGHT, 10)
    assert judged(judge, RIGHT, 10, *right, third).at is not None


def test_a_witness_that_cosigns_before_it_is_durable_and_restarts_is_such_a_liar(judge: Judge) -> None:
    honest, forgetful = [machine(member) for member in FIVE[:4]], machine(FIVE[4])
    left = [*(show(node, LEFT, 10) for node in honest[:3]), show(forgetful, LEFT, 10)]
    forgetful = machine(FIVE[4])
    right = [show(honest[3], RIGHT, 10), show(forgetful, RIGHT, 10)]
    assert isinstance(right[1], Cosigned)
    assert judged(judge, LEFT, 10, *left).at is not None
    assert judged(judge, RIGHT, 10, *right).at is None


def test_a_witness_that_kept_what_it_cosigned_is_not(judge: Judge) -> None:
    before = show(machine(FIVE[4]), LEFT, 10)
    assert isinstance(before, Cosigned)
    again = machine(FIVE[4], before)
    assert isinstance(show(again, RIGHT, 10), TwoRoots)
    assert show(again, RIGHT, 12) is None
    assert show(again, LEFT, 9) is None
    assert isinstance(show(again, LEFT, 12), Cosigned)


def test_one_of_five_witnesses_may_refuse_and_two_may_not(judge: Judge) -> None:
    found = [show(machine(member), LEFT, 10) for member in FIVE]
    assert judged(judge, LEFT, 10, *found[1:]).sentence == "4 of 5, tolerates 1 liar"
    assert judged(judge, LEFT, 10, *found[1:]).at is not None
    assert judged(judge, LEFT, 10, *found[2:]).at is None


def test_one_liar_cannot_move_the_time_since_which_it_is_witnessed(judge: Judge) -> None:
    found = [show(machine(member), LEFT, 10) for member in FIVE]
    honest = judged(judge, LEFT, 10, *found).at
    one = checkpoint(LEFT, 10)
    assert FIVE[4].witness is not None
    for at in (int(FIVE[4].peer.endorsement.not_before.timestamp()), int(FIVE[4].peer.endorsement.not_after.timestamp())):
        lie = one.cosign(FIVE[4].node_id, FIVE[4].witness, at)
        lines = judged(judge, LEFT, 10, *found[:4]).lines
        seen = judge.judge(one, Note(one.text, (*one.sign(ALICE.message).signatures, *lines.values(), lie)), SET)
        assert len(seen.lines) == 5
        assert seen.at == honest


def test_the_line_of_one_history_does_not_count_for_the_other(judge: Judge) -> None:
    found = [show(machine(member), LEFT, 10) for member in FIVE]
    notes = [parse_checkpoint(one.note) for one in found if isinstance(one, Cosigned)]
    one = checkpoint(RIGHT, 10)
    lines = [line for note in notes for line in note.cosignatures]
    assert judge.judge(one, Note(one.text, (*one.sign(ALICE.message).signatures, *lines)), SET).lines == {}
    assert replace(one, root=root_of(LEFT[:10])) == checkpoint(LEFT, 10)
