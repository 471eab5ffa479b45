"""Boot event logs: bytes -> events, or Refused. The firmware wrote them for its TPM, and nobody has signed them.

What is authenticated is the SHA-256 digest of each event, once the log has been replayed to PCRs that a TPM has quoted
(`replay.py`). Type and data of an event are not, unless its digest is that of its data: they are for people.

Source: TCG, PC Client Platform Firmware Profile, 1.06, section 10 (event logging); section numbers are of that document.
All integers in a log are little-endian.
"""

from dataclasses import dataclass, field
from typing import Final

from attest.structures import ALG_SHA256, bad_evidence

LOG_MAX: Final = 8 * 1024 * 1024  # bytes: our guess; logs of real machines have 10 to 100 KiB
EVENTS_MAX: Final = 4096  # our guess; real logs have 20 to 300
DATA_MAX: Final = 1024 * 1024  # bytes of one event: our guess; a list of Secure Boot keys has some 20 KiB
BANKS_MAX: Final = 16  # algorithms in one log: our guess
PCR_MAX: Final = 24  # TCG PC Client Platform TPM Profile, section 4.6

# Event types, section 10.4.1
EV_NO_ACTION: Final = 0x00000003  # says something, and is not extended
EV_SEPARATOR: Final = 0x00000004

TYPES: Final = {
    0x00000000: "EV_PREBOOT_CERT", 0x00000001: "EV_POST_CODE", 0x00000003: "EV_NO_ACTION", 0x00000004: "EV_SEPARATOR",
    0x00000005: "EV_ACTION", 0x00000006: "EV_EVENT_TAG", 0x00000007: "EV_S_CRTM_CONTENTS", 0x00000008: "EV_S_CRTM_VERSION",
    0x00000009: "EV_CPU_MICROCODE", 0x0000000A: "EV_PLATFORM_CONFIG_FLAGS", 0x0000000B: "EV_TABLE_OF_DEVICES",
    0x0000000C: "EV_COMPACT_HASH", 0x0000000D: "EV_IPL", 0x0000000E: "EV_IPL_PARTITION_DATA", 0x0000000F: "EV_NONHOST_CODE",
    0x00000010: "EV_NONHOST_CONFIG", 0x00000011: "EV_NONHOST_INFO", 0x00000012: "EV_OMIT_BOOT_DEVICE_EVENTS",
    0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG", 0x80000002: "EV_EFI_VARIABLE_BOOT",
    0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION", 0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
    0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER", 0x80000006: "EV_EFI_GPT_EVENT", 0x80000007: "EV_EFI_ACTION",
    0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB", 0x80000009: "EV_EFI_HANDOFF_TABLES",
    0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2", 0x8000000B: "EV_EFI_HANDOFF_TABLES2", 0x8000000C: "EV_EFI_VARIABLE_BOOT2",
    0x80000010: "EV_EFI_HCRTM_EVENT", 0x800000E0: "EV_EFI_VARIABLE_AUTHORITY", 0x800000E1: "EV_EFI_SPDM_FIRMWARE_BLOB",
    0x800000E2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
}  # fmt: skip

_SPECIFICATION: Final = b"Spec ID Event03\0"  # section 10.2.1.1: a crypto-agile log begins with it
_LOCALITY: Final = b"StartupLocality\0"  # section 10.2.1.2
_SHA1_SIZE: Final = 20
_LOCALITIES: Final = (0, 3, 4)  # in which a TPM may have been started


@dataclass(frozen=True, slots=True)
class BootEvent:
    """One event. `digest` is what was extended into the SHA-256 bank; nothing else of it is authenticated."""

    number: int  # from 0, the head of the log counted
    pcr: int
    type: int
    digest: bytes  # 32
    data: bytes = field(repr=False)

    @property
    def is_extended(self) -> bool:
        """Whether it changed a PCR."""
        return self.type != EV_NO_ACTION

    @property
    def type_name(self) -> str:
        """As in the profile, for people."""
        return TYPES.get(self.type, f"{self.type:#010x}")


@dataclass(frozen=True, slots=True)
class BootLog:
    """A whole log. `locality` is where the TPM was started, which PCR 0 begins with (0, 3, or 4 after an H-CRTM)."""

    events: tuple[BootEvent, ...] = field(repr=False)
    locality: int


def parse_boot_log(data: bytes) -> BootLog:
    """A crypto-agile log with a SHA-256 bank.

    Args:
        data: as in /sys/kernel/security/tpm0/binary_bios_measurements, at most 8 MiB.

    Raises:
        Refused: BAD_EVIDENCE.
    """
    if len(data) > LOG_MAX:
        bad_evidence(f"a boot log of {len(data)} bytes; at most {LOG_MAX}")
    reader = _Reader(data)
    sizes = _read_head(reader)
    events: list[BootEvent] = []
    locality = 0
    while not reader.at_end:
        if len(events) >= EVENTS_MAX:
            bad_evidence(f"a boot log of more than {EVENTS_MAX} events")
        event = _read_event(reader, len(events) + 1, sizes)
        if event.type == EV_NO_ACTION and event.data.startswith(_LOCALITY):
            locality = _locality_of(event, events)
        events.append(event)
    return BootLog(tuple(events), locality)


def _read_head(reader: "_Reader") -> dict[int, int]:
    """TCG_PCR_EVENT with TCG_EfiSpecIDEvent, section 10.2.1.1: sizes of digests by algorithm."""
    if (reader.integer(4), reader.integer(4)) != (0, EV_NO_ACTION):
        bad_evidence("the boot log does not begin with a specification event: SHA-1 logs are not read")
    reader.take(_SHA1_SIZE)
    head = _Reader(reader.take(reader.integer(4)))
    if head.take(len(_SPECIFICATION)) != _SPECIFICATION:
        bad_evidence("the boot log is of no known specification")
    head.take(4 + 4)  # platform class, version, errata, size of UINTN
    count = head.integer(4)
    if not 1 <= count <= BANKS_MAX:
        bad_evidence(f"a boot log with {count} banks")
    sizes = {}
    for _ in range(count):
        algorithm = head.integer(2)
        sizes[algorithm] = head.integer(2)
    if len(sizes) != count or sizes.get(ALG_SHA256) != 32:
        bad_evidence("the boot log has no SHA-256 digests")
    head.take(head.integer(1))  # of the vendor
    if not head.at_end:
        bad_evidence("the head of the boot log has bytes left over")
    return sizes


def _read_event(reader: "_Reader", number: int, sizes: dict[int, int]) -> BootEvent:
    """TCG_PCR_EVENT2, section 10.2.2: a digest for each bank of the head, in any order."""
    pcr, kind, count = reader.integer(4), reader.integer(4), reader.integer(4)
    if pcr >= PCR_MAX and not (kind == EV_NO_ACTION and pcr == 0xFFFFFFFF):  # of no PCR, section 10.4.5.3
        bad_evidence(f"event {number} of the boot log is of PCR {pcr}")
    if count != len(sizes):
        bad_evidence(f"event {number} of the boot log has {count} digests where there are {len(sizes)} banks")
    digests: dict[int, bytes] = {}
    for _ in range(count):
        algorithm = reader.integer(2)
        if algorithm not in sizes or algorithm in digests:
            bad_evidence(f"event {number} of the boot log has a digest of algorithm {algorithm:#06x}")
        digests[algorithm] = reader.take(sizes[algorithm])
    size = reader.integer(4)
    if size > DATA_MAX:
        bad_evidence(f"event {number} of the boot log has {size} bytes of data; at most {DATA_MAX}")
    return BootEvent(number, pcr, kind, digests[ALG_SHA256], reader.take(size))


def _locality_of(event: BootEvent, before: list[BootEvent]) -> int:
    """Section 10.4.5.3: once, in PCR 0, before anything was extended into it."""
    value = event.data[len(_LOCALITY) :]
    late = any(one.pcr == 0 and one.is_extended for one in before)
    again = any(one.type == EV_NO_ACTION and one.data.startswith(_LOCALITY) for one in before)
    if len(value) != 1 or value[0] not in _LOCALITIES or event.pcr or late or again:
        bad_evidence(f"event {event.number} of the boot log names a locality where none can be")
    return value[0]


class _Reader:
    """Takes little-endian fields from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self._offset == len(self._data)

    def take(self, size: int) -> bytes:
        """Exactly so many bytes; raises Refused."""
        end = self._offset + size
        if end > len(self._data):
            bad_evidence("the boot log is cut short")
        part = self._data[self._offset : end]
        self._offset = end
        return part

    def integer(self, size: int) -> int:
        """Unsigned; raises Refused."""
        return int.from_bytes(self.take(size), "little")
