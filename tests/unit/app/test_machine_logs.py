"""The logs of this machine, as a node shows them."""

from pathlib import Path

import pytest

from attest.event_log import LOG_MAX
from overlay.app import machine_logs
from overlay.app.machine_logs import BOOT_LOG, MEASUREMENTS, OwnLogs
from overlay.core.wire import sha256
from overlay.registry import EvidenceLog

BOOT, FILES = EvidenceLog.BOOT, EvidenceLog.FILES


def test_both_logs_are_read_and_given_in_parts(tmp_path: Path) -> None:
    boot, files = tmp_path / "boot", tmp_path / "files"
    boot.write_bytes(b"a boot log")
    files.write_bytes(b"a list")
    logs = OwnLogs(boot, files)
    assert logs.read(BOOT, 0, 5) == (0, b"")
    assert logs.look() == sha256(b"a boot log")
    assert logs.read(BOOT, 2, 4) == (10, b"boot")
    assert logs.read(FILES, 0, 100) == (6, b"a list")
    assert logs.read(FILES, 6, 100) == (6, b"")


def test_of_a_list_only_what_is_new_is_read(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.write_bytes(b"first")
    logs = OwnLogs(None, files)
    assert logs.look() == sha256(b"")
    files.write_bytes(b"FIRST, then more")  # what was there is not read again
    logs.look()
    assert logs.read(FILES, 0, 100) == (16, b"first, then more")


def test_a_list_that_has_become_shorter_has_begun_anew(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.write_bytes(b"a long list")
    logs = OwnLogs(None, files)
    logs.look()
    files.write_bytes(b"new")
    logs.look()
    assert logs.read(FILES, 0, 100) == (3, b"new")


def test_without_files_there_are_no_logs(tmp_path: Path) -> None:
    for logs in (OwnLogs(None, None), OwnLogs(tmp_path / "no", tmp_path / "none")):
        assert logs.look() is None
        assert logs.read(BOOT, 0, 100) == logs.read(FILES, 0, 100) == (0, b"")


def test_logs_of_an_unlikely_length_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot, files = tmp_path / "boot", tmp_path / "files"
    boot.write_bytes(bytes(LOG_MAX + 1))
    files.write_bytes(b"0123456789")
    monkeypatch.setattr(machine_logs, "LIST_MAX", 8)
    logs = OwnLogs(boot, files)
    for _ in range(2):
        logs.look()
        assert logs.read(BOOT, 0, 10) == (0, b"")
        assert logs.read(FILES, 0, 10) == (8, b"01234567")


def test_an_emulated_tpm_has_not_measured_this_machine() -> None:
    assert OwnLogs.of("", "", "device:/dev/tpmrm0")._paths == (BOOT_LOG, MEASUREMENTS)
    assert OwnLogs.of("", "", "swtpm:path=/x")._paths == (None, None)
    assert OwnLogs.of("boot", "ima", "swtpm:path=/x")._paths == (Path("boot"), Path("ima"))
