"""TPM structures <-> bytes: a reader that refuses, the few numbers in use, and the ECDSA signature.

Source: TCG, TPM 2.0 Library specification, part 2 "Structures" (revision 1.59); section numbers are of that document.
"""

from dataclasses import dataclass
from typing import Final, NoReturn

from overlay.core.keys import low_s
from overlay.errors import Refused
from overlay.registry import Reason

# Algorithms, section 6.3
ALG_RSA: Final = 0x0001
ALG_AES: Final = 0x0006
ALG_KEYEDHASH: Final = 0x0008
ALG_SHA256: Final = 0x000B
ALG_SHA384: Final = 0x000C
ALG_NULL: Final = 0x0010
ALG_ECDSA: Final = 0x0018
ALG_ECC: Final = 0x0023
ALG_CFB: Final = 0x0043

# Curves, section 6.4
CURVE_P256: Final = 0x0003
CURVE_P384: Final = 0x0004

# Permanent handles, section 7.4
RH_OWNER: Final = 0x40000001
RH_ENDORSEMENT: Final = 0x4000000B

SIGNATURE_SIZE: Final = 72  # two algorithms, then r and s of 32 bytes behind their lengths


def bad_evidence(detail: str) -> NoReturn:
    """Refuse a structure that is not of the right form."""
    raise Refused(Reason.BAD_EVIDENCE, detail)


class Reader:
    """Takes big-endian fields from the front of a structure; whatever does not fit is Refused(BAD_EVIDENCE)."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._offset = 0
        self._what = what

    def take(self, size: int) -> bytes:
        """Exactly so many bytes."""
        end = self._offset + size
        if end > len(self._data):
            bad_evidence(f"{self._what} is cut short")
        part = self._data[self._offset : end]
        self._offset = end
        return part

    def integer(self, size: int) -> int:
        """An unsigned integer of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        """A TPM2B: a u16 length and so many bytes."""
        return self.take(self.integer(2))

    def expect(self, size: int, wanted: int, name: str) -> None:
        """An integer that must have one value."""
        if self.integer(size) != wanted:
            bad_evidence(f"{name} of {self._what}")

    def end(self) -> None:
        """Refuse what is left over."""
        if self._offset != len(self._data):
            bad_evidence(f"{self._what} has bytes left over")


def sized(data: bytes) -> bytes:
    """A TPM2B: the u16 length and the bytes."""
    return len(data).to_bytes(2, "big") + data


def der_of(data: bytes) -> bytes | None:
    """The DER value (a SEQUENCE of 128 to 65,535 bytes) at the front, without what follows; None if there is none."""
    sizes = {0x81: 1, 0x82: 2}  # ITU-T X.690, section 8.1.3.5
    octets = sizes.get(data[1], 0) if data[:1] == b"\x30" and len(data) > 4 else 0
    end = 2 + octets + int.from_bytes(data[2 : 2 + octets], "big")
    return data[:end] if octets and end <= len(data) else None


def pack_selection(pcr_bitmap: int) -> bytes:
    """TPML_PCR_SELECTION (section 10.9.7) of one SHA-256 bank; byte 0, bit 0 is PCR 0."""
    return b"\0\0\0\x01" + ALG_SHA256.to_bytes(2, "big") + b"\x03" + pcr_bitmap.to_bytes(3, "little")


ECDSA_WITH_SHA256: Final = ALG_ECDSA.to_bytes(2, "big") + ALG_SHA256.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class EcdsaSignature:
    """TPMT_SIGNATURE (section 11.3.4) as we send it: ECDSA with SHA-256, r and s of 32 bytes."""

    raw: bytes  # 64 bytes, r || s

    @classmethod
    def parse(cls, data: bytes) -> "EcdsaSignature":
        """Raises Refused(EVIDENCE_SIGNATURE) for another algorithm or form; says nothing about the range of r and s."""
        if len(data) != SIGNATURE_SIZE:
            raise Refused(Reason.EVIDENCE_SIGNATURE, f"{len(data)} bytes where {SIGNATURE_SIZE} are wanted")
        found = cls(data[6:38] + data[40:])
        if found.pack() != data:
            raise Refused(Reason.EVIDENCE_SIGNATURE, "not ECDSA with SHA-256, or length of r or s")
        return found

    @classmethod
    def lowered(cls, r: bytes, s: bytes) -> "EcdsaSignature":
        """From a TPM's r and s: s is lowered, because a TPM gives a high one half the time."""
        return cls(low_s(int.from_bytes(r, "big"), int.from_bytes(s, "big")))

    def pack(self) -> bytes:
        """72 bytes; the tools of the TPM world read them too."""
        return ECDSA_WITH_SHA256 + sized(self.raw[:32]) + sized(self.raw[32:])
