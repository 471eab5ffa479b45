"""What others take of an author: its share, and no more of one that writes without end."""

from datetime import timedelta

from audit.quotas import Quotas
from audit.replica import AuditReplica
from overlay.core.keys import NodeId
from overlay.core.mesh.chains import hlc_of
from overlay.core.mesh.reconcile import Head, ItemsVerified, Reconcile
from overlay.core.mesh.replication_frames import chunks, make_heads, make_items, open_want
from overlay.registry import ChainKind, FrameType
from tests.unit.audit.audit_kit import some_log, state_after
from tests.unit.core.authority_kit import DAY, NOW, make_mesh

ALICE, BOB = NodeId(b"a" * 32), NodeId(b"b" * 32)
MIB = 1024 * 1024


def test_an_author_has_its_share_of_a_day_and_then_waits() -> None:
    quotas = Quotas()
    for _ in range(63):
        quotas.took(ALICE, hlc_of(NOW), 10, MIB)
        assert quotas.allows(ALICE, NOW)
    quotas.took(ALICE, hlc_of(NOW), 10, 2 * MIB)
    assert not quotas.allows(ALICE, NOW)
    assert quotas.over(NOW) == (ALICE,)
    assert quotas.allows(BOB, NOW)
    assert quotas.allows(ALICE, NOW + DAY / 32)
    assert quotas.over(NOW + DAY / 32) == ()


def test_who_writes_ten_times_its_share_is_taken_at_its_share() -> None:
    quotas, taken = Quotas(), 0
    for hour in range(24 * 10):
        at = NOW + timedelta(hours=hour)
        for _ in range(27):  # MiB, ten times the share
            if quotas.allows(ALICE, at):
                quotas.took(ALICE, hlc_of(at), 10, MIB)
                taken += 1
    assert taken <= 64 * 11 + 1


def test_entries_are_counted_too_however_small() -> None:
    quotas = Quotas()
    quotas.took(ALICE, hlc_of(NOW), 50 * 3600, 1000)
    assert quotas.allows(ALICE, NOW)
    quotas.took(ALICE, hlc_of(NOW), 1, 1)
    assert not quotas.allows(ALICE, NOW)
    assert quotas.allows(ALICE, NOW + timedelta(seconds=1))


def test_what_was_written_long_ago_is_caught_up_with_at_once() -> None:
    quotas = Quotas()
    for day in range(365):
        quotas.took(ALICE, hlc_of(NOW - (365 - day) * DAY), 100_000, 60 * MIB)
        assert quotas.allows(ALICE, NOW)


def test_entries_that_are_dated_back_give_no_more() -> None:
    quotas, old = Quotas(), hlc_of(NOW - 365 * DAY)
    quotas.took(ALICE, hlc_of(NOW), 1, 65 * MIB)
    quotas.took(ALICE, old, 1, 1)
    assert not quotas.allows(ALICE, NOW)


def test_a_member_that_writes_ten_times_its_quota_fills_no_others_disk() -> None:
    """It tells of a log without end and answers every WANT; so much of it is stored, and then nobody asks any more."""
    mesh = make_mesh()
    log = some_log(400, name="eve", mesh=mesh)
    eve, size = log.member.node_id, sum(map(len, log.raws)) // 10
    quotas, at = Quotas(bytes_per_day=size), mesh.at + timedelta(hours=1)
    replica = AuditReplica(mesh.root, lambda: at)
    machine = Reconcile(ChainKind.AUDIT, BOB, replica, wanted=lambda _log, author: quotas.allows(author, at))
    machine.peer_opened(eve, 0.0)
    whole = state_after(log)
    (heads,) = make_heads(ChainKind.AUDIT, {log.log_id: Head(eve, whole.size, whole.root)})
    machine.receive(eve, FrameType.HEADS, heads, 0.0)
    held = 0
    for now in range(0, 6000, 60):  # seconds: who sends a few items at a time is asked again after a pause
        machine.tick(float(now))
        wants = [open_want(ChainKind.AUDIT, body) for _, frame, body in machine.messages_to_send() if frame is FrameType.WANT]
        if not wants:
            break
        (want,) = wants
        (some, *_) = chunks(log.log_id, want.start, log.raws[want.start : want.start + 4])
        body = make_items(ChainKind.AUDIT, type(some)(some.log_id, some.start, some.items, want.start))
        for event in machine.receive(eve, FrameType.ITEMS, body, float(now)):
            assert isinstance(event, ItemsVerified)
            found = replica.checked(event.log_id, event.start, len(event.items))
            assert found is not None
            replica.stored(found.state, found.entries)
            taken = sum(map(len, event.items))
            quotas.took(eve, found.state.hlc, len(event.items), taken)
            held += taken
            machine.stored(event.log_id, Head(eve, found.state.size, found.state.root), float(now))
    assert size <= held <= size + 4 * max(map(len, log.raws))
    pushed = make_items(ChainKind.AUDIT, chunks(log.log_id, replica.states[log.log_id].size, log.raws[-1:])[0])
    assert machine.receive(eve, FrameType.ITEMS, pushed, 6000.0) == []
