"""What may be wrong when a node starts, and what it makes of it."""

from pathlib import Path

import pytest
import trio
import trio.testing

from overlay.app.compose import open_node
from overlay.app.config import Config
from overlay.app.enrol import found_mesh
from overlay.core.policy import Policy
from overlay.errors import HostLacks, StateDamaged, UsageError
from overlay.store.state import AUDIT_STORE, CLOCK_FLOOR, PEERS, StateFolder
from tests.shell.folder_kit import ALONE, enrolled, started
from tests.tpm.conftest import Swtpm


async def test_a_port_that_is_taken_is_an_error_with_a_hint(tmp_path: Path) -> None:
    alices, bobs = enrolled(tmp_path, "alice", "bob")
    async with started(alices) as alice:
        with pytest.raises(HostLacks, match=f"cannot listen on port {alice.node.port} of") as caught:
            async with open_node(bobs, config=ALONE, listen=("127.0.0.1", alice.node.port)):
                raise AssertionError
        assert "--listen" in caught.value.hint


async def test_an_address_that_is_not_ours_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (folder,) = enrolled(tmp_path, "alice")
    with pytest.raises(HostLacks, match=r"cannot listen on port 4711 of 203\.0\.113\.1"):  # RFC 5737: nobody's
        async with open_node(folder, config=ALONE, listen=("203.0.113.1", 4711)):
            raise AssertionError


async def test_a_port_that_does_not_exist_is_an_error_of_usage(tmp_path: Path) -> None:
    (folder,) = enrolled(tmp_path, "alice")
    with pytest.raises(UsageError, match="65536 is not a port"):
        async with open_node(folder, config=ALONE, listen=("127.0.0.1", 65_536)):
            raise AssertionError


@pytest.mark.parametrize("mode", [0o600, 0o644])
async def test_a_damaged_peer_book_is_set_aside_and_the_node_starts(tmp_path: Path, mode: int) -> None:
    alices, bobs = enrolled(tmp_path, "alice", "bob")
    book = bobs / PEERS
    book.write_bytes(b"{")
    book.chmod(mode)
    async with started(alices) as alice, started(bobs, alice.node) as bob:
        assert any("empty peer book" in warning for warning in bob.node.statistics().warnings)
        assert (bobs / f"{PEERS}.damaged").read_bytes() == b"{"
        with trio.fail_after(10):
            while not book.exists():  # the next one
                await trio.testing.wait_all_tasks_blocked(0.01)
    async with started(bobs) as bob:
        assert not any("peer book" in warning for warning in bob.node.statistics().warnings)


async def test_a_damaged_peer_book_that_cannot_be_moved_does_not_stop_the_start(tmp_path: Path) -> None:
    (folder,) = enrolled(tmp_path, "alice")
    (folder / PEERS).mkdir()
    (folder / f"{PEERS}.damaged").write_bytes(b"")
    async with started(folder) as alice:
        assert any("empty peer book" in warning for warning in alice.node.statistics().warnings)


@pytest.mark.parametrize(("name", "hint"), [(CLOCK_FLOOR, "delete it"), (AUDIT_STORE, "move the file away with its -wal")])
async def test_the_hint_for_a_damaged_file_is_one_that_helps(tmp_path: Path, name: str, hint: str) -> None:
    (folder,) = enrolled(tmp_path, "alice")
    async with started(folder):
        pass
    path = folder / name
    path.write_bytes(b"no longer what it was, but long enough for the header of SQLite: " * 20)
    with pytest.raises(StateDamaged, match=name) as caught:
        async with open_node(folder, config=ALONE):
            raise AssertionError
    assert hint in caught.value.hint
    for one in folder.glob(f"{name}*"):
        one.rename(tmp_path / one.name)
    async with started(folder):
        pass


# --- a TPM that is away ------------------------------------------------------------------------------------------------


def founded_with_tpm(path: Path) -> tuple[Path, Swtpm, Config]:
    from overlay.app.tpm import open_tpm

    (path / "tpm").mkdir()
    emulator = Swtpm(path / "tpm")
    with StateFolder.create(path / "alice") as folder:
        tpm = open_tpm(emulator.tcti)
        try:
            found_mesh(folder, "alice", "home", Policy.default(), tpm)
        finally:
            tpm.close()
    config = Config(listen=("127.0.0.1", 0), mdns=False, evidence="tpm", tcti=emulator.tcti)
    return path / "alice", emulator, config


@pytest.mark.tpm
async def test_where_no_tpm_answers_the_node_goes_on_under_its_last_endorsement_and_warns(tmp_path: Path) -> None:
    folder, emulator, config = founded_with_tpm(tmp_path)
    try:
        async with open_node(folder, config=config) as alice:
            assert not any("goes on under" in warning for warning in alice.statistics().warnings)
        emulator.stop()
        async with open_node(folder, config=config) as alice:
            assert any("goes on under the endorsement of an earlier start" in one for one in alice.statistics().warnings)
            assert (await alice.audit.append("door.opened")).seq > 0
    finally:
        emulator.stop()


@pytest.mark.tpm
async def test_where_no_tpm_answers_and_nothing_is_left_to_go_on_under_the_node_does_not_start(tmp_path: Path) -> None:
    folder, emulator, config = founded_with_tpm(tmp_path)
    emulator.stop()
    with pytest.raises(HostLacks, match="no TPM answers at swtpm") as caught:
        async with open_node(folder, config=config):
            raise AssertionError
    assert caught.value.hint
