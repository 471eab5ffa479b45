"""Rows about logs: a list of 20,000 files brought to a quote, by a command from the start, and by a link in its next round."""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import trio

from attest.account import account
from attest.event_log import BootLog
from attest.ima import PCR
from attest.replay import ZEROS, digest_of, extend, initial
from attest.structures import sized
from bench.row import Row, row
from overlay.app.lab.tpms import start_tpm
from overlay.app.tpm import missing, open_tpm
from overlay.core.wire import sha256
from overlay.errors import HostLacks

ENTRIES, LATER = 20_000, 100  # files that ran, and those of a busy minute
PCRS: Final = 1 << 7 | 1 << PCR
NO_BOOT_LOG: Final = BootLog((), 0)


def entry(number: int) -> tuple[bytes, bytes]:
    """An entry of the kernel's (template ima-ng), and what is extended."""
    fields = b"sha256:\0" + sha256(number.to_bytes(4, "big")), f"/usr/lib/x86_64-linux-gnu/package/program-{number}\0".encode()
    content = b"".join(len(part).to_bytes(4, "little") + part for part in fields)
    sha1 = hashlib.sha1(content).digest()  # as the kernel writes it
    head = PCR.to_bytes(4, "little") + sha1 + (6).to_bytes(4, "little") + b"ima-ng" + len(content).to_bytes(4, "little")
    return head + content, sha256(content)


async def measured(runs: int) -> list[Row]:
    """`overlay attest check` with everything that a command costs, and what the next quote of a link costs."""
    if (lacking := missing()) is not None:
        raise HostLacks(lacking)
    entries = [entry(number) for number in range(ENTRIES + LATER)]
    with tempfile.TemporaryDirectory(prefix="ob-") as name:
        path = Path(name)
        (path / "ima").write_bytes(b"".join(raw for raw, _ in entries[:ENTRIES]))
        tpm = await start_tpm(path / "tpm")
        try:
            await trio.to_thread.run_sync(_quote, path, tpm.tcti, [extended for _, extended in entries[:ENTRIES]])
        finally:
            await tpm.child.end()
        checked = [_check(path) for _ in range(runs)]
    return [
        row("attest_check_20000_files_ms", "ms", checked),
        row("next_quote_100_files_ms", "ms", [_next(entries) for _ in range(runs)]),
    ]


def _quote(path: Path, tcti: str, extended: list[bytes]) -> None:
    """A quote over the whole list: PCR 10 is brought to its value one extend after the other, as a kernel does."""
    with open_tpm(tcti) as tpm:
        for digest in extended:
            tpm.extend_pcr(PCR, digest)
        ak = tpm.create_attestation_key()
        attested, signature = tpm.quote(ak, sha256(b"nonce"), PCRS)
    (path / "quote").write_bytes(attested)
    (path / "signature").write_bytes(signature)
    (path / "key").write_bytes(sized(ak.public))


def _check(path: Path) -> float:
    """Milliseconds of the whole command."""
    words = ["--state", "no-state", "attest", "check", "--quote", "quote", "--signature", "signature", "--key", "key"]
    began = time.perf_counter()
    command = [sys.executable, "-P", "-m", "overlay.app.cli.main", *words, "--nonce", sha256(b"nonce").hex(), "--ima", "ima"]
    ran = subprocess.run(command, cwd=path, env={**os.environ}, capture_output=True, text=True, check=True)
    took = (time.perf_counter() - began) * 1000
    assert f"{ENTRIES} measurements lead to that" in ran.stdout, ran
    return took


def _next(entries: list[tuple[bytes, bytes]]) -> float:
    """Milliseconds for what is new, where the whole list was brought to a quote before."""
    before = account(PCRS, _quoted(entries[:ENTRIES]), NO_BOOT_LOG, b"".join(raw for raw, _ in entries[:ENTRIES]))
    data, quoted = b"".join(raw for raw, _ in entries[ENTRIES:]), _quoted(entries)
    began = time.perf_counter()
    found = account(PCRS, quoted, NO_BOOT_LOG, data, before.position)
    took = (time.perf_counter() - began) * 1000
    assert found.position.entries == len(entries)
    return took


def _quoted(entries: list[tuple[bytes, bytes]]) -> bytes:
    value = ZEROS
    for _, extended in entries:
        value = extend(value, extended)
    return digest_of({**initial(0), PCR: value}, PCRS)
