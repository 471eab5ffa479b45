"""The state folder: where it lies, who may hold it, and what it says when it is not what it should be."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overlay.errors import HostLacks, LocalProtocolError, StateDamaged, StateInUse, UsageError
from overlay.store.state import FORMAT_FILE, LOCK_FILE, SYSTEM_FOLDER, StateFolder, default_location, holder, locate

HOME = Path("/home/ann")


# --- where ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "environment", "root", "expected"),
    [
        ("here", {"OVERLAY_STATE": "/there"}, False, "here"),
        ("here", {}, True, "here"),
        (None, {"OVERLAY_STATE": "/there", "XDG_STATE_HOME": "/xdg"}, False, "/there"),
        (None, {"OVERLAY_STATE": "/there"}, True, "/there"),
        (None, {"XDG_STATE_HOME": "/xdg"}, False, "/xdg/overlay/default"),
        (None, {"XDG_STATE_HOME": "relative"}, False, "/home/ann/.local/state/overlay/default"),
        (None, {"OVERLAY_STATE": ""}, False, "/home/ann/.local/state/overlay/default"),
        (None, {"XDG_STATE_HOME": "/xdg"}, True, str(SYSTEM_FOLDER)),
    ],
)
def test_option_beats_environment_beats_default(
    option: str | None, environment: dict[str, str], root: bool, expected: str
) -> None:
    assert locate(option, environment, home=HOME, root=root) == Path(expected)


def test_the_location_for_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERLAY_STATE", "/there")
    assert default_location() == Path("/there")
    assert default_location("/here") == Path("/here")


# --- making and opening ---------------------------------------------------------------------------------------------


def test_a_new_folder_is_private_and_holds_its_format_and_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with StateFolder.create(path) as folder:
        assert folder.locked
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert sorted(os.listdir(path)) == [FORMAT_FILE, LOCK_FILE]
        assert stat.S_IMODE((path / FORMAT_FILE).stat().st_mode) == 0o600
        assert (path / FORMAT_FILE).read_text().startswith("1 ")


def test_a_folder_opens_again_and_holds_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with StateFolder.create(path) as folder:
        folder.write("x", b"content")
    with StateFolder.open(path, exclusive=True) as folder:
        assert folder.read("x") == b"content"
        assert folder.read("y") is None
        assert folder.file("x") == path / "x"


def test_a_folder_opened_to_read_takes_no_lock_and_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with StateFolder.create(path) as writer:
        writer.write("x", b"content")
        with StateFolder.open(path, exclusive=False) as reader:
            assert not reader.locked
            assert reader.read("x") == b"content"
            with pytest.raises(LocalProtocolError):
                reader.write("x", b"other")
    assert StateFolder.open(path, exclusive=False).read("x") == b"content"


def test_a_folder_with_something_in_it_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    (path / "diary.txt").touch()
    with pytest.raises(UsageError, match="not empty") as caught:
        StateFolder.create(path)
    assert "--state" in caught.value.hint
    assert os.listdir(path) == ["diary.txt"]


def test_an_empty_folder_or_one_whose_making_was_cut_short_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    StateFolder.create(path).close()
    StateFolder.create(path).close()
    (path / FORMAT_FILE).unlink()
    StateFolder.create(path).close()


def test_where_no_folder_can_be_made_the_error_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot make"):
        StateFolder.create(tmp_path / "file" / "state")
    with pytest.raises(UsageError, match="cannot make"):
        StateFolder.create(tmp_path / "file")


@pytest.mark.parametrize("made", [False, True])
def test_where_there_is_no_node_the_hint_says_how_to_make_one(tmp_path: Path, made: bool) -> None:
    path = tmp_path / "state"
    if made:
        path.mkdir(mode=0o700)
    with pytest.raises(UsageError, match="there is no node in") as caught:
        StateFolder.open(path, exclusive=True)
    assert "overlay init" in caught.value.hint
    assert path.exists() == made
    assert not made or os.listdir(path) == []


@pytest.mark.parametrize("name", [FORMAT_FILE, LOCK_FILE])
def test_what_cannot_be_written_is_named_and_the_lock_is_let_go(tmp_path: Path, name: str) -> None:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    (path / name).mkdir()
    with pytest.raises(HostLacks, match="cannot write"):
        StateFolder.create(path)
    assert holder(path) is None


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with StateFolder.create(tmp_path / "state") as folder:
        folder.file("x").mkdir()
        with pytest.raises(HostLacks, match="/x: ") as caught:
            folder.write("x", b"content")
        assert "disk" in caught.value.hint


def test_a_path_that_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot look into"):
        StateFolder.open(tmp_path / "file" / "state", exclusive=False)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    StateFolder.create(tmp_path / "state").close()
    return tmp_path / "state"


def test_a_folder_of_another_format_is_left_alone_and_says_which_release_knows_it(path: Path) -> None:
    (path / FORMAT_FILE).write_text("2 9.1.0\n")
    with pytest.raises(StateDamaged, match="has format 2 and this release knows format 1") as caught:
        StateFolder.open(path, exclusive=True)
    assert "release 9.1.0" in caught.value.hint
    assert (path / FORMAT_FILE).read_text() == "2 9.1.0\n"
    (path / FORMAT_FILE).write_text("0")
    with pytest.raises(StateDamaged) as caught:
        StateFolder.open(path, exclusive=True)
    assert "that made it" in caught.value.hint


@pytest.mark.parametrize("text", ["", "one", "-1 0.1", "1" * 10, "\0", "\xff", "\u0661 0.1"])
def test_a_format_file_that_says_no_number_is_damaged(path: Path, text: str) -> None:
    (path / FORMAT_FILE).write_text(text)
    with pytest.raises(StateDamaged, match=FORMAT_FILE):
        StateFolder.open(path, exclusive=False)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("wider", [0o750, 0o705, 0o755, 0o770])
def test_a_folder_that_others_may_enter_is_refused_with_the_command_to_run(
    path: Path, wider: int, exclusive: bool
) -> None:
    path.chmod(wider)
    with pytest.raises(StateDamaged, match="open to other users") as caught:
        StateFolder.open(path, exclusive=exclusive)
    assert f"chmod 0700 {path}" in caught.value.hint
    with pytest.raises(StateDamaged):
        StateFolder.create(path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o600)
    with pytest.raises(StateDamaged, match="not a folder"):
        StateFolder.open(tmp_path / "file", exclusive=True)


# --- the lock -------------------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from overlay.store.state import StateFolder
folder = StateFolder.open(Path(sys.argv[1]), exclusive=True)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other


def test_a_folder_that_another_process_holds_names_it_and_how_to_share(path: Path) -> None:
    with held_elsewhere(path) as other:
        with pytest.raises(StateInUse, match=f"in use by process {other.pid}") as caught:
            StateFolder.open(path, exclusive=True)
        assert caught.value.pid == other.pid == holder(path)
        assert "connect_local" in caught.value.hint
        StateFolder.open(path, exclusive=False).close()
        with pytest.raises(StateInUse):
            StateFolder.create(path)
    StateFolder.open(path, exclusive=True).close()


def test_a_lock_ends_with_a_process_that_was_killed(path: Path) -> None:
    with held_elsewhere(path) as other:
        other.kill()
        other.wait()
    assert holder(path) is None
    StateFolder.open(path, exclusive=True).close()


def test_the_same_process_cannot_hold_a_folder_twice(path: Path) -> None:
    with StateFolder.open(path, exclusive=True):
        assert holder(path) == os.getpid()
        with pytest.raises(StateInUse) as caught:
            StateFolder.open(path, exclusive=True)
        assert caught.value.pid == os.getpid()
    assert holder(path) is None


def test_a_closed_folder_is_not_written_and_may_be_closed_again(path: Path) -> None:
    folder = StateFolder.open(path, exclusive=True)
    folder.close()
    folder.close()
    with pytest.raises(LocalProtocolError):
        folder.write("x", b"content")


def test_nobody_holds_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert holder(tmp_path / "nowhere") is None


def test_a_holder_that_has_not_said_who_it_is_is_process_0(path: Path) -> None:
    with StateFolder.open(path, exclusive=True):
        (path / LOCK_FILE).write_text("")
        assert holder(path) == 0
