"""TPM quotes in pure Python: parsing, and the checks that make one believable, in the order of their numbers.

A quote that passes says: the machine whose attestation key stands in the certificate booted this, and says so now, for
this link. It does not say that the code which runs since is the code that was measured.
Format: TPMS_ATTEST (TPM 2.0 Library, part 2, section 10.12.8). A verifier needs neither a TPM nor tpm2_pytss.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from attest.areas import Attributes, PublicArea, parse_area
from attest.binding import bound_data
from attest.structures import ALG_ECC, ALG_ECDSA, ALG_SHA256, CURVE_P256, EcdsaSignature, Reader, bad_evidence
from overlay.core.evidence import Binding, Evidence
from overlay.core.keys import verify_p256
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason

MAGIC: Final = 0xFF544347  # TPM_GENERATED_VALUE, section 6.2: a restricted key signs nothing of others that begins so
ST_ATTEST_CERTIFY: Final = 0x8017  # section 6.9
ST_ATTEST_QUOTE: Final = 0x8018

AK_PUBLIC_MAX: Final = 128  # a P-256 area without policy takes 88 bytes
QUOTE_MAX: Final = 512  # a SHA-256 quote takes 145 bytes
SIGNATURE_MAX: Final = 128

Clock = tuple[int, int, int]  # reset count, restart count, milliseconds


@dataclass(frozen=True, slots=True)
class Selection:
    """One bank of TPML_PCR_SELECTION: bit i of `bitmap` stands for PCR i."""

    bank: int
    bitmap: int


@dataclass(frozen=True, slots=True)
class Header:
    """What all attested structures begin with."""

    qualified_signer: bytes = field(repr=False)
    extra_data: bytes
    clock: Clock
    clock_is_safe: bool
    firmware: int


@dataclass(frozen=True, slots=True)
class Quote:
    """A parsed TPM2_Quote."""

    header: Header
    selections: tuple[Selection, ...]
    pcr_digest: bytes


@dataclass(frozen=True, slots=True)
class Certification:
    """A parsed TPM2_Certify."""

    header: Header
    name: bytes
    qualified_name: bytes


def parse_quote(data: bytes) -> Quote:
    """Raises Refused(BAD_EVIDENCE) unless the bytes are a quote, all of them."""
    reader = Reader(data, "quote")
    header = _header(reader, ST_ATTEST_QUOTE)
    count = reader.integer(4)
    if count > 16:  # TPM2_NUM_PCR_BANKS of the reference code
        bad_evidence("number of PCR banks")
    selections = tuple(_selection(reader) for _ in range(count))
    digest = reader.sized()
    reader.end()
    return Quote(header, selections, digest)


def parse_certification(data: bytes) -> Certification:
    """Raises Refused(BAD_EVIDENCE) unless the bytes are what TPM2_Certify gives, all of them."""
    reader = Reader(data, "certification")
    header = _header(reader, ST_ATTEST_CERTIFY)
    name, qualified_name = reader.sized(), reader.sized()
    reader.end()
    return Certification(header, name, qualified_name)


def _header(reader: Reader, wanted: int) -> Header:
    reader.expect(4, MAGIC, "magic")
    reader.expect(2, wanted, "type")
    signer, extra = reader.sized(), reader.sized()
    clock, reset_count, restart_count = reader.integer(8), reader.integer(4), reader.integer(4)
    safe = reader.integer(1)
    if safe > 1:
        bad_evidence("clock state")
    return Header(signer, extra, (reset_count, restart_count, clock), bool(safe), reader.integer(8))


def _selection(reader: Reader) -> Selection:
    """TPMS_PCR_SELECTION (section 10.6.2): byte 0, bit 0 is PCR 0."""
    bank, size = reader.integer(2), reader.integer(1)
    if size > 4:
        bad_evidence("size of a PCR selection")
    return Selection(bank, int.from_bytes(reader.take(size), "little"))


# --- the checks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """The attestation key that the certificate names; None where it names none."""

    ak_name: bytes | None
    ak_qualified_name: bytes | None


def check_quote(
    evidence: Evidence, binding: Binding, enrolled: Enrolled, *, pcr_bitmap: int, previous: Clock | None
) -> Quote:
    """Checks 1 to 11; what the PCR values should be is the policy's affair, and the age of the nonce the link's.

    Raises:
        Refused: TOO_LARGE, ATTESTATION_KEY_MISMATCH, BAD_EVIDENCE, EVIDENCE_SIGNATURE, EVIDENCE_NOT_BOUND,
            PCR_SELECTION, PCR_MISMATCH or TPM_CLOCK.
    """
    check_sizes(evidence)
    area = check_key(evidence.ak_public, enrolled.ak_name)
    quote = parse_quote(evidence.quote)
    check_signature(area, evidence.quote, evidence.signature)
    check_signer(quote.header, enrolled.ak_qualified_name)
    check_bound(quote.header, evidence, binding)
    check_selection(quote, pcr_bitmap)
    check_digest(quote)
    check_clock(quote.header.clock, previous)
    return quote


def check_sizes(evidence: Evidence) -> None:
    """Check 1: no part is larger than such a part can be."""
    limits = ((evidence.ak_public, AK_PUBLIC_MAX), (evidence.quote, QUOTE_MAX), (evidence.signature, SIGNATURE_MAX))
    for part, limit in limits:
        if len(part) > limit:
            raise Refused(Reason.TOO_LARGE, f"{len(part)} bytes of evidence where {limit} are allowed")


def check_key(ak_public: bytes, ak_name: bytes | None) -> PublicArea:
    """Check 2: this is the key that the signer of the certificate has seen. None, for no key, is no key's name."""
    if ak_name != ALG_SHA256.to_bytes(2, "big") + sha256(ak_public):
        raise Refused(Reason.ATTESTATION_KEY_MISMATCH, "not the attestation key of the certificate")
    return _area(ak_public)


_area = lru_cache(maxsize=256)(parse_area)  # the same keys each minute: as many as a node has neighbours, and each 88 bytes


def check_attestation_key(area: PublicArea) -> None:
    """Refuse a key that cannot be an attestation key: born in a TPM, restricted, signs; P-256, ECDSA, SHA-256."""
    if not area.is_kind(Attributes.RESTRICTED | Attributes.SIGN):
        bad_evidence("attestation key: attributes")
    if (area.kind, area.curve, area.name_algorithm) != (ALG_ECC, CURVE_P256, ALG_SHA256):
        bad_evidence("attestation key: type")
    if (area.scheme, area.scheme_hash) != (ALG_ECDSA, ALG_SHA256):
        bad_evidence("attestation key: scheme")


def check_signature(area: PublicArea, attested: bytes, signature: bytes) -> None:
    """Checks 4 and 5: the algorithm is the enrolled key's, r and s are in range, s is low, the signature is right."""
    check_attestation_key(area)
    parsed = EcdsaSignature.parse(signature)
    try:
        verify_p256(area.point, parsed.raw, attested)
    except Refused as error:
        raise Refused(Reason.EVIDENCE_SIGNATURE, error.detail) from None


def check_signer(header: Header, ak_qualified_name: bytes | None) -> None:
    """Check 6: the key lives under the parent and hierarchy that enrolment has seen."""
    if header.qualified_signer != ak_qualified_name:
        raise Refused(Reason.ATTESTATION_KEY_MISMATCH, "qualified signer")


def check_bound(header: Header, evidence: Evidence, binding: Binding) -> None:
    """Checks 7 and 8: made for us, for this link, epoch, direction, nonce and these claims."""
    if header.extra_data != bound_data(evidence, binding):
        raise Refused(Reason.EVIDENCE_NOT_BOUND, "the quote is about something else")


def check_selection(quote: Quote, pcr_bitmap: int) -> None:
    """Check 9: one bank, SHA-256, and exactly these PCRs."""
    if quote.selections != (Selection(ALG_SHA256, pcr_bitmap),):
        raise Refused(Reason.PCR_SELECTION, f"wanted one SHA-256 bank with bitmap {pcr_bitmap:#x}")


def check_digest(quote: Quote) -> None:
    """Check 10, as far as it goes without a boot log to replay: the digest is one of SHA-256."""
    if len(quote.pcr_digest) != 32:
        raise Refused(Reason.PCR_MISMATCH, "length of the PCR digest")


def check_clock(clock: Clock, previous: Clock | None) -> None:
    """Check 11: a TPM never counts down. A higher reset count is a reboot, a higher restart count a wake."""
    if previous is not None and clock < previous:
        raise Refused(Reason.TPM_CLOCK, f"reset, restart, time went from {previous} to {clock}")
