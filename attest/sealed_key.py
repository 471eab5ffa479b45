"""What a TPM has sealed, as the state folder keeps it: nobody but that TPM can open it."""

from dataclasses import dataclass, field
from typing import Final

from overlay.core.wire import Bytes, malformed

SEALED_MAX: Final = Bytes(1, 1024)  # our guess: a sealed key of 32 bytes takes about 130 and 50
KIND: Final = b"\x00\x08\x00\x0b"  # TPM_ALG_KEYEDHASH with a SHA-256 name: TPM 2.0 Library, part 2, section 12.2.4


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    """The contents of TPM2B_PRIVATE and the TPMT_PUBLIC. Raises Refused(MALFORMED) for another kind of object."""

    private: bytes = field(repr=False)
    public: bytes = field(repr=False)

    def __post_init__(self) -> None:
        SEALED_MAX.check(self.private)
        SEALED_MAX.check(self.public)
        if not self.public.startswith(KIND):
            malformed("not a sealed key")
