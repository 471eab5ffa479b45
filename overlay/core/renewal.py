"""Renewing: when it is due, how long after the end it may still be done, and what a node asks for.

A renewal names the serial that it replaces. The same CSR with the same notBefore is a retry and leads to the same
to-be-signed bytes; anything else for that serial is a second machine with the same identity (`renewal_book.py`). So a node
keeps its `Attempt` on the disk before it sends it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from overlay.core.certificate_profile import Issuer, LeafFacts, Life, leaf_to_be_signed
from overlay.core.certificate_request import Request, verify_request
from overlay.core.certificates import TOLERANCE, VerifiedCertificate, show_time
from overlay.core.grace import GraceTimes
from overlay.core.join_frames import SECONDS_MAX, SERIAL_SIZE, Renewal
from overlay.core.join_ports import LEAF_LIFE
from overlay.core.limits import CHAIN_BYTES_MAX
from overlay.core.wire import Bytes, UInt, make_map, open_map
from overlay.errors import Refused
from overlay.registry import Reason

DUE_AFTER: Final = 2 / 3  # of its life: trust.md
MERGED_WITHIN: Final = 600.0  # seconds, trust.md: the trust sets of the signers that sign


def due_at(not_before: datetime, not_after: datetime) -> datetime:
    """From when on a certificate is renewed."""
    return not_before + (not_after - not_before) * DUE_AFTER


def check_grace(grace: GraceTimes, old: VerifiedCertificate, at: datetime, merged_age: float | None) -> None:
    """Whether a certificate may still be renewed.

    `merged_age`: seconds since the signers that will sign have compared and merged their trust sets; None for never. It
    counts only after the end: before, a revocation would have cut the link.

    Raises:
        Refused: NO_GRACE.
    """
    if at - TOLERANCE <= old.not_after:
        return
    if at - TOLERANCE > old.not_after + grace.of(old):
        detail = f"expired on {show_time(old.not_after)}, it is now {show_time(at)}, and grace is {grace.of(old)}"
        raise Refused(Reason.NO_GRACE, detail, hint="join again with a new token")
    if merged_age is None or not 0 <= merged_age <= MERGED_WITHIN:
        raise Refused(Reason.NO_GRACE, "the signers have not compared their trust sets lately")


# --- the node's part --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A renewal that was begun: kept until the new certificate is there, and sent again as it is."""

    csr: bytes = field(repr=False)
    serial: int
    not_before: datetime

    @property
    def renewal(self) -> Renewal:
        """The frame."""
        return Renewal(csr=self.csr, serial=self.serial, not_before=self.not_before)

    def pack(self) -> bytes:
        """{0:1, 1:csr, 2:serial20, 3:not_before}, for the state folder."""
        return make_map(self.csr, self.serial.to_bytes(SERIAL_SIZE, "big"), int(self.not_before.timestamp()))

    @classmethod
    def unpack(cls, data: bytes) -> "Attempt":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        csr, serial, seconds = open_map(
            data, Bytes(1, CHAIN_BYTES_MAX), Bytes(SERIAL_SIZE), UInt(SECONDS_MAX), limit=2 * CHAIN_BYTES_MAX
        )
        return cls(csr=csr, serial=int.from_bytes(serial, "big"), not_before=datetime.fromtimestamp(seconds, UTC))


def begin_attempt(
    kept: Attempt | None, replaced: VerifiedCertificate, request: Callable[[], bytes], at: datetime
) -> Attempt:
    """The kept attempt if it is for this certificate, else a new one. `request` makes a CSR; a TPM takes its time.

    One that was begun a day ago leads to a certificate that has ended: signers refuse it (CLOCK), and by then another one,
    so it is begun anew; a little later than that, for their clocks may be behind.
    """
    if kept is not None and kept.serial == replaced.serial and at < kept.not_before + LEAF_LIFE + TOLERANCE:
        return kept
    begin = max(at, replaced.not_before + timedelta(seconds=1))  # newer than the one before, however soon it is renewed
    return Attempt(csr=request(), serial=replaced.serial, not_before=begin.astimezone(UTC).replace(microsecond=0))


# --- the signer's part ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalApproval:
    """What one signer has checked by itself and would sign."""

    request: Request
    name: str
    facts: LeafFacts
    not_before: datetime
    replaces: int  # serial

    def to_be_signed(self, issuer: Issuer, life: timedelta = LEAF_LIFE) -> bytes:
        """TBSCertificate; every signer with the same approval comes to the same bytes."""
        lives = Life.between(self.not_before, self.not_before + life)
        return leaf_to_be_signed(issuer, self.request.identity.spki, self.name, self.facts, lives)


def check_renewal(
    renewal: Renewal, old: VerifiedCertificate, *, facts: LeafFacts, grace: GraceTimes, merged_age: float | None,
    at: datetime,
) -> RenewalApproval:
    """All but the book. `old`: what this link's peer has shown, in force or in grace; `facts`: today's, by orders.

    Raises:
        Refused: BAD_CERTIFICATE for the CSR; WRONG_AUTHOR for another node's; NOT_ALLOWED for another serial or a
            certificate that would be no newer; NO_GRACE.
    """
    request = verify_request(renewal.csr)
    if request.node_id != old.node_id:
        raise Refused(Reason.WRONG_AUTHOR, "a node renews its own certificate only")
    if renewal.serial != old.serial:
        raise Refused(Reason.NOT_ALLOWED, "the certificate that was shown is not the one to be replaced")
    if renewal.not_before <= old.not_before:
        raise Refused(Reason.NOT_ALLOWED, "the new certificate would be no newer than the old one")
    check_grace(grace, old, at, merged_age)
    return RenewalApproval(
        request=request, name=old.name, facts=facts, not_before=renewal.not_before, replaces=old.serial
    )
