"""Is our copy of our own log the newest one? What q witnesses say, what is missing, and what ten seconds mean."""

from audit.checkpoint import Checkpoint
from audit.confirmation import Confirmation, Outcome, Shown
from audit.quorum import WitnessSet
from overlay.core.keys import MeshId, NodeId
from overlay.core.limits import CONFIRM_WITHIN

NODES = tuple(NodeId(bytes([number]) * 32) for number in range(1, 6))
LOG, OLD, OTHER = bytes(16), bytes([1]) * 16, bytes([2]) * 16


def shown(size: int, log_id: bytes = LOG, *, differs: bool = False) -> Shown:
    one = Checkpoint(mesh_id=MeshId(bytes(32)), node_id=NodeId(bytes(32)), log_id=log_id, size=size, root=bytes(32))
    return Shown(one, b"note %d" % size, differs)


def begun(witnesses: int = 3) -> Confirmation:
    return Confirmation(LOG, {LOG: 10, OLD: 5}, WitnessSet(NODES[:witnesses]), 0.0)


def outcome(machine: Confirmation, now: float = 0.0, *, behind: bool = False) -> Outcome | None:
    return machine.outcome(now, behind=behind)


def test_the_log_goes_on_when_q_witnesses_know_no_more_than_we() -> None:
    machine = begun()
    assert outcome(machine) is None
    machine.answered(NODES[0], [shown(10), shown(5, OLD)])
    machine.answered(NODES[0], [shown(9)])
    machine.answered(NODES[4], [])
    assert outcome(machine) is None
    machine.answered(NODES[1], [])
    assert outcome(machine) is Outcome.GOES_ON
    assert machine.note == b"note 10"


def test_after_ten_seconds_it_is_unconfirmed() -> None:
    machine = begun()
    machine.answered(NODES[0], [shown(8)])
    assert machine.deadline == CONFIRM_WITHIN
    assert outcome(machine, CONFIRM_WITHIN - 0.1) is None
    assert outcome(machine, CONFIRM_WITHIN) is Outcome.UNCONFIRMED
    assert machine.note == b"note 8"


def test_what_is_newer_elsewhere_is_waited_for() -> None:
    machine = begun()
    for node in NODES[:2]:
        machine.answered(node, [shown(12)])
    assert outcome(machine) is None
    machine.holds({LOG: 11, OLD: 5})
    assert outcome(machine) is None
    machine.holds({LOG: 12, OLD: 5})
    assert outcome(machine) is Outcome.NEWER_ELSEWHERE


def test_a_log_of_ours_that_we_do_not_hold_is_waited_for() -> None:
    machine = begun(1)
    machine.answered(NODES[0], [shown(10), shown(3, OTHER)])
    assert outcome(machine) is None
    machine.holds({LOG: 10, OLD: 5, OTHER: 3})
    assert outcome(machine) is Outcome.NEWER_ELSEWHERE


def test_nothing_is_claimed_before_q_have_answered_even_if_more_has_come() -> None:
    machine = begun()
    machine.answered(NODES[0], [shown(12)])
    machine.holds({LOG: 12, OLD: 5})
    assert outcome(machine) is None
    assert outcome(machine, CONFIRM_WITHIN) is Outcome.UNCONFIRMED


def test_what_a_peer_has_more_than_witnesses_have_cosigned_is_waited_for_too() -> None:
    machine = begun(1)
    machine.answered(NODES[0], [shown(10)])
    assert outcome(machine, behind=True) is None
    assert outcome(machine, CONFIRM_WITHIN, behind=True) is Outcome.UNCONFIRMED
    assert outcome(machine) is Outcome.GOES_ON


def test_what_never_comes_ends_unconfirmed() -> None:
    machine = begun(1)
    machine.answered(NODES[0], [shown(12)])
    assert outcome(machine, CONFIRM_WITHIN) is Outcome.UNCONFIRMED


def test_another_history_at_a_witness_ends_the_log_at_once() -> None:
    machine = begun()
    machine.answered(NODES[0], [shown(9, differs=True)])
    assert outcome(machine) is Outcome.UNCONFIRMED
