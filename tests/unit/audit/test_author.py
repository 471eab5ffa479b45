"""Writing one's own log: what follows holds for others, and a clock that went back opens the next incarnation."""

from dataclasses import replace
from datetime import timedelta

import pytest

from audit.author import LogSigner, OwnLog
from audit.batch import CLOCK_WENT_BACK, NEWER_COPY, Batch
from audit.bodies import LogOpen, application, lifecycle
from audit.chain import Append, ChainState, Extension, extend
from overlay.errors import Refused, UsageError
from overlay.registry import EntryType, Reason
from tests.unit.audit.audit_kit import SECOND, some_log, state_after
from tests.unit.core.authority_kit import DAY, HOUR, Member, make_member, make_mesh

MESH = make_mesh()
AT = MESH.at
ALICE = make_member(MESH, "alice")
LATER = make_member(MESH, "alice", start=2)
NOTE = application("test", "note")


def signer_of(member: Member) -> LogSigner:
    return LogSigner(member.message, member.credentials)


def own_log() -> OwnLog:
    return OwnLog.begin(MESH.root, signer_of(ALICE), AT, 0, None)[0]


def verified(append: Append, state: ChainState | None = None) -> ChainState:
    """Where others stand after these entries; it must be where the author thinks it is."""
    state = state or ChainState(node_id=append.state.node_id, log_id=append.state.log_id)
    found = extend(state, [entry.raw for entry in append.entries], MESH.root, at=None).state
    assert found == append.state
    return found


# --- the log ----------------------------------------------------------------------------------------------------------


def test_what_an_author_writes_holds_for_others() -> None:
    own, opening = OwnLog.begin(MESH.root, signer_of(ALICE), AT, 0, None)
    own, first = own.write(EntryType.LIFECYCLE, lifecycle("started"), AT)
    own, change = own.go_on(signer_of(LATER), AT + HOUR)
    own, last = own.write(EntryType.APPLICATION, NOTE, AT + HOUR)
    verified(Append(state=own.state, entries=(opening, first, change, last)))


def test_time_rises_in_a_log_even_where_the_clock_stands_still_or_goes_back_a_little() -> None:
    own = own_log()
    own, first = own.write(EntryType.APPLICATION, NOTE, AT)
    own, second = own.write(EntryType.APPLICATION, NOTE, AT - timedelta(minutes=4))
    assert second.hlc == first.hlc + 1


def test_a_node_whose_clock_went_back_five_minutes_does_not_append() -> None:
    with pytest.raises(Refused) as caught:
        own_log().write(EntryType.APPLICATION, NOTE, AT - timedelta(minutes=6))
    assert caught.value.reason is Reason.CLOCK
    with pytest.raises(Refused) as caught:
        own_log().go_on(signer_of(LATER), AT - timedelta(minutes=6))
    assert caught.value.reason is Reason.CLOCK


def test_nothing_is_written_after_the_end_of_the_endorsement() -> None:
    with pytest.raises(Refused) as caught:
        own_log().write(EntryType.APPLICATION, NOTE, ALICE.peer.endorsement.not_after + SECOND)
    assert caught.value.reason is Reason.NOT_IN_FORCE
    assert caught.value.hint


def test_a_log_is_not_opened_with_credentials_that_do_not_hold() -> None:
    with pytest.raises(Refused):
        OwnLog.begin(MESH.root, signer_of(ALICE), AT + 2 * DAY, 0, None)
    with pytest.raises(Refused):
        OwnLog.begin(make_mesh("other").root, signer_of(ALICE), AT, 0, None)


def test_a_log_does_not_go_on_under_keys_of_another_node() -> None:
    with pytest.raises(Refused):
        own_log().go_on(signer_of(make_member(MESH, "bob")), AT)


def test_a_log_does_not_go_on_under_a_key_that_the_endorsement_does_not_speak_for() -> None:
    with pytest.raises(Refused) as caught:
        own_log().go_on(LogSigner(ALICE.message, LATER.credentials), AT)
    assert caught.value.reason is Reason.BAD_SIGNATURE


# --- one commit -------------------------------------------------------------------------------------------------------


def test_a_commit_holds_what_was_asked_for_in_order() -> None:
    own = own_log()
    batch = Batch(own, AT)
    written = [*batch.write(EntryType.APPLICATION, NOTE), *batch.change_signer(signer_of(LATER))]
    written += batch.write(EntryType.LIFECYCLE, lifecycle("started"))
    (append,) = batch.finish()
    assert (append.ours, list(append.entries)) == (True, written)
    verified(append, own.state)


def test_a_commit_of_nothing_writes_nothing() -> None:
    batch = Batch(own_log(), AT)
    assert batch.change_signer(signer_of(ALICE)) == ()
    assert batch.finish() == []


def test_what_cannot_be_done_leaves_no_trace_in_a_commit() -> None:
    batch = Batch(own_log(), AT)
    with pytest.raises(UsageError):
        batch.write(EntryType.APPLICATION, {0: "test", 1: b"x" * 2**16})
    with pytest.raises(Refused):
        batch.change_signer(signer_of(make_member(MESH, "bob")))
    assert batch.finish() == []


def test_after_a_jump_of_the_clock_the_next_incarnation_begins() -> None:
    own = OwnLog.begin(MESH.root, signer_of(make_member(MESH, "alice", not_before=AT - HOUR)), AT, 0, None)[0]
    batch = Batch(own, AT - 10 * timedelta(minutes=1))
    (entry,) = batch.write(EntryType.APPLICATION, NOTE)
    (append,) = batch.finish()
    assert verified(append).k == 1
    opening = LogOpen.read(append.entries[0].body)
    assert append.entries[1] == entry
    assert opening.former is not None
    assert (opening.former.log_id, opening.former.last) == (own.state.log_id, own.state.last)
    assert (opening.former.size, opening.former.root, opening.former.reason) == (1, own.state.root, CLOCK_WENT_BACK)


def test_a_change_of_keys_after_a_jump_of_the_clock_begins_the_next_incarnation_too() -> None:
    early = make_member(MESH, "alice", not_before=AT - HOUR, start=3)
    own = own_log()
    batch = Batch(own, AT - timedelta(minutes=10))
    (opening,) = batch.change_signer(signer_of(early))
    assert opening.type == EntryType.LOG_OPEN
    verified(batch.finish()[0])


def test_others_entries_are_part_of_the_same_commit() -> None:
    bob = some_log(3, name="bob", mesh=MESH)
    batch = Batch(own_log(), AT)
    batch.write(EntryType.APPLICATION, NOTE)
    batch.add(Extension(state=state_after(bob), entries=tuple(bob.entries)))
    assert sorted((append.ours, len(append.entries)) for append in batch.finish()) == [(False, 3), (True, 1)]


def test_a_newer_copy_of_our_own_log_is_kept_and_left_for_the_next_incarnation() -> None:
    own = own_log()
    newer, entry = own.write(EntryType.APPLICATION, NOTE, AT)
    batch = Batch(own, AT)
    batch.add(Extension(state=newer.state, entries=(entry,)))
    theirs, ours = batch.finish()
    assert (theirs.ours, theirs.entries) == (False, (entry,))
    opening = LogOpen.read(ours.entries[0].body)
    assert opening.former is not None
    assert (opening.k, opening.former.size, opening.former.reason) == (1, 2, NEWER_COPY)


def test_a_copy_of_our_own_log_that_came_too_late_is_refused() -> None:
    own = own_log()
    newer, entry = own.write(EntryType.APPLICATION, NOTE, AT)
    batch = Batch(replace(own), AT)
    batch.write(EntryType.LIFECYCLE, lifecycle("started"))
    with pytest.raises(Refused) as caught:
        batch.add(Extension(state=newer.state, entries=(entry,)))
    assert caught.value.reason is Reason.CHAIN_BROKEN
