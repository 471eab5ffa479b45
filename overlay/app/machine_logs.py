"""What this machine has measured: logs of firmware and kernel, read from where Linux shows them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from attest.event_log import LOG_MAX, BootLog, parse_boot_log
from attest.ima import PART_MAX
from overlay.errors import UsageError

BOOT_LOG: Final = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
MEASUREMENTS: Final = Path("/sys/kernel/security/ima/binary_runtime_measurements")
NONE: Final = BootLog((), 0)


@dataclass(frozen=True, slots=True)
class MachineLogs:
    """As far as there are any. `measured` is the measurement list as it stands."""

    boot: BootLog = field(default=NONE, repr=False)
    measured: bytes | None = field(default=None, repr=False)


def read_logs(boot: Path | None, measured: Path | None) -> MachineLogs:
    """Logs in files that a user names; of those not named the machine's own, where it shows them.

    Raises:
        UsageError: a named file cannot be read, or is too long.
        Refused: BAD_EVIDENCE for a boot log that is none.
    """
    raw = _read(boot, BOOT_LOG, LOG_MAX)
    return MachineLogs(NONE if raw is None else parse_boot_log(raw), _read(measured, MEASUREMENTS, PART_MAX))


def _read(named: Path | None, own: Path, limit: int) -> bytes | None:
    try:
        return read_bytes(named or own, limit)
    except UsageError:
        if named is not None:
            raise
        return None


def read_bytes(path: Path, limit: int) -> bytes:
    """A file of a bounded size; files in securityfs do not say theirs. Raises UsageError."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > limit:
        raise UsageError(f"{path} is longer than {limit} bytes")
    return data
