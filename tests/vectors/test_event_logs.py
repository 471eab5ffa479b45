"""Logs of real machines: replayed as `tpm2_eventlog` does it."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from attest.event_log import parse_boot_log
from attest.replay import digest_of, meet, replay

NAMES = ["crypto_agile_eventlog", "sb_cert_eventlog", "ubuntu_2104_shielded_vm_no_secure_boot_eventlog"]


def values_of_tpm2_tools(path: Path) -> dict[int, bytes]:
    """The SHA-256 bank at the end of what it prints."""
    ran = subprocess.run(["tpm2_eventlog", str(path)], capture_output=True, text=True, check=False)
    bank = ran.stdout[ran.stdout.rindex("\npcrs:") :].partition("sha256:\n")[2]
    rows = re.match(r"(?: +\d+ *: 0x[0-9a-f]{64}\n?)+", bank)
    assert rows is not None, ran
    return {int(pcr): bytes.fromhex(value) for pcr, value in re.findall(r"(\d+) *: 0x([0-9a-f]+)", rows[0])}


@pytest.mark.skipif(shutil.which("tpm2_eventlog") is None, reason="no tpm2_eventlog: apt-get install tpm2-tools")
@pytest.mark.parametrize("name", NAMES)
def test_a_real_log_replays_to_what_tpm2_eventlog_computes(vector_file: Callable[[str], Path], name: str) -> None:
    path = vector_file(f"eventlogs/{name}")
    found, wanted = replay(parse_boot_log(path.read_bytes())), values_of_tpm2_tools(path)
    assert {pcr: found[pcr] for pcr in wanted} == wanted
    assert len(wanted) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_a_real_log_meets_a_quote_at_its_end(vector_file: Callable[[str], Path], name: str) -> None:
    log = parse_boot_log(vector_file(f"eventlogs/{name}").read_bytes())
    values = replay(log)
    for pcr in range(15):
        bitmap = 1 << pcr
        assert meet(log, bitmap, digest_of(values, bitmap)).surplus == 0
