"""Boot event logs and measurement lists, made by hand."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from attest.event_log import EV_NO_ACTION, EV_SEPARATOR
from attest.structures import ALG_SHA256
from overlay.core.wire import sha256

SHA1 = 0x0004
SHA384 = 0x000C
EV_EFI_ACTION = 0x80000007
EV_IPL = 0x0000000D
SIZES = {SHA1: 20, ALG_SHA256: 32, SHA384: 48}


def u16(number: int) -> bytes:
    return number.to_bytes(2, "little")


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def head(banks: Sequence[int] = (SHA1, ALG_SHA256), *, signature: bytes = b"Spec ID Event03\0", vendor: bytes = b"") -> bytes:
    """The first event of a crypto-agile log."""
    algorithms = b"".join(u16(bank) + u16(SIZES[bank]) for bank in banks)
    content = signature + u32(0) + bytes([0, 2, 0, 2]) + u32(len(banks)) + algorithms + bytes([len(vendor)]) + vendor
    return u32(0) + u32(EV_NO_ACTION) + bytes(20) + u32(len(content)) + content


@dataclass(frozen=True)
class Made:
    """An event; its digest is that of its data unless another one is given."""

    pcr: int
    data: bytes
    type: int = EV_EFI_ACTION
    digest: bytes | None = None

    @property
    def sha256(self) -> bytes:
        if self.digest is not None:
            return self.digest
        return bytes(32) if self.type == EV_NO_ACTION else sha256(self.data)

    def pack(self, banks: Sequence[int] = (SHA1, ALG_SHA256)) -> bytes:
        digests = b"".join(
            u16(bank) + (self.sha256 if bank == ALG_SHA256 else bytes(SIZES[bank])) for bank in banks
        )
        return u32(self.pcr) + u32(self.type) + u32(len(banks)) + digests + u32(len(self.data)) + self.data


def locality(number: int) -> Made:
    return Made(0, b"StartupLocality\0" + bytes([number]), EV_NO_ACTION)


def separator(pcr: int, value: bytes = bytes(4)) -> Made:
    return Made(pcr, value, EV_SEPARATOR)


BOOT = (
    Made(0, b"firmware 1"), Made(7, b"SecureBoot on"), *(separator(pcr) for pcr in range(8)), Made(4, b"shim"),
    Made(4, b"grub"), Made(8, b"a command line", EV_IPL), Made(14, b"a list of keys"),
)  # fmt: skip


def log(*events: Made, banks: Sequence[int] = (SHA1, ALG_SHA256)) -> bytes:
    return head(banks) + b"".join(event.pack(banks) for event in events)


# --- IMA --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """An entry of a measurement list."""

    path: str
    content: bytes = b"a program"
    template: bytes = b"ima-ng"
    violation: bool = False
    pcr: int = 10
    name_prefix: bytes = b"sha256:"

    def fields(self) -> bytes:
        if self.template == b"ima":
            name = self.path.encode()
            return hashlib.sha1(self.content).digest() + name.ljust(256, b"\0")
        parts = [self.name_prefix + b"\0" + sha256(self.content), self.path.encode() + b"\0"]
        parts += [b"\x03\x02a signature"] if self.template in (b"ima-sig", b"ima-sigv2") else []
        return b"".join(u32(len(part)) + part for part in parts)

    @property
    def extended(self) -> bytes:
        return b"\xff" * 32 if self.violation else sha256(self.fields())

    def pack(self) -> bytes:
        content = self.fields()
        digest = bytes(20) if self.violation else hashlib.sha1(content).digest()
        start = u32(self.pcr) + digest + u32(len(self.template)) + self.template
        if self.template == b"ima":
            name = self.path.encode()
            return start + content[:20] + u32(len(name)) + name
        return start + u32(len(content)) + content

    def at(self, number: int) -> "Measured":
        return replace(self, path=f"{self.path}{number}", content=u32(number))


def pcr_after(entries: Sequence[Measured]) -> bytes:
    value = bytes(32)
    for entry in entries:
        value = sha256(value + entry.extended)
    return value
