"""Levels: how well a peer is attested, from 0 to 5; the verifier computes them."""

from typing import Final

from overlay.registry import EvidenceKind

NONE: Final = 0
SOFTWARE_KEY: Final = 1
UNKNOWN_TPM: Final = 2  # emulated, or one whose maker nobody has checked
LISTED_TPM: Final = 3  # reserved, with the two after it
VENDOR_TPM: Final = 4
MEASURED_BOOT: Final = 5

# What evidence of a kind can show by itself: nobody checks a TPM's maker yet.
SHOWN_BY: Final = {EvidenceKind.SOFTWARE: SOFTWARE_KEY, EvidenceKind.TPM: UNKNOWN_TPM}


def level_of(kind: EvidenceKind, certificate_level: int) -> int:
    """What the evidence shows, and never more than the certificate was issued for."""
    return min(SHOWN_BY[kind], certificate_level)
