"""A quote out of files, appraised with neither TPM nor network: as the tools of the TPM world write them.

`tpm2_quote -m QUOTE -s SIGNATURE`, `tpm2_readpublic -o KEY`. What a quote proves here is less than on a link: it is bound to a
nonce that somebody chose, and to nothing else.
"""

import hmac
from dataclasses import dataclass

from attest.account import Account, account
from attest.areas import PublicArea, parse_area
from attest.event_log import BootLog
from attest.ima import Measurement
from attest.quote import Quote, check_digest, check_signature, parse_quote
from attest.rules import Logs, RuleCheck, see_file
from attest.structures import ALG_SHA256, ECDSA_WITH_SHA256, EcdsaSignature, Reader
from overlay.core.keys import P256_ORDER
from overlay.core.policy_parts import DigestRule
from overlay.errors import Refused
from overlay.registry import Reason


@dataclass(frozen=True, slots=True)
class Appraised:
    """A quote that holds, by which key, and what of the logs it proves; None where there were no logs."""

    quote: Quote
    key: PublicArea
    bitmap: int
    account: Account | None
    logs: Logs | None = None


def appraise(
    attested: bytes, signature: bytes, key: bytes, *, nonce: bytes | None, boot: BootLog | None, measured: bytes | None,
    rules: tuple[DigestRule, ...] = (),
) -> Appraised:
    """Check a quote, and bring logs to it.

    Args:
        attested: TPMS_ATTEST.
        signature: TPMT_SIGNATURE; a high s, which TPMs give half the time, is no fault here.
        key: TPM2B_PUBLIC or TPMT_PUBLIC of a restricted P-256 key.
        nonce: what the quote must have been made for; None to look at it only.
        boot: the boot log; None to prove nothing of it.
        measured: the measurement list.
        rules: about files, to look at on the way.

    Raises:
        Refused: BAD_EVIDENCE, EVIDENCE_SIGNATURE, EVIDENCE_NOT_BOUND, PCR_SELECTION or PCR_MISMATCH.
    """
    area = parse_area(_without_size(key))
    quote = parse_quote(attested)
    check_signature(area, attested, _lowered(signature).pack())
    if nonce is not None and not hmac.compare_digest(quote.header.extra_data, nonce):
        raise Refused(Reason.EVIDENCE_NOT_BOUND, f"the quote is for {quote.header.extra_data.hex() or 'no nonce'}")
    if len(quote.selections) != 1 or quote.selections[0].bank != ALG_SHA256:
        raise Refused(Reason.PCR_SELECTION, "wanted one SHA-256 bank")
    check_digest(quote)
    bitmap = quote.selections[0].bitmap
    if boot is None:
        return Appraised(quote, area, bitmap, None)
    checks = tuple(RuleCheck(rule) for rule in rules)

    def see(entry: Measurement) -> None:
        for check in checks:
            see_file(check, entry)

    found = account(bitmap, quote.pcr_digest, boot, measured, sink=see if checks else None)
    return Appraised(quote, area, bitmap, found, Logs(found.events, checks if found.position.entries else None))


def _without_size(key: bytes) -> bytes:
    """TPMT_PUBLIC, also out of a TPM2B_PUBLIC."""
    size = int.from_bytes(key[:2], "big")
    return key[2:] if size == len(key) - 2 else key


def _lowered(signature: bytes) -> EcdsaSignature:
    """Raises Refused(EVIDENCE_SIGNATURE)."""
    reader = Reader(signature, "signature")
    if reader.take(4) != ECDSA_WITH_SHA256:
        raise Refused(Reason.EVIDENCE_SIGNATURE, "not ECDSA with SHA-256")
    r, s = reader.sized(), reader.sized()
    reader.end()
    if max(len(r), len(s)) > 32 or int.from_bytes(s, "big") >= P256_ORDER:
        raise Refused(Reason.EVIDENCE_SIGNATURE, "r or s is out of range")
    return EcdsaSignature.lowered(r, s)
