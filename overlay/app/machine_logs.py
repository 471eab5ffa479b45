"""What this machine has measured: logs of firmware and kernel, read from where Linux shows them."""

from dataclasses import dataclass, field
from os import fstat
from pathlib import Path
from typing import Final

from attest.event_log import LOG_MAX, BootLog, parse_boot_log
from attest.ima import LIST_MAX, PART_MAX
from overlay.core.wire import sha256
from overlay.errors import UsageError
from overlay.registry import EvidenceLog

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


class OwnLogs:
    """What a node shows of its logs: a LogSource. `look` reads, in a thread; `read` gives what was read last.

    Files that are named have to be there; the machine's own are shown if they are there and the TPM is the machine's own.
    """

    def __init__(self, boot: Path | None, measured: Path | None) -> None:
        self._paths = boot, measured
        self._boot = b""
        self._files = bytearray()

    @classmethod
    def of(cls, boot: str, measured: str, tcti: str) -> "OwnLogs":
        """By the settings; an emulated TPM has not measured this machine."""
        own = tcti.startswith("device")
        return cls(
            Path(boot) if boot else BOOT_LOG if own else None, Path(measured) if measured else MEASUREMENTS if own else None
        )

    def look(self) -> bytes | None:
        """Read both anew, of the list only what was added: the hash of the boot log; None without any log. Blocks briefly."""
        boot, measured = self._paths
        self._boot = b"" if boot is None else _whole(boot)
        if measured is not None:
            self._read_on(measured)
        return sha256(self._boot) if self._boot or self._files else None

    def read(self, log: EvidenceLog, offset: int, size: int) -> tuple[int, bytes]:
        """The length of a log, and a part of it."""
        data = self._boot if log is EvidenceLog.BOOT else self._files
        return len(data), bytes(data[offset : offset + size])

    def _read_on(self, path: Path) -> None:
        """A list that is shorter than it was has begun anew; one that has grown too long is not read on."""
        try:
            with path.open("rb") as file:
                if 0 < fstat(file.fileno()).st_size < len(self._files):  # files in securityfs say 0, and never shrink
                    self._files = bytearray()
                file.seek(len(self._files))
                self._files += file.read(max(0, LIST_MAX - len(self._files)))
        except OSError:
            self._files = bytearray()


def _whole(path: Path) -> bytes:
    """A boot log; nothing if there is none, or one of an unlikely length."""
    try:
        with path.open("rb") as file:
            data = file.read(LOG_MAX + 1)
    except OSError:
        return b""
    return data if len(data) <= LOG_MAX else b""
