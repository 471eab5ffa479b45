"""A log of one's own, alone: threads share commits, whoever subscribes hears, and a fresh interpreter needs no trio."""

import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import audit
from audit.bodies import LogOpen, witnesses
from audit.entry import Entry
from audit.writer import LogWriter
from overlay.errors import HostLacks, OverlayError, Refused, UsageError
from overlay.registry import EntryType, Reason
from tests.unit.core.authority_kit import DAY, Member, make_member, make_mesh

ROOT = Path(__file__).parents[3]
MESH = make_mesh()
ALICE, LATER = make_member(MESH, "alice"), make_member(MESH, "alice", start=2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.sqlite3"


def signer_of(member: Member) -> audit.LogSigner:
    return audit.LogSigner(member.message, member.credentials)


def opened(path: Path, member: Member = ALICE, at: datetime = MESH.at) -> LogWriter:
    return audit.open_log(path, root=MESH.root, signer=signer_of(member), clock=lambda: at)


def together(count: int, work: object) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


# --- appending --------------------------------------------------------------------------------------------------------


def test_an_entry_is_durable_when_append_returns_and_the_log_verifies(path: Path) -> None:
    with opened(path) as log:
        entry = log.append("door.opened", {"door": "7b"})
        assert audit.verify(path, root=MESH.root).logs[0].size == 2
        assert (entry.seq, log.state.last) == (1, entry.hash)


def test_threads_share_commits_and_every_entry_is_there_once(path: Path) -> None:
    got: list[Entry] = []
    with opened(path) as log:

        def write(number: int) -> None:
            for count in range(20):
                got.append(log.append("count", [number, count]))

        together(16, write)
        values = [entry.body[1] for entry in log.query(audit.Query(types=frozenset(["count"])))]
    assert sorted(entry.seq for entry in got) == list(range(1, 321))
    assert len(set(values)) == 320
    assert audit.verify(path, root=MESH.root).holds


def test_what_cannot_be_an_entry_fails_alone(path: Path) -> None:
    with opened(path) as log:
        with pytest.raises(UsageError):
            log.append("too.large", "x" * 2**16)
        assert log.append("fits").seq == 1


def test_it_goes_on_with_its_log_and_under_other_keys(path: Path) -> None:
    with opened(path) as log:
        log.append("one")
        first = log.state.log_id
    with opened(path, LATER) as log:
        assert log.state.log_id == first
        log.append("two")
        log.change_signer(signer_of(make_member(MESH, "alice", start=3)))
        log.append("three")
    assert audit.verify(path, root=MESH.root).logs[0].size == 6


def test_a_log_that_has_witnesses_is_left_because_they_cannot_be_asked(path: Path) -> None:
    with opened(path) as log:
        log.append_entry(EntryType.WITNESSES, witnesses([make_member(MESH, "bob").node_id]))
        first = log.state
    with opened(path) as log:
        assert log.state.log_id != first.log_id
        assert log.state.k >= int(MESH.at.timestamp())
        opening = LogOpen.read(log.query(audit.Query(log_id=log.state.log_id))[0].body)
    assert opening.former is not None
    assert (opening.former.last, opening.former.reason) == (first.last, "unconfirmed")
    assert audit.verify(path, root=MESH.root).holds


def test_after_the_end_of_the_endorsement_nothing_is_appended(path: Path) -> None:
    now = [MESH.at]
    with audit.open_log(path, root=MESH.root, signer=signer_of(ALICE), clock=lambda: now[0]) as log:
        now[0] += DAY
        with pytest.raises(Refused) as caught:
            log.append("late")
    assert caught.value.reason is Reason.NOT_IN_FORCE


def test_a_closed_log_says_so(path: Path) -> None:
    log = opened(path)
    log.close()
    log.close()
    with pytest.raises(OverlayError, match="closed"):
        log.append("late")
    with pytest.raises(OverlayError, match="closed"), log.subscribe():
        pass


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """No file may grow by more than a little."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = max(file.stat().st_size for file in path.parent.iterdir()) + 8192
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_every_writer_is_told_and_nothing_acknowledged_is_lost(path: Path) -> None:
    done: list[Entry] = []
    failed: list[OverlayError] = []
    with opened(path) as log:

        def write(number: int) -> None:
            try:
                for _ in range(30):
                    done.append(log.append("fill", "x" * 1000))
            except OverlayError as error:
                failed.append(error)

        with full_disk(path):
            together(4, write)
        assert len(failed) == 4
        assert log.warning
    found = audit.verify(path, root=MESH.root)
    assert found.logs[0].size == 1 + len(done)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_query_finds_by_type_time_and_text(path: Path) -> None:
    now = [MESH.at]
    with audit.open_log(path, root=MESH.root, signer=signer_of(ALICE), clock=lambda: now[0]) as log:
        for door in ("7b", "8c", "9d"):
            now[0] += timedelta(minutes=1)
            log.append("door.opened", {"door": door})
        log.append_entry(EntryType.LIFECYCLE, {0: 1, 1: "stopped"})

        def seqs(query: audit.Query) -> list[int]:
            return [entry.seq for entry in log.query(query)]

        assert seqs(audit.Query(types=frozenset(["door.opened"]))) == [1, 2, 3]
        assert seqs(audit.Query(types=frozenset(["door.opened"]), last=2)) == [2, 3]
        assert seqs(audit.Query(types=frozenset(["log_open", "lifecycle"]))) == [0, 4]
        assert seqs(audit.Query(types=frozenset(["lifecycle", "door.opened"]), text="STOP")) == [4]
        assert seqs(audit.Query(text='"8C"')) == [2]
        assert seqs(audit.Query(since=MESH.at + timedelta(minutes=2), until=MESH.at + timedelta(minutes=3))) == [2]
        assert seqs(audit.Query(node_id=ALICE.node_id, log_id=log.state.log_id, last=1)) == [4]
        assert seqs(audit.Query(node_id=make_member(MESH, "bob").node_id)) == []
        assert seqs(audit.Query(log_id=bytes(16))) == []


def test_a_subscriber_gets_what_matches_until_the_log_ends(path: Path) -> None:
    log = opened(path)
    with log.subscribe(audit.Query(types=frozenset(["wanted"]))) as entries:
        log.append("other")
        wanted = log.append("wanted", 1)
        assert next(entries) == wanted
        log.append("wanted", 2)
        log.close()
        assert [entry.seq for entry in entries] == [3]


# --- a fresh interpreter ----------------------------------------------------------------------------------------------


def test_the_package_is_usable_with_no_trio_node_or_tpm() -> None:
    look = """
import sys, audit
for name in audit.__all__: getattr(audit, name)
print(sorted({'trio', 'overlay.net', 'overlay.app', 'zeroconf', 'tpm2_pytss'} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == "[]"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = audit.nothing
    assert "open_log" in dir(audit)


def test_a_file_needs_a_root_and_a_signer(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="root and a signer"):
        audit.open_log(path)
    with pytest.raises(UsageError, match="root and a signer"):
        audit.open_log(tmp_path, root=MESH.root)
    with pytest.raises(UsageError, match="root of the mesh"):
        audit.verify(path)


def test_the_host_without_a_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises((OverlayError, HostLacks)):
        opened(tmp_path / "none" / "audit.sqlite3")
