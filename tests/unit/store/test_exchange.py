"""Request and bundle files that a user names."""

import os
import stat
from pathlib import Path

import pytest

from overlay.core.enrolment_files import FILE_MAX
from overlay.errors import UsageError
from overlay.store.exchange import read_text, write_text


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o644)])
def test_a_file_is_read_as_it_was_written(tmp_path: Path, private: bool, mode: int) -> None:
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "x", "text\n", private=private)
    finally:
        os.umask(before)
    assert read_text(tmp_path / "x") == "text\n"
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    with pytest.raises(UsageError, match="File exists"):
        write_text(tmp_path / "x", "new", private=True)
    assert (tmp_path / "x").read_text() == "old"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            read_text(path)
    with pytest.raises(UsageError, match="cannot write"):
        write_text(tmp_path / "no" / "x", "text", private=True)


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    os.truncate(tmp_path / "x", FILE_MAX + 1)
    with pytest.raises(UsageError, match="longer than"):
        read_text(tmp_path / "x")


def test_bytes_that_are_no_text_are_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    assert read_text(tmp_path / "x")
