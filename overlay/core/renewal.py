"""Renewing: when it is due, how long after the end it may still be done, and that each serial is replaced once.

A renewal names the serial that it replaces. The same CSR with the same notBefore is a retry and leads to the same
to-be-signed bytes; anything else for that serial is a second machine with the same identity. So a node keeps its `Attempt`
on the disk before it sends it, and a signer its `RenewalBook` before it says yes.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from overlay.core.certificate_profile import Issuer, LeafFacts, Life, leaf_to_be_signed
from overlay.core.certificate_request import Request, verify_request
from overlay.core.certificates import TOLERANCE, VerifiedCertificate, show_time
from overlay.core.grace import GraceTimes
from overlay.core.join_frames import SECONDS_MAX, SERIAL_SIZE, Renewal
from overlay.core.join_ports import LEAF_LIFE
from overlay.core.limits import CHAIN_BYTES_MAX
from overlay.core.wire import Array, Bytes, Tuple, UInt, make_map, malformed, open_map, sha256
from overlay.errors import Refused
from overlay.registry import Reason

DUE_AFTER: Final = 2 / 3  # of its life: trust.md
USUAL: Final = GraceTimes()
MERGED_WITHIN: Final = 600.0  # seconds, trust.md: the trust sets of the signers that sign
BOOK_MAX: Final = 65_536  # serials: our guess; a thousand nodes renew 60 times in the longest grace
BOOK_BYTES_MAX: Final = BOOK_MAX * 80 + 64  # packed: 20, 32 and two times of at most 9 bytes, with their heads


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

    One that was begun a day ago leads to a certificate that has ended: signers refuse it (CLOCK), so it is begun anew.
    """
    if kept is not None and kept.serial == replaced.serial and at < kept.not_before + LEAF_LIFE:
        return kept
    begin = max(at, replaced.not_before + timedelta(seconds=1))  # newer than the one before, however soon it is renewed
    return Attempt(csr=request(), serial=replaced.serial, not_before=begin.astimezone(UTC).replace(microsecond=0))


# --- the signer's part ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Replacement:
    """What one serial was replaced by."""

    request_hash: bytes
    not_before: int  # Unix seconds
    forget: int  # Unix seconds: from then on the replaced certificate is beyond every grace


@dataclass(frozen=True, slots=True)
class RenewalBook:
    """Which serials were replaced, and by what. A value: make the new one durable, then answer."""

    replaced: Mapping[int, _Replacement] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def bind(
        self, old: VerifiedCertificate, renewal: Renewal, at: datetime, grace: GraceTimes = USUAL
    ) -> "RenewalBook":
        """The book with this renewal in it; the same book for a retry.

        Raises:
            Refused: CLONED_IDENTITY if the serial was replaced by something else; CLOCK for a notBefore in the future;
                TOO_MANY if the book is full.
        """
        hashed, seconds = sha256(renewal.csr), int(renewal.not_before.timestamp())
        known = self.replaced.get(old.serial)
        if known is not None:
            if (known.request_hash, known.not_before) != (hashed, seconds):
                raise Refused(Reason.CLONED_IDENTITY, f"a certificate of {old.name} was to be renewed in two ways")
            return self
        if renewal.not_before - TOLERANCE > at:  # the past is no fault: another signer may have bound it an hour ago
            detail = f"the node's clock says {show_time(renewal.not_before)}, it is {show_time(at)} here"
            raise Refused(Reason.CLOCK, detail)
        kept = self._without_old(at)
        if len(kept) >= BOOK_MAX:
            raise Refused(Reason.TOO_MANY, "the book of renewals is full")
        longest = max(grace.of_members, grace.with_tpm, grace.with_file)  # its office and level may change meanwhile
        forget = int((old.not_after + longest + 2 * TOLERANCE).timestamp())
        return replace(self, replaced=MappingProxyType(kept | {old.serial: _Replacement(hashed, seconds, forget)}))

    def without(self, serials: Container[int]) -> "RenewalBook":
        """For a new authority: renewals that the one before it has begun and can never finish."""
        kept = {serial: one for serial, one in self.replaced.items() if serial not in serials}
        return replace(self, replaced=MappingProxyType(kept))

    def _without_old(self, at: datetime) -> dict[int, _Replacement]:
        return {serial: one for serial, one in self.replaced.items() if one.forget > at.timestamp()}

    def pack(self) -> bytes:
        """{0:1, 1:[[serial20, H(CSR), not_before, forget]]}, sorted."""
        rows = [
            [serial.to_bytes(SERIAL_SIZE, "big"), one.request_hash, one.not_before, one.forget]
            for serial, one in sorted(self.replaced.items())
        ]
        return make_map(rows)

    @classmethod
    def unpack(cls, data: bytes) -> "RenewalBook":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        row = Tuple((Bytes(SERIAL_SIZE), Bytes(32), UInt(SECONDS_MAX), UInt(2 * SECONDS_MAX)))
        (rows,) = open_map(data, Array(row, BOOK_MAX), limit=BOOK_BYTES_MAX)
        serials = [serial for serial, *_ in rows]
        if serials != sorted(set(serials)):
            malformed("serials of a book are sorted and different")
        return cls(
            MappingProxyType({int.from_bytes(serial, "big"): _Replacement(*values) for serial, *values in rows})
        )


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
