"""Revocation lists: bytes -> RevocationList, or Refused; and what lists say together. Rules:

- nothing in a list is believed before its signature by a root of the mesh has verified
- what was read gives the same bytes when the list is built anew (`revocation_profile.py`)
- no clock takes part: a list binds before its time and for ever after it
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NoReturn

from cryptography import x509
from cryptography.x509.oid import NameOID

from overlay.core.certificates import TOLERANCE, Root, check_signature
from overlay.core.revocation_profile import (
    LIST_MAX,
    LIST_OID,
    REASONS,
    ListFacts,
    Mark,
    Revocations,
    revocation_list_to_be_signed,
    serial_bytes,
)
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason

_UNREADABLE: Final = (  # what `cryptography` and `ListFacts` raise for content that is none of ours
    ValueError, TypeError, OverflowError, x509.InvalidVersion, x509.ExtensionNotFound, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A list that has passed every check of `verify_revocation_list`."""

    facts: ListFacts = field(repr=False)
    der: bytes = field(repr=False)
    hash: bytes = field(repr=False)  # SHA-256 of der

    @property
    def number(self) -> int:
        """Where it stands among the lists."""
        return self.facts.number

    @property
    def revocations(self) -> Revocations:
        """What it revokes."""
        return self.facts.revocations

    def is_current(self, at: datetime) -> bool:
        """Whether tools that want a fresh list take this one. We honour it anyway; a list that is old is worth a warning."""
        return self.facts.this_update - TOLERANCE <= at <= self.facts.next_update + TOLERANCE

    def replaces(self, other: "RevocationList") -> bool:
        """Whether nothing is lost with the other one: this one is newer, and it repeats the other."""
        return self.number > other.number and self.revocations.covers(other.revocations)


def verify_revocation_list(der: bytes, roots: Sequence[Root]) -> RevocationList:
    """Check a list under any of these roots.

    Raises:
        Refused: TOO_LARGE, BAD_REVOCATION_LIST.
    """
    if len(der) > LIST_MAX:
        raise Refused(Reason.TOO_LARGE, f"a revocation list has at most {LIST_MAX} bytes")
    root = next((root for root in roots if _is_by(der, root)), None)
    if root is None:
        _bad("not signed by a root of the mesh")
    try:
        facts = _read(x509.load_der_x509_crl(der))
        expected = revocation_list_to_be_signed(root.issuer, facts)
    except _UNREADABLE:
        _bad("content")
    except Refused as error:
        _bad(f"our extension: {error}")
    if x509.load_der_x509_crl(der).tbs_certlist_bytes != expected:
        _bad("not of our profile")
    return RevocationList(facts, der, sha256(der))


def is_of_unknown_root(der: bytes, roots: Sequence[Root]) -> bool:
    """Whether a list says of itself that a root of this mesh signed it, and none of these: somebody may know more than we do.

    Nothing is believed of it, so it only tells a list that we cannot judge from one that is forged.
    """
    if len(der) > LIST_MAX:
        return False
    try:
        found = x509.load_der_x509_crl(der)
        names = [one.value for one in found.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)]
        signer = found.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except _UNREADABLE:
        return False
    return names == [roots[0].name] and signer not in {root.key_hash for root in roots}


def newest_of(lists: Iterable[RevocationList]) -> tuple[RevocationList, ...]:
    """The lists without those that another one replaces, in one order: the same for the same lists, however they came."""
    different = {one.hash: one for one in lists}.values()
    kept = [one for one in different if not any(other.replaces(one) for other in different)]
    return tuple(sorted(kept, key=lambda one: (one.number, one.hash)))


def numbers_used_twice(lists: Iterable[RevocationList]) -> tuple[int, ...]:
    """Numbers that two different lists bear: the authority has told two stories, and somebody should know."""
    numbers = [one.number for one in lists]
    return tuple(sorted({number for number in numbers if numbers.count(number) > 1}))


def _is_by(der: bytes, root: Root) -> bool:
    try:
        check_signature(der, root.public_key, limit=LIST_MAX)
    except Refused:
        return False
    return True


def _read(found: x509.CertificateRevocationList) -> ListFacts:
    """What a list says, read leniently: building it again then shows that it was all there is."""
    extensions, next_update = found.extensions, found.next_update_utc
    if next_update is None:
        raise ValueError("no next update")
    serials = {serial_bytes(one.serial_number): _mark(one) for one in found}
    ours = extensions.get_extension_for_oid(LIST_OID).value
    return ListFacts(
        number=extensions.get_extension_for_class(x509.CRLNumber).value.crl_number,
        this_update=found.last_update_utc, next_update=next_update,
        revocations=Revocations.unpack(ours.public_bytes(), serials),
    )


def _mark(entry: x509.RevokedCertificate) -> Mark:
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    since = entry.extensions.get_extension_for_class(x509.InvalidityDate).value.invalidity_date_utc
    if reason not in REASONS:
        raise ValueError("reason")
    return Mark(since, entry.revocation_date_utc, REASONS[reason])


def _bad(detail: str) -> NoReturn:
    raise Refused(Reason.BAD_REVOCATION_LIST, detail)
