"""When checkpoints are made, and who is asked to cosign them when."""

import itertools
import math

from audit.checkpoint import Checkpoint
from audit.checkpointer import ANSWER_WITHIN, ENTRIES, EVERY, HURRY, PAUSE_MAX, Ask, CheckpointDue, Checkpointer
from overlay.core.keys import MeshId, NodeId

BOB, CAROL = NodeId(b"\1" * 32), NodeId(b"\2" * 32)
LOG, OTHER = bytes(16), bytes([1]) * 16


def checkpoint(size: int, log_id: bytes = LOG) -> Checkpoint:
    return Checkpoint(mesh_id=MeshId(bytes(32)), node_id=NodeId(bytes(32)), log_id=log_id, size=size, root=bytes(32))


def begun(*linked: NodeId, size: int = 1) -> Checkpointer:
    machine = Checkpointer()
    machine.begin(LOG, size, None)
    machine.use([BOB, CAROL])
    for peer in linked:
        machine.peer_opened(peer)
    return machine


def make(machine: Checkpointer, size: int, now: float) -> None:
    assert CheckpointDue() in machine.tick(now)
    machine.made(checkpoint(size), now)


def test_the_first_is_due_at_once_and_then_every_five_seconds_while_there_is_news() -> None:
    machine = begun()
    make(machine, 1, 0.0)
    assert machine.deadline == math.inf
    machine.grew(2)
    assert machine.deadline == EVERY
    assert machine.tick(EVERY - 0.1) == []
    make(machine, 2, EVERY)
    assert machine.tick(100.0) == []


def test_sixty_four_entries_do_not_wait() -> None:
    machine = begun()
    make(machine, 1, 0.0)
    machine.grew(ENTRIES)
    assert machine.tick(0.1) == []
    machine.grew(ENTRIES + 1)
    assert machine.deadline == HURRY
    assert machine.tick(0.1) == [CheckpointDue()]


def test_one_at_a_time_and_after_a_failure_later() -> None:
    machine = begun()
    assert machine.tick(0.0) == [CheckpointDue()]
    assert machine.tick(1.0) == []
    machine.failed(1.0)
    assert machine.tick(2.0) == []
    assert machine.tick(1.0 + EVERY) == [CheckpointDue()]


def test_whoever_waits_need_not_wait_for_five_seconds() -> None:
    machine = begun()
    make(machine, 1, 0.0)
    machine.hurry()
    assert machine.deadline == math.inf
    machine.grew(2)
    assert machine.deadline == HURRY
    make(machine, 2, HURRY)
    machine.grew(3)
    assert machine.deadline == HURRY + EVERY


def test_without_witnesses_there_is_none() -> None:
    machine = begun()
    machine.use([])
    assert machine.deadline == math.inf


def test_each_linked_witness_is_asked_from_where_it_stands() -> None:
    machine = begun(BOB, NodeId(b"\3" * 32))
    make(machine, 1, 0.0)
    assert machine.tick(0.0) == [Ask(BOB, checkpoint(1), 0)]
    machine.answered(BOB, LOG, 1, 0.1)
    assert machine.tick(0.1) == []
    machine.grew(5)
    make(machine, 5, EVERY)
    assert machine.tick(EVERY) == [Ask(BOB, checkpoint(5), 1)]
    machine.peer_opened(CAROL)
    assert machine.tick(EVERY) == [Ask(CAROL, checkpoint(5), 0)]
    machine.answered(CAROL, LOG, 3, EVERY)
    assert machine.tick(EVERY) == [Ask(CAROL, checkpoint(5), 3)]
    machine.peer_closed(CAROL)
    machine.answered(CAROL, LOG, 4, EVERY)
    machine.answered(BOB, OTHER, 0, EVERY)
    assert machine.tick(EVERY) == []


def test_who_is_silent_or_refuses_is_asked_again_after_pauses_that_grow() -> None:
    machine = begun(BOB)
    make(machine, 1, 0.0)
    now, asked_at = 0.0, []
    while now < 300.0:
        asked_at += [now for event in machine.tick(now) if isinstance(event, Ask)]
        machine.answered(BOB, LOG, 0, now)
        now = machine.deadline
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked_at)]
    assert gaps[:3] == [ANSWER_WITHIN, 2 * ANSWER_WITHIN, 4 * ANSWER_WITHIN]
    assert max(gaps) == PAUSE_MAX


def test_a_new_checkpoint_does_not_shorten_the_pause_of_who_refuses() -> None:
    machine = begun(BOB)
    make(machine, 1, 0.0)
    assert machine.tick(0.0) == [Ask(BOB, checkpoint(1), 0)]
    machine.grew(2)
    assert machine.tick(EVERY) == [CheckpointDue(), Ask(BOB, checkpoint(1), 0)]
    machine.made(checkpoint(2), EVERY)
    assert machine.tick(EVERY) == []
    assert machine.tick(EVERY + 2 * ANSWER_WITHIN) == [Ask(BOB, checkpoint(2), 0)]


def test_another_log_begins_from_nothing() -> None:
    machine = begun(BOB)
    make(machine, 1, 0.0)
    machine.answered(BOB, LOG, 1, 0.0)
    machine.begin(OTHER, 1, None)
    machine.made(checkpoint(1), 1.0)
    assert machine.newest is None
    assert machine.tick(100.0) == [CheckpointDue()]
    machine.made(checkpoint(1, OTHER), 100.0)
    assert machine.tick(100.0) == [Ask(BOB, checkpoint(1, OTHER), 0)]
