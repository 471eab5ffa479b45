"""What a node believes of logs: nothing moves before it is durable, and endorsements are known by what entries have shown."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.replica import KEYS_KEPT, AuditReplica
from overlay.core.keys import NodeId
from overlay.errors import Refused
from overlay.registry import EntryType, Reason
from tests.unit.audit.audit_kit import Writer, some_log, state_after
from tests.unit.core.authority_kit import DAY, HOUR, Mesh, make_member, make_mesh

MESH = make_mesh()
ALICE = make_member(MESH, "alice")


class Calendar:
    """A clock that a test moves."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Calendar:
    return Calendar(MESH.at)


@pytest.fixture
def replica(clock: Calendar) -> AuditReplica:
    return AuditReplica(MESH.root, clock)


@pytest.fixture
def log() -> Writer:
    return some_log(3, mesh=MESH)


def check(replica: AuditReplica, log: Writer, start: int, *raws: bytes) -> int:
    return replica.check(log.log_id, log.member.node_id, start, raws)


def take(replica: AuditReplica, log: Writer) -> None:
    """All that the writer kept and the replica lacks: checked and stored."""
    known = replica.states.get(log.log_id)
    start = known.size if known else 0
    raws = log.raws[start:]
    assert check(replica, log, start, *raws) == len(raws)
    found = replica.checked(log.log_id, start, len(raws))
    assert found is not None
    replica.stored(found.state, found.entries)


def refusal(replica: AuditReplica, log: Writer, start: int, *raws: bytes) -> Reason:
    with pytest.raises(Refused) as caught:
        check(replica, log, start, *raws)
    return caught.value.reason


def test_a_check_moves_nothing_until_the_entries_are_durable(replica: AuditReplica, log: Writer) -> None:
    assert check(replica, log, 0, *log.raws) == 3
    assert dict(replica.states) == {}
    assert replica.author_of(ALICE.kid) is None
    take(replica, log)
    assert replica.states[log.log_id] == state_after(log)


def test_a_log_grows_from_where_it_stands(replica: AuditReplica, log: Writer) -> None:
    take(replica, log)
    log.note()
    take(replica, log)
    assert replica.states[log.log_id].size == 4


def test_a_range_that_does_not_begin_at_our_end_is_refused(replica: AuditReplica, log: Writer) -> None:
    assert refusal(replica, log, 1, log.raws[1]) is Reason.CHAIN_BROKEN
    take(replica, log)
    assert refusal(replica, log, 2, log.raws[2]) is Reason.CHAIN_BROKEN


def test_one_bad_entry_stops_the_range(replica: AuditReplica, log: Writer) -> None:
    bad = log.sign(EntryType.LIFECYCLE, {0: 1}, signer=make_member(MESH, "bob").message)
    assert refusal(replica, log, 0, *log.raws, bad.raw) is Reason.BAD_SIGNATURE
    assert replica.checked(log.log_id, 0, 4) is None
    take(replica, log)


def test_another_next_entry_by_the_same_author_is_another_history(replica: AuditReplica, log: Writer) -> None:
    take(replica, log)
    other = some_log(2, mesh=MESH)
    other.note("another story")
    other.note("that goes on")
    assert refusal(replica, log, 3, other.raws[3]) is Reason.FORKED


def test_nobody_can_pretend_that_an_author_has_two_histories(replica: AuditReplica, log: Writer) -> None:
    take(replica, log)
    forged = log.sign(EntryType.LIFECYCLE, {0: 1}, prev=b"\1" * 32, signer=make_member(MESH, "bob").message)
    assert refusal(replica, log, 3, forged.raw) is Reason.BAD_SIGNATURE


def test_another_history_under_keys_that_only_it_has_shown_is_not_the_fault_of_who_shows_it(
    replica: AuditReplica, log: Writer
) -> None:
    take(replica, log)
    other = some_log(2, mesh=MESH)
    other.change_to(make_member(MESH, "alice", start=2))
    other.note("under other keys")
    assert refusal(replica, log, 3, other.raws[3]) is Reason.FORKED


def test_an_entry_of_another_place_is_no_other_history(replica: AuditReplica, log: Writer) -> None:
    take(replica, log)
    assert refusal(replica, log, 3, log.raws[1]) is Reason.CHAIN_BROKEN


def test_the_number_of_an_entry_can_be_read_back(replica: AuditReplica, log: Writer) -> None:
    assert [replica.number_of(raw) for raw in log.raws] == [0, 1, 2]


def test_what_is_ahead_of_our_clock_waits(replica: AuditReplica, clock: Calendar) -> None:
    log = some_log(1, mesh=MESH)
    clock.at = log.entries[0].at - timedelta(minutes=5, milliseconds=1)
    assert check(replica, log, 0, *log.raws) == 0
    clock.at += timedelta(milliseconds=1)
    assert check(replica, log, 0, *log.raws) == 1


def test_of_a_range_all_before_the_first_that_waits_may_be_stored(
    replica: AuditReplica, clock: Calendar, log: Writer
) -> None:
    clock.at = log.entries[1].at - timedelta(minutes=5)
    assert check(replica, log, 0, *log.raws) == 2
    found = replica.checked(log.log_id, 0, 2)
    assert found is not None
    assert [entry.raw for entry in found.entries] == log.raws[:2]


def test_what_was_checked_counts_only_where_the_log_still_stands(replica: AuditReplica, log: Writer) -> None:
    check(replica, log, 0, *log.raws)
    assert replica.checked(log.log_id, 0, 2) is None
    assert replica.checked(log.log_id, 1, 3) is None
    assert replica.checked(bytes(16), 0, 3) is None
    take(replica, log)
    assert replica.checked(log.log_id, 0, 3) is None


def test_what_could_not_be_stored_is_forgotten(replica: AuditReplica, log: Writer) -> None:
    check(replica, log, 0, *log.raws)
    replica.dropped(log.log_id)
    assert replica.checked(log.log_id, 0, 3) is None
    take(replica, log)


def test_the_newest_incarnation_of_a_node_comes_first(replica: AuditReplica, log: Writer) -> None:
    take(replica, log)
    assert replica.logs_of(ALICE.node_id) == (state_after(log),)
    assert replica.logs_of(NodeId(bytes(32))) == ()


# --- authors ----------------------------------------------------------------------------------------------------------


def test_an_endorsement_is_known_once_an_entry_has_shown_it(replica: AuditReplica, log: Writer) -> None:
    take(replica, log)
    author = replica.author_of(ALICE.kid)
    assert author is not None
    assert (author.node_id, author.name, author.message_public) == (ALICE.node_id, "alice", ALICE.message.public_key)
    assert (author.not_before, author.not_after) == (ALICE.peer.endorsement.not_before, ALICE.peer.endorsement.not_after)


def test_an_endorsement_that_was_replaced_stays_known(replica: AuditReplica, log: Writer) -> None:
    later = make_member(MESH, "alice", start=2)
    log.change_to(later)
    take(replica, log)
    assert replica.endorsements().keys() == {ALICE.kid, later.kid}


def test_endorsements_are_forgotten_when_nothing_of_theirs_can_come(
    replica: AuditReplica, clock: Calendar, log: Writer
) -> None:
    take(replica, log)
    clock.at = ALICE.peer.endorsement.not_after + KEYS_KEPT + HOUR
    mesh = Mesh(MESH.authority, MESH.trust, clock.at)
    take(replica, some_log(1, name="bob", mesh=mesh))
    assert replica.author_of(ALICE.kid) is None
    assert len(replica.endorsements()) == 1


def test_after_a_start_endorsements_are_learnt_from_what_is_stored(clock: Calendar, log: Writer) -> None:
    later = make_member(MESH, "alice", start=2)
    log.change_to(later)
    replica = AuditReplica(MESH.root, clock, {log.log_id: state_after(log)})
    assert replica.endorsements().keys() == {later.kid}
    replica.remember([log.entries[0], log.entries[-1]])
    assert replica.endorsements().keys() == {ALICE.kid, later.kid}


def test_a_stored_endorsement_that_does_not_hold_is_not_learnt(replica: AuditReplica) -> None:
    mesh = make_mesh("other")
    replica.remember(some_log(1, mesh=mesh).entries)
    old = make_member(MESH, "old", not_before=MESH.at - 3 * DAY, life=DAY)
    replica.remember([Writer.begin(MESH, old).open()])
    assert replica.endorsements() == {}


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=3))
def test_any_bytes_are_refused_and_nothing_worse(items: list[bytes]) -> None:
    replica = AuditReplica(MESH.root, Calendar(MESH.at))
    with pytest.raises(Refused):
        replica.check(bytes(16), ALICE.node_id, 0, items)
