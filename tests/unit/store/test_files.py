"""Files: wholly old or wholly new, private, and checked when read."""

import os
import stat
from pathlib import Path

import pytest

from overlay.errors import StateDamaged
from overlay.store.files import FILE_MAX, checked, read_checked, read_private, replacing, write_atomic


def put(path: Path, content: bytes) -> None:
    write_atomic(path, checked(content))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_read_as_it_was_written_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "x"
    put(path, b"content")
    assert read_checked(path) == b"content"
    assert mode(path) == 0o600


def test_a_file_is_private_whatever_the_umask_and_whatever_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        write_atomic(path, b"new")
    finally:
        os.umask(before)
    assert mode(path) == 0o600
    assert read_private(path) == b"new"


def test_no_file_is_none(tmp_path: Path) -> None:
    assert read_checked(tmp_path / "x") is None


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    put(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")  # type: ignore[arg-type]
    assert read_checked(path) == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_what_a_crash_left_beside_does_not_disturb_the_next_write(tmp_path: Path) -> None:
    (tmp_path / ".x.new").write_bytes(b"half a fi")
    put(tmp_path / "x", b"content")
    assert read_checked(tmp_path / "x") == b"content"
    assert os.listdir(tmp_path) == ["x"]


def test_a_link_put_beside_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".x.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        write_atomic(tmp_path / "x", b"content")
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("place", [0, 31, 32, 38])
def test_one_flipped_bit_is_found_named_and_left_as_it_is(tmp_path: Path, place: int) -> None:
    path = tmp_path / "x"
    put(path, b"content")
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(StateDamaged, match=str(path)) as caught:
        read_checked(path)
    assert "left as it is" in caught.value.hint
    assert path.read_bytes() == data


@pytest.mark.parametrize("data", [b"", b"x", bytes(31), bytes(32)])
def test_a_file_that_was_cut_is_damaged(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(StateDamaged):
        read_checked(path)


@pytest.mark.parametrize("wider", [0o640, 0o604, 0o620, 0o602, 0o644, 0o700])
def test_a_file_that_others_may_touch_is_refused_with_the_command_to_run(tmp_path: Path, wider: int) -> None:
    path = tmp_path / "x"
    put(path, b"content")
    path.chmod(wider)
    with pytest.raises(StateDamaged, match=f"mode {wider:04o}") as caught:
        read_checked(path)
    assert f"chmod 0600 {path}" in caught.value.hint


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("folder", "link", "pipe"):
        with pytest.raises(StateDamaged, match=name):
            read_private(tmp_path / name)


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch(mode=0o600)
    os.truncate(path, FILE_MAX + 1)
    with pytest.raises(StateDamaged, match="longer than"):
        read_private(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    put(path, b"content")
    os.chown(path, 65_534, -1)
    with pytest.raises(StateDamaged, match="belongs to user 65534"):
        read_checked(path)


def test_a_file_that_came_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), replacing(tmp_path / "x", overwrite=False) as file:
        file.write(b"new")
        (tmp_path / "x").write_bytes(b"old")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_nothing_is_left_of_a_file_whose_writing_was_broken_off(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "x") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
