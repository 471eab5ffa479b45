"""A log whose witnesses are asked first: what waits, what does not, and how it goes on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import trio
import trio.testing

from audit.author import LogSigner
from audit.bodies import LogOpen, witnesses
from audit.entry import Entry
from audit.log import AuditLog
from audit.store import AuditStore
from audit.verifier import verify_store
from overlay.core.mesh.chains import hlc_of
from overlay.core.mesh.reconcile import ItemsVerified
from overlay.registry import EntryType
from tests.unit.audit.audit_kit import Writer, append_of, some_log
from tests.unit.core.authority_kit import make_member, make_mesh

MESH = make_mesh()
ALICE, AGAIN = make_member(MESH, "alice"), make_member(MESH, "alice", start=2)
BOB = make_member(MESH, "bob", witness=True)


def alices(*nodes: bytes) -> Writer:
    writer = Writer.begin(MESH, ALICE)
    writer.open()
    writer.keep(writer.sign(EntryType.WITNESSES, witnesses([BOB.node_id] if not nodes else [])))
    writer.note("three")
    return writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.sqlite3"


@asynccontextmanager
async def running(path: Path, *, ask: bool = True) -> AsyncIterator[AuditLog]:
    signer = LogSigner(AGAIN.message, AGAIN.credentials)
    log = await AuditLog.open(path, root=MESH.root, signer=signer, at=lambda: MESH.at, ask=ask)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        yield log
        nursery.cancel_scope.cancel()
    log.close()


def stored(path: Path, writer: Writer, entries: int) -> None:
    """A store that holds the first entries of a log."""
    part = Writer(writer.mesh, writer.member, writer.opening, writer.log_id, writer.entries[:entries])
    store = AuditStore.open(path)
    store.append_many([append_of(part)])
    store.close()


async def receive(log: AuditLog, writer: Writer, start: int) -> None:
    """Entries from a peer."""
    items = tuple(writer.raws[start:])
    log.replica.check(writer.log_id, writer.member.node_id, start, items)
    await log.store(ItemsVerified(writer.log_id, writer.member.node_id, start, items))


async def appended(log: AuditLog, into: list[Entry]) -> None:
    into.append(await log.append_application("count", 1))


async def test_what_we_write_waits_and_what_others_write_does_not(path: Path) -> None:
    stored(path, alices(), 3)
    done: list[Entry] = []
    async with running(path) as log, trio.open_nursery() as nursery:
        assert log.waits
        nursery.start_soon(appended, log, done)
        await receive(log, some_log(2, mesh=MESH, name="carol"), 0)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (done, log.state.size) == ([], 3)
        await log.go_on()
    assert not log.waits
    assert (done[0].log_id, done[0].seq) == (log.state.log_id, 4)  # after the endorsement of this start
    assert verify_store(path, MESH.root).holds


async def test_what_we_lack_of_our_own_log_is_caught_up_with_and_named_by_the_next(path: Path) -> None:
    writer = alices()
    for _ in range(3):
        writer.note()
    stored(path, writer, 3)
    done: list[Entry] = []
    async with running(path) as log, trio.open_nursery() as nursery:
        nursery.start_soon(appended, log, done)
        await receive(log, Writer(MESH, ALICE, writer.opening, writer.log_id, writer.entries[:5]), 3)
        await receive(log, writer, 5)
        assert (log.waits, log.state.log_id, log.state.size) == (True, writer.log_id, 6)
        await log.begin_next("newer copy elsewhere", b"a note")
        (newest, old) = log.replica.logs_of(ALICE.node_id)
        assert (newest.k, old.size) == (1, 6)
    assert done[0].log_id == newest.log_id
    store = AuditStore.open_readonly(path)
    opening = LogOpen.read(next(one for one in store.newest() if one.log_id == newest.log_id and one.seq == 0).body)
    store.close()
    assert opening.former is not None
    assert (opening.former.size, opening.former.last) == (6, writer.entries[-1].hash)
    assert (opening.former.reason, opening.former.checkpoint) == ("newer copy elsewhere", b"a note")
    assert verify_store(path, MESH.root).holds


async def test_the_next_log_follows_the_newest_one_of_ours_that_is_held(path: Path) -> None:
    writer = alices()
    stored(path, writer, 3)
    async with running(path) as log:
        await log.begin_next("unconfirmed")
        second = log.state
    async with running(path) as log:
        assert not log.waits  # it has named no witness
        assert log.state.log_id == second.log_id


@pytest.mark.parametrize("ask", [False, True])
async def test_a_log_that_names_no_witness_or_where_nobody_asks_goes_on_at_once(path: Path, *, ask: bool) -> None:
    stored(path, alices(*([b"nobody"] if ask else [])), 3)
    async with running(path, ask=ask) as log:
        assert not log.waits
        assert log.state.size == 4


async def test_a_clock_that_went_back_begins_the_next_log_though_the_witnesses_agree(path: Path) -> None:
    writer = alices()
    writer.note("late", hlc=hlc_of(MESH.at + timedelta(minutes=30)))
    stored(path, writer, 4)
    done: list[Entry] = []
    async with running(path) as log, trio.open_nursery() as nursery:
        nursery.start_soon(appended, log, done)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert log.waits
        await log.go_on()
    assert (done[0].log_id != writer.log_id, done[0].seq) == (True, 1)
    assert verify_store(path, MESH.root).holds


async def test_what_waits_when_the_log_is_closed_is_refused(path: Path) -> None:
    stored(path, alices(), 3)
    async with running(path) as log:
        assert log.waits
        with trio.move_on_after(0.05) as scope:
            await log.append_application("count", 1)
        assert scope.cancelled_caught
    assert len(verify_store(path, MESH.root).logs) == 1
