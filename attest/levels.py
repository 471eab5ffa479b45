"""Levels: how well a peer is attested, from 0 to 5; the verifier computes them."""

from typing import Final

from overlay.registry import EvidenceKind

NONE: Final = 0
SOFTWARE_KEY: Final = 1
UNKNOWN_TPM: Final = 2  # emulated, or one for whose maker nobody vouches
LISTED_TPM: Final = 3  # one that operators have listed, such as a cloud machine's
VENDOR_TPM: Final = 4  # certified by a maker whom operators trust
MEASURED_BOOT: Final = 5  # and what it booted meets the rules of the policy

# What evidence of a kind can show at most: which TPM it is was looked at when the machine joined.
SHOWN_BY: Final = {EvidenceKind.SOFTWARE: SOFTWARE_KEY, EvidenceKind.TPM: VENDOR_TPM}


def level_of(kind: EvidenceKind, certificate_level: int, *, met: bool = False) -> int:
    """What the evidence shows, and never more than the certificate was issued for.

    `met`: the boot log is proven by the quote and meets the policy's rules. That is the neighbour's to see and stands in no
    certificate: a TPM that its maker has certified is then worth level 5.
    """
    level = min(SHOWN_BY[kind], certificate_level)
    return MEASURED_BOOT if met and level == VENDOR_TPM else level
