"""The open log of a node on trio: durable before anyone hears of it, one commit for all who wait, and no silent end."""

import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing

from audit.author import LogSigner
from audit.bodies import LogOpen, lifecycle
from audit.entry import Entry
from audit.log import AuditLog
from audit.store import AuditStore
from audit.verifier import verify_store
from overlay.core.mesh.reconcile import ItemsVerified, RangeWanted
from overlay.errors import HostLacks, OverlayError, Refused, StateDamaged, UsageError
from overlay.registry import EntryType, Reason
from tests.unit.audit.audit_kit import edit
from tests.unit.core.authority_kit import DAY, Member, make_member, make_mesh

MESH = make_mesh()
ALICE, BOB = make_member(MESH, "alice"), make_member(MESH, "bob")
LATER = make_member(MESH, "alice", start=2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.sqlite3"


async def opened(path: Path, member: Member = ALICE, at: datetime = MESH.at) -> AuditLog:
    return await AuditLog.open(path, root=MESH.root, signer=LogSigner(member.message, member.credentials), at=lambda: at)


@asynccontextmanager
async def running(path: Path, member: Member = ALICE, at: datetime = MESH.at) -> AsyncIterator[AuditLog]:
    """A log that takes entries for as long as the block lasts."""
    log = await opened(path, member, at)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        yield log
        nursery.cancel_scope.cancel()
    log.close()


def stored(path: Path) -> list[Entry]:
    """What anyone finds in the file now."""
    store = AuditStore.open_readonly(path)
    found = store.newest()
    store.close()
    return found


# --- appending --------------------------------------------------------------------------------------------------------


async def test_an_entry_is_durable_when_append_returns(path: Path) -> None:
    async with running(path) as log:
        entry = await log.append_application("door.opened", {"door": "7b"})
        assert stored(path)[-1].raw == entry.raw
        assert (entry.seq, entry.log_id, log.state.last) == (1, log.state.log_id, entry.hash)
    assert verify_store(path, MESH.root).holds


async def test_all_who_wait_share_one_commit_and_keep_their_order(path: Path) -> None:
    log = await opened(path)
    commits: list[tuple[Entry, ...]] = []
    log.listen(commits.append)
    entries: list[Entry] = []

    async def write(number: int) -> None:
        entries.append(await log.append_application("count", number))

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as writers:
            for number in range(50):
                writers.start_soon(write, number)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(log.run)
        nursery.cancel_scope.cancel()
    log.close()
    assert [len(entries) for entries in commits] == [50]
    assert sorted(entry.seq for entry in entries) == list(range(1, 51))
    assert verify_store(path, MESH.root).logs[0].size == 51


async def test_nobody_hears_of_an_entry_before_it_is_durable(path: Path) -> None:
    async with running(path) as log:
        sizes: list[tuple[int, int]] = []
        log.listen(lambda entries: sizes.append((log.state.size, len(stored(path)))))
        await log.append(EntryType.LIFECYCLE, lifecycle("started"))
        assert sizes == [(2, 2)]
        assert log.machine.heads[log.state.log_id].size == 2


async def test_an_entry_that_cannot_be_does_not_stop_others(path: Path) -> None:
    async with running(path) as log:
        with pytest.raises(UsageError):
            await log.append_application("too.large", "x" * 2**16)
        assert (await log.append_application("fits", 1)).seq == 1


async def test_in_one_commit_what_cannot_be_fails_alone(path: Path) -> None:
    log = await opened(path)
    errors: list[type[Exception]] = []

    async def wrong() -> None:
        try:
            await log.append(EntryType.LIFECYCLE, lifecycle("started"), references=(b"no hash",))
        except UsageError as error:
            errors.append(type(error))

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as writers:
            writers.start_soon(log.append_application, "before", 1)
            writers.start_soon(wrong)
            writers.start_soon(log.append_application, "after", 2)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(log.run)
        nursery.cancel_scope.cancel()
    log.close()
    assert errors == [UsageError]
    assert verify_store(path, MESH.root).logs[0].size == 3


async def test_when_the_endorsement_ends_a_running_log_takes_nothing_more(path: Path) -> None:
    now = [MESH.at]
    signer = LogSigner(ALICE.message, ALICE.credentials)
    log = await AuditLog.open(path, root=MESH.root, signer=signer, at=lambda: now[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        await log.append_application("in force", 1)
        now[0] += DAY
        with pytest.raises(Refused) as caught:
            await log.append_application("too late", 2)
        nursery.cancel_scope.cancel()
    log.close()
    assert caught.value.reason is Reason.NOT_IN_FORCE
    assert verify_store(path, MESH.root).logs[0].size == 2


async def test_after_the_end_of_the_endorsement_nothing_is_appended(path: Path) -> None:
    log = await opened(path)
    log.close()
    with pytest.raises(Refused):
        await opened(path, at=MESH.at + 2 * DAY)


async def test_an_append_after_the_end_says_that_the_log_is_closed(path: Path) -> None:
    async with running(path) as log:
        pass
    with pytest.raises(OverlayError, match="closed"):
        await log.append_application("late", 1)


async def test_whoever_waits_at_the_end_is_told(path: Path) -> None:
    log = await opened(path)
    errors: list[OverlayError] = []

    async def write() -> None:
        try:
            await log.append_application("late", 1)
        except OverlayError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            log._wake.set()
            await log.run()
    log.close()
    assert len(errors) + len(stored(path)) == 2


async def test_an_append_that_nobody_waits_for_any_more_does_no_harm(path: Path) -> None:
    async with running(path) as log:
        with trio.move_on_after(0):
            await log.append_application("left", 1)
        entry = await log.append_application("stayed", 2)
        assert [one.seq for one in stored(path)] == list(range(entry.seq + 1))


# --- starts and keys --------------------------------------------------------------------------------------------------


async def test_a_node_that_starts_again_goes_on_with_its_log(path: Path) -> None:
    async with running(path) as log:
        await log.append_application("count", 1)
    async with running(path) as again:
        assert again.state == log.state
        assert (await again.append_application("count", 2)).seq == 2
    assert verify_store(path, MESH.root).logs[0].size == 3


async def test_under_a_new_endorsement_the_log_goes_on_with_an_entry_that_says_so(path: Path) -> None:
    async with running(path) as log:
        await log.append_application("count", 1)
    async with running(path, LATER) as again:
        assert again.state.log_id == log.state.log_id
        await again.append_application("count", 2)
    assert [entry.type for entry in stored(path)] == [
        EntryType.LOG_OPEN, EntryType.APPLICATION, EntryType.ENDORSEMENT, EntryType.APPLICATION,
    ]  # fmt: skip
    assert verify_store(path, MESH.root).holds


async def test_the_keys_change_while_the_log_is_open(path: Path) -> None:
    async with running(path) as log:
        await log.change_signer(LogSigner(LATER.message, LATER.credentials))
        entry = await log.append_application("count", 1)
        assert (entry.kid, entry.seq) == (LATER.kid, 2)
        assert log.replica.endorsements().keys() == {ALICE.kid, LATER.kid}
    assert verify_store(path, MESH.root).holds


async def test_after_a_start_the_endorsements_of_before_are_known(path: Path) -> None:
    async with running(path) as log:
        await log.change_signer(LogSigner(LATER.message, LATER.credentials))
    async with running(path, LATER) as again:
        assert again.replica.endorsements().keys() == {ALICE.kid, LATER.kid}


async def test_a_log_whose_end_was_edited_is_kept_and_a_new_one_begins(path: Path) -> None:
    async with running(path) as log:
        await log.append_application("count", 1)
    raw = bytearray(stored(path)[-1].raw)
    raw[-1] ^= 1
    edit(path, "UPDATE entries SET raw = ? WHERE seq = 1", bytes(raw))
    async with running(path) as again:
        assert [damaged.row.log_id for damaged in again.damaged] == [log.state.log_id]
        assert again.state.k == 1
        await again.append_application("count", 2)
        opening = next(LogOpen.read(entry.body) for entry in stored(path) if entry.log_id == again.state.log_id)
        assert opening.former is not None
        assert (opening.former.log_id, opening.former.last) == (log.state.log_id, log.state.last)
    assert [report.holds for report in verify_store(path, MESH.root).logs] == [False, True]


async def test_a_clock_that_went_back_begins_a_new_log(path: Path) -> None:
    member = make_member(MESH, "alice", not_before=MESH.at - timedelta(hours=1))
    async with running(path, member) as log:
        await log.append_application("count", 1)
    async with running(path, member, at=MESH.at - timedelta(minutes=10)) as again:
        await again.append_application("count", 2)
        assert (again.state.k, again.state.log_id == log.state.log_id) == (1, False)
    assert verify_store(path, MESH.root).holds


# --- bad days ---------------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_said_and_over_when_there_is_room(path: Path) -> None:
    async with running(path) as log:
        writer = log._store._writer
        assert writer is not None
        ((pages,),) = writer.execute("PRAGMA page_count").fetchall()
        writer.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(HostLacks, match="no space"):
            await log.append_application("large", "x" * 30_000)
        assert "no space" in log.warning
        writer.execute("PRAGMA max_page_count = 100000")
        assert (await log.append_application("small", 1)).seq == 1
        assert log.warning == ""
    assert verify_store(path, MESH.root).logs[0].size == 2


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Writing beyond that fails as on a broken disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_an_error_of_the_disk_stops_the_writer(path: Path) -> None:
    async with running(path) as log:
        await log.append_application("count", 1)
        with files_at_most(1024), pytest.raises(StateDamaged):
            await log.append_application("large", "x" * 30_000)
        with pytest.raises(StateDamaged, match="takes no more entries"):
            await log.append_application("count", 2)
        assert log.warning
        assert log.state.size == 2
    assert verify_store(path, MESH.root).logs[0].size == 2


# --- replication ------------------------------------------------------------------------------------------------------


async def talk(one: AuditLog, other: AuditLog) -> None:
    """Carry messages both ways until there are none, as links and shell do."""
    quiet = False
    while not quiet:
        quiet = True
        for sender, receiver in ((one, other), (other, one)):
            for _, frame, body in sender.machine.messages_to_send():
                quiet = False
                for event in receiver.machine.receive(sender.node_id, frame, body, trio.current_time()):
                    await settle(receiver, event)


async def settle(log: AuditLog, event: object) -> None:
    if isinstance(event, ItemsVerified):
        await log.store(event)
    elif isinstance(event, RangeWanted):
        log.machine.supply(event, await log.read(event))


async def test_two_nodes_hold_the_same_logs_after_they_talked(path: Path, tmp_path: Path) -> None:
    async with running(path) as alice, running(tmp_path / "bob.sqlite3", BOB) as bob:
        for number in range(300):
            await alice.append_application("count", number)
        await bob.append_application("count", -1)
        for one, other in ((alice, bob), (bob, alice)):
            one.machine.peer_opened(other.node_id, trio.current_time())
        await talk(alice, bob)
        assert alice.machine.heads == bob.machine.heads
        assert bob.replica.states[alice.state.log_id] == alice.state
        entry = await alice.append_application("pushed", True)
        await talk(alice, bob)
        assert (await bob.newest(node_id=alice.node_id, last=1)) == [entry]
        assert alice.machine.heads == bob.machine.heads
    for store in (path, tmp_path / "bob.sqlite3"):
        assert sorted(report.size for report in verify_store(store, MESH.root).logs) == [2, 302]


async def test_a_log_that_does_not_hold_is_not_given_to_others(path: Path, tmp_path: Path) -> None:
    async with running(path) as log:
        await log.append_application("count", 1)
    edit(path, "UPDATE entries SET raw = zeroblob(200) WHERE seq = 1")
    async with running(path) as alice, running(tmp_path / "bob.sqlite3", BOB) as bob:
        for one, other in ((alice, bob), (bob, alice)):
            one.machine.peer_opened(other.node_id, trio.current_time())
        await talk(alice, bob)
        assert bob.machine.heads.keys() == {alice.state.log_id, bob.state.log_id}


async def test_entries_that_the_disk_does_not_take_are_asked_again_later(path: Path, tmp_path: Path) -> None:
    async with running(path) as alice, running(tmp_path / "bob.sqlite3", BOB) as bob:
        writer = bob._store._writer
        assert writer is not None
        await alice.append_application("large", "x" * 30_000)
        ((pages,),) = writer.execute("PRAGMA page_count").fetchall()
        writer.execute(f"PRAGMA max_page_count = {pages}")
        for one, other in ((alice, bob), (bob, alice)):
            one.machine.peer_opened(other.node_id, trio.current_time())
        await talk(alice, bob)
        assert alice.state.log_id not in bob.machine.heads
        assert "no space" in bob.warning
        writer.execute("PRAGMA max_page_count = 100000")
        bob.machine.tick(trio.current_time() + 60)
        await talk(alice, bob)
        assert bob.machine.heads[alice.state.log_id].size == 2


async def test_entries_that_were_not_checked_are_not_stored(path: Path) -> None:
    async with running(path) as log:
        await log.store(ItemsVerified(b"l" * 16, BOB.node_id, 0, (b"anything",)))
        assert len(stored(path)) == 1


async def test_credentials_that_do_not_hold_open_no_log(path: Path) -> None:
    with pytest.raises(Refused) as caught:
        await AuditLog.open(
            path, root=make_mesh("other").root, signer=LogSigner(ALICE.message, ALICE.credentials), at=lambda: MESH.at
        )
    assert caught.value.reason in (Reason.OTHER_MESH, Reason.BAD_CERTIFICATE)
