"""A node that comes back from a backup, among real nodes: no second story under its key, and nothing that only one may hold."""

import shutil
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
import trio

from audit.bodies import LogOpen
from audit.entry import Entry
from audit.store import AuditStore
from audit.verifier import verify_store
from overlay.app.api import EntryReceipt
from overlay.app.backup import make_backup, read_moment
from overlay.app.restore import restore_backup
from overlay.core.certificates import Root
from overlay.errors import CheckFailed, HostLacks, Refused, StateDamaged, UsageError
from overlay.events import AuthorityAlarm, AuthorityChanged, ChainRejected
from overlay.net.system import wall_clock
from overlay.registry import EntryType, Reason
from overlay.store.backup import KEPT, Manifest
from overlay.store.clock import load_floor, raise_floor
from overlay.store.membership import load_mesh
from overlay.store.restored import load_count
from overlay.store.sealed_file import CHUNK
from overlay.store.state import (
    AUDIT_STORE,
    BINDINGS,
    CERTIFICATE,
    CLOCK_FLOOR,
    FOUNDING_KEY,
    IDENTITY_SEED,
    LOCK_FILE,
    MEMBERS,
    PEERS,
    SESSION_KEYS,
    SETTINGS,
    SHARE,
    StateFolder,
)
from tests.shell.authority_kit import (
    PATIENCE,
    Running,
    admitted,
    files_of,
    founded,
    join,
    linked,
    met,
    opened,
    token_of,
    until,
)

PASSPHRASE = b"correct horse battery staple"


def backed_up(path: Path, *, at: datetime | None = None) -> bytes:
    """The backup of a node, which may be running."""
    target = path.with_suffix(".backup")
    make_backup(path, target, PASSPHRASE, at or wall_clock(), overwrite=True, cost=14)
    return target.read_bytes()


def restored(data: bytes, path: Path) -> Manifest:
    return restore_backup(BytesIO(data), path, PASSPHRASE, wall_clock())


async def in_thread(path: Path) -> bytes:
    return await trio.to_thread.run_sync(backed_up, path)


async def told(one: Running, number: int) -> EntryReceipt:
    """An entry that its peers have taken."""
    entry = await one.node.audit.append("count", number)
    with trio.fail_after(PATIENCE):
        await one.node.audit.wait_replicated(entry)
    return entry


def openings(path: Path, name: str) -> list[LogOpen]:
    """How a node began its logs, as another one holds them."""
    store = AuditStore.open_readonly(path / AUDIT_STORE)
    found = [entry for entry in store.newest() if entry.type == EntryType.LOG_OPEN]
    store.close()
    return [LogOpen.read(entry.body) for entry in found if name_of(path, entry) == name]


def name_of(path: Path, entry: Entry) -> str:
    return next(log.name for log in verify_store(path / AUDIT_STORE, root_of(path)).logs if log.log_id == entry.log_id)


def size_of(path: Path, log_id: bytes) -> int:
    """How many entries of a log a node holds."""
    store = AuditStore.open_readonly(path / AUDIT_STORE)
    found = next((row.size for row in store.logs() if row.log_id == log_id), 0)
    store.close()
    return found


def root_of(path: Path) -> Root:
    """Of its mesh."""
    with StateFolder.open(path, exclusive=False) as folder:
        mesh = load_mesh(folder)
    assert mesh is not None
    return mesh.root


def forks(*nodes: Running) -> list[object]:
    """What anybody said about two stories."""
    return [
        event for one in nodes for event in one.events
        if isinstance(event, ChainRejected) or (isinstance(event, AuthorityAlarm) and event.reason is Reason.EQUIVOCATION)
    ]  # fmt: skip


# --- logs -------------------------------------------------------------------------------------------------------------


async def test_a_restored_node_begins_a_new_log_and_its_peers_take_it_though_they_hold_more_of_the_old_one(
    tmp_path: Path,
) -> None:
    path = founded(tmp_path)
    bobs = admitted(path, "bob")
    async with opened(path) as alice:
        async with opened(bobs, alice) as bob:
            await met(alice, bob)
            await told(bob, 1)
            await bob.node.publish("news", b"before")
            data = await in_thread(bobs)
            old = await told(bob, 2)
            await bob.node.publish("news", b"after")
        shutil.rmtree(bobs)
        restored(data, bobs)
        async with opened(bobs, alice) as bob:
            await met(alice, bob)
            await told(bob, 4)
            await bob.node.publish("news", b"again")
            await until(lambda: size_of(bobs, old.log_id) > old.seq)  # it learns what it wrote
            assert not forks(alice, bob)
        async with opened(bobs, alice) as bob:  # a later start goes on with the new log
            await met(alice, bob)
            await told(bob, 5)
            assert not forks(alice, bob)
    for folder in (path, bobs):
        verify_store(folder / AUDIT_STORE, root_of(folder)).demand()
        first, second = openings(folder, "bob")
        assert (first.k, first.former) == (0, None)
        assert second.k > 1_700_000_000
        assert second.former is not None
        assert (second.former.log_id, second.former.reason) == (old.log_id, "restored")
        assert 0 < second.former.size <= old.seq


async def test_each_restore_of_one_backup_counts_from_a_higher_number_than_the_one_before(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with opened(path) as alice:
        await alice.node.audit.append("count", 1)
    data = backed_up(path)
    later = wall_clock() + timedelta(seconds=1)
    restore_backup(BytesIO(data), tmp_path / "one", PASSPHRASE, wall_clock())
    restore_backup(BytesIO(data), tmp_path / "two", PASSPHRASE, later)
    counts = []
    for name in ("one", "two"):
        with StateFolder.open(tmp_path / name, exclusive=False) as folder:
            counts.append(load_count(folder))
    assert 0 < counts[0] < counts[1]
    async with opened(tmp_path / "one"):
        data = await in_thread(tmp_path / "one")
    restore_backup(BytesIO(data), tmp_path / "three", PASSPHRASE, wall_clock() - timedelta(days=365))  # its clock is wrong
    async with opened(tmp_path / "three"):
        pass
    assert [opening.k for opening in openings(tmp_path / "three", "alice")] == [0, counts[0], counts[0] + 1]


async def test_a_node_that_never_ran_before_its_backup_does_not_begin_its_first_log_twice(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs = admitted(path, "bob")
    data = backed_up(bobs)
    async with opened(path) as alice:
        async with opened(bobs, alice) as bob:
            await met(alice, bob)
            await told(bob, 1)
        restored(data, tmp_path / "again")
        async with opened(tmp_path / "again", alice) as bob:
            await met(alice, bob)
            await told(bob, 2)
            assert not forks(alice, bob)
    assert [opening.k > 0 for opening in openings(path, "bob")] == [False, True]
    verify_store(path / AUDIT_STORE, root_of(path)).demand()


# --- orders, certificates, shares -------------------------------------------------------------------------------------


async def test_a_restored_operator_gives_no_second_order_under_an_old_number(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs = admitted(path, "bob", "operator")
    async with opened(path) as alice:
        async with opened(bobs, alice) as bob:
            await met(alice, bob)
            data = await in_thread(bobs)
            await bob.node.authority.invite()
            await until(lambda: alice.node.seat.ledger.orders.next_number(bob.node.node_id) == 2)
        restored(data, tmp_path / "again")
        async with opened(tmp_path / "again") as lone:  # before it hears of its own order
            await lone.node.authority.invite()
            number = lone.node.seat.ledger.orders.next_number(lone.node.node_id) - 1
        async with opened(tmp_path / "again", alice) as bob:
            await met(alice, bob)
            await until(lambda: alice.node.seat.ledger.orders.next_number(bob.node.node_id) == number + 1)
            assert not alice.node.seat.ledger.orders.forked
            assert not forks(alice, bob)
    assert number > 1_700_000_000


async def test_a_restored_node_whose_certificate_was_renewed_since_is_a_clone_until_it_joins_again_as_itself(
    tmp_path: Path,
) -> None:
    path = founded(tmp_path)
    async with opened(path) as alice:
        await join(tmp_path / "bob", await token_of(alice, roles=("worker",)), name="bob")
        async with opened(tmp_path / "bob", alice) as bob:
            await met(alice, bob)
            data = await in_thread(tmp_path / "bob")
            before = bob.node.engine.identity.verified.certificate
            await bob.node.authority.renew()
            await until(lambda: bob.node.engine.identity.verified.certificate != before)
            begin = bob.node.engine.identity.verified.certificate.not_before
        restored(data, tmp_path / "again")
        async with opened(tmp_path / "again", alice) as bob:
            await met(alice, bob)
            await until(lambda: wall_clock() > begin + timedelta(seconds=2))  # else it would ask for the same certificate
            with pytest.raises(Refused, match="cloned_identity"):
                await bob.node.authority.renew()
            node_id = bob.node.node_id
        certificate = await join(tmp_path / "again", await token_of(alice, roles=("worker",)), name="bob")
        assert (certificate.node_id, certificate.name) == (node_id, "bob")
        async with opened(tmp_path / "again", alice) as bob:
            await met(alice, bob)
            await bob.node.authority.renew()
            assert not forks(alice, bob)


async def test_a_restored_node_joins_no_other_mesh(tmp_path: Path) -> None:
    restored(backed_up(founded(tmp_path)), tmp_path / "again")
    before = files_of(tmp_path / "again")
    async with opened(founded(tmp_path, "eve", mesh="other")) as eve:
        with pytest.raises(UsageError, match="belongs to a mesh already"):
            await join(tmp_path / "again", await token_of(eve), name="alice")
    assert files_of(tmp_path / "again") == before


async def test_a_signer_comes_back_without_its_share_and_the_others_repair_it(tmp_path: Path) -> None:
    path = founded(tmp_path)
    names = ("alice", "bob", "carol")
    folders = (path, *(admitted(path, name, "signer") for name in names[1:]))
    async with linked(*folders[:2]) as (alice, bob):
        async with opened(folders[2], alice, bob) as carol:
            await met(alice, bob, carol)
            await alice.node.authority.distribute(names, 2)
            for one in (alice, bob, carol):
                await one.heard(AuthorityChanged)
                await until(lambda one=one: (Path(one.node.folder) / SHARE).exists())
            await until(lambda: len(carol.node.engine.identity.verified.certificate.lineage) == 2)
            data = await in_thread(folders[2])
            share = (folders[2] / SHARE).read_bytes()
        manifest = restored(data, tmp_path / "again")
        assert manifest.is_signer and not manifest.is_founder
        assert not {SHARE, BINDINGS, SESSION_KEYS} & set(files_of(tmp_path / "again"))
        async with opened(tmp_path / "again", alice, bob) as carol:
            await met(alice, bob, carol)
            assert carol.node.seat.ledger.share is None
            with trio.fail_after(PATIENCE):
                await carol.node.authority.repair()
            assert carol.node.seat.ledger.bindings.rows  # what others have promised, it promises, too
            assert not forks(alice, bob, carol)
        assert (tmp_path / "again" / SHARE).read_bytes() == share


# --- what is in it ----------------------------------------------------------------------------------------------------


async def test_identity_membership_trust_peers_and_logs_come_back_and_no_secret_of_the_authority(tmp_path: Path) -> None:
    path = founded(tmp_path)
    (path / SETTINGS).write_text("log_level = 'info'\n")
    async with opened(path), opened(admitted(path, "bob")):
        pass
    manifest = restored(backed_up(path), tmp_path / "again")
    assert manifest.is_founder and not manifest.is_signer
    before, after = files_of(path), files_of(tmp_path / "again")
    for name in KEPT:
        if name != AUDIT_STORE:
            assert before.get(name) == after.get(name), name
    assert FOUNDING_KEY in before and FOUNDING_KEY not in after
    secret = before[FOUNDING_KEY][-32:]
    assert all(secret not in data for data in after.values())
    assert oct((tmp_path / "again").stat().st_mode & 0o777) == "0o700"
    assert {oct(one.stat().st_mode & 0o777) for one in (tmp_path / "again").iterdir()} == {"0o600"}


async def test_a_backup_of_a_node_that_writes_without_pause_is_whole(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with opened(path) as alice, trio.open_nursery() as nursery:
        async def write() -> None:
            for number in range(10_000):
                await alice.node.audit.append("count", number)

        nursery.start_soon(write)
        for number in range(3):
            data = await in_thread(path)
            restored(data, tmp_path / f"again{number}")
            verify_store(tmp_path / f"again{number}" / AUDIT_STORE, root_of(path)).demand()
        nursery.cancel_scope.cancel()
    assert not list(path.glob(".backup-*"))


class Restless(StateFolder):
    """Changes two files, after the first of them was read and before the second is."""

    changes = 0

    def read(self, name: str) -> bytes | None:
        if name == MEMBERS and self.changes < 3:
            self.changes += 1
            raise_floor(self, wall_clock() + timedelta(days=self.changes))
            self.write_text(SETTINGS, f"# {self.changes}\n")
        return super().read(name)


def test_files_that_change_while_they_are_read_are_read_again(tmp_path: Path) -> None:
    with Restless.open(founded(tmp_path), exclusive=True) as folder:
        _, contents = read_moment(folder, wall_clock())
        floor = load_floor(folder)
        assert folder.changes == 3 and floor is not None
        assert int(floor.timestamp()).to_bytes(4, "big") in contents[CLOCK_FLOOR]
        assert contents[SETTINGS] == b"# 3\n"


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    path = founded(tmp_path)
    data, before = backed_up(path), files_of(path)
    with pytest.raises(UsageError, match="is not empty"):
        restored(data, path)
    assert files_of(path) == before


def test_settings_that_are_there_already_stay(tmp_path: Path) -> None:
    path = founded(tmp_path)
    (path / SETTINGS).write_text("log_level = 'info'\n")
    again = tmp_path / "again"
    again.mkdir(mode=0o700)
    (again / SETTINGS).write_text("log_level = 'debug'\n")
    restored(backed_up(path), again)
    assert (again / SETTINGS).read_text() == "log_level = 'debug'\n"


@pytest.mark.parametrize("left", [0, 30, 200, 2000, -1])
def test_of_a_file_that_was_cut_nothing_is_used(tmp_path: Path, left: int) -> None:
    data = backed_up(founded(tmp_path))
    with pytest.raises((CheckFailed, UsageError)) as caught:
        restored(data[:left], tmp_path / "again")
    assert caught.value.hint
    assert not (tmp_path / "again").exists()


def test_of_a_file_whose_last_byte_was_changed_nothing_is_used(tmp_path: Path) -> None:
    path = founded(tmp_path)
    (path / SETTINGS).write_text("# " + "x" * 2 * CHUNK + "\n")
    data = bytearray(backed_up(path))
    data[-1] ^= 1
    with pytest.raises(CheckFailed, match="cut short or changed"):
        restored(bytes(data), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_wrong_passphrase_changes_nothing(tmp_path: Path) -> None:
    data = backed_up(founded(tmp_path))
    with pytest.raises(CheckFailed, match="the passphrase is wrong"):
        restore_backup(BytesIO(data), tmp_path / "again", b"guess", wall_clock())
    assert not (tmp_path / "again").exists()


def test_a_dry_run_reads_all_and_writes_nothing(tmp_path: Path) -> None:
    data = backed_up(founded(tmp_path))
    found = restore_backup(BytesIO(data), tmp_path / "again", PASSPHRASE, wall_clock(), dry_run=True)
    assert (found.name, found.mesh_name) == ("alice", "home")
    changed = bytearray(data)
    changed[-1] ^= 1
    with pytest.raises(CheckFailed):
        restore_backup(BytesIO(bytes(changed)), tmp_path / "again", PASSPHRASE, wall_clock(), dry_run=True)
    assert not (tmp_path / "again").exists()


class Obstacle(BytesIO):
    """A backup that puts something in the way when it is read for the second time, beyond its first two chunks."""

    way: Path
    reads = -1000

    def seek(self, *where: int) -> int:
        self.reads = 0
        return super().seek(*where)

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads == 3:
            self.way.mkdir()
        return super().read(size)


def test_a_restore_that_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    path, again = founded(tmp_path), tmp_path / "again"
    (path / SETTINGS).write_text("# " + "x" * 4 * CHUNK + "\n")
    source = Obstacle(backed_up(path))
    source.way = again / f".{CERTIFICATE}.new"
    with pytest.raises(HostLacks, match="cannot write"):
        restore_backup(source, again, PASSPHRASE, wall_clock())
    assert {one.name for one in again.iterdir()} == {LOCK_FILE, source.way.name}


def test_no_backup_is_made_of_a_damaged_folder_or_of_no_member(tmp_path: Path) -> None:
    path = founded(tmp_path)
    with StateFolder.create(tmp_path / "nobody"):
        pass
    for folder, error in ((tmp_path / "nobody", StateDamaged), (tmp_path / "nothing", UsageError)):
        with pytest.raises(error):
            backed_up(folder)
    (path / IDENTITY_SEED).write_bytes(bytes(70))
    with pytest.raises(StateDamaged, match="digest"):
        backed_up(path)
    assert not list(tmp_path.glob("*.backup")) and not list(tmp_path.glob(".*"))


def test_a_peer_book_that_cannot_be_read_is_no_hindrance(tmp_path: Path) -> None:
    path = founded(tmp_path)
    (path / PEERS).write_text("{")
    (path / PEERS).chmod(0o600)
    assert PEERS not in restored(backed_up(path), tmp_path / "again").sizes


def test_a_backup_is_private_and_never_written_over_without_being_told_so(tmp_path: Path) -> None:
    path = founded(tmp_path)
    backed_up(path)
    target = path.with_suffix(".backup")
    before = target.read_bytes()
    assert oct(target.stat().st_mode & 0o777) == "0o600"
    with pytest.raises(UsageError, match="is there already") as caught:
        make_backup(path, target, PASSPHRASE, wall_clock(), cost=14)
    assert "--force" in caught.value.hint and target.read_bytes() == before
    for place in (tmp_path, tmp_path / "no" / "where"):
        with pytest.raises(UsageError, match="cannot write"):
            make_backup(path, place, PASSPHRASE, wall_clock(), cost=14)
