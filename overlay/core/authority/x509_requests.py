"""Requests for certificates and revocation lists, as facts: every signer builds the DER to be signed from them by itself."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import ClassVar, Final

from overlay.core import certificate_profile as profile
from overlay.core.authority.contents import NUMBER_MAX, SPKI
from overlay.core.authority.order_bodies import INVITE_ID_SIZE, USES_MAX
from overlay.core.authority.request_kinds import HASH, REQUEST_MAX, TIME, RequestKind, from_seconds, to_seconds
from overlay.core.authority.roots import CROSS_LATER
from overlay.core.certificate_profile import FACTS_MAX, Issuer, LeafFacts, Life, bad_certificate, is_name
from overlay.core.certificate_request import Request, verify_request
from overlay.core.certificates import LEAF_LIFE_MAX
from overlay.core.keys import IdentityKey, NodeId, point_has_prime_order
from overlay.core.limits import CHAIN_BYTES_MAX
from overlay.core.revocation_profile import (
    LIST_MAX,
    SERIAL_SIZE,
    ListFacts,
    Mark,
    RevocationReason,
    Revocations,
    revocation_list_to_be_signed,
)
from overlay.core.revocation_profile import NUMBER_MAX as LIST_NUMBER_MAX
from overlay.core.wire import Array, Bytes, Maybe, Text, Tuple, UInt, make_map, malformed, open_map
from overlay.errors import Refused
from overlay.registry import COSE_EDDSA, Reason

AUTHORITY_LIFE_MAX: Final = timedelta(days=21 * 365.25)  # our guess: a year more than a founding root lives



SESSIONS_MAX: Final = 64  # certificates under way at once: our guess, as many as a signer has sessions

_SERIALS: Final = Array(Tuple((Bytes(SERIAL_SIZE), TIME, TIME, UInt(255))), LIST_MAX // SERIAL_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueLeaf:
    """{1:CSR, 2:name, 3:facts, 4:not before, 5:not after, 6:invite id?, 7:use?, 8:serial that it renews?, 9:replaced node?}.

    `use` counts the uses of an invite from 0; the shell checks that the invite has so many. `instead_of` is the node that an
    order of operators replaces by this one: its name moves.
    """

    kind: ClassVar = RequestKind.LEAF
    csr: bytes = field(repr=False)  # PKCS#10 DER
    name: str
    facts: LeafFacts
    not_before: datetime
    not_after: datetime
    invite_id: bytes | None = None
    use: int | None = None
    renews: bytes | None = None  # serial, 20 bytes
    instead_of: NodeId | None = None

    def fields(self) -> bytes:
        """As above."""
        return make_map(
            self.csr, self.name, self.facts.pack(), to_seconds(self.not_before), to_seconds(self.not_after), self.invite_id,
            self.use, self.renews, self.instead_of,
        )

    @classmethod
    def read(cls, data: bytes) -> "IssueLeaf":
        """From fields."""
        csr, name, facts, not_before, not_after, invite_id, use, renews, instead_of = open_map(
            data, Bytes(1, CHAIN_BYTES_MAX), Text(63), Bytes(1, FACTS_MAX), TIME, TIME, Maybe(Bytes(INVITE_ID_SIZE)),
            Maybe(UInt(USES_MAX - 1)), Maybe(Bytes(SERIAL_SIZE)), Maybe(HASH), limit=REQUEST_MAX,
        )
        if (invite_id is None) is (renews is None) or (use is None) is not (invite_id is None):
            malformed("a certificate is for a use of an invite, or renews another one")
        return cls(
            csr=csr, name=name, facts=LeafFacts.unpack(facts), not_before=from_seconds(not_before),
            not_after=from_seconds(not_after), invite_id=invite_id, use=use, renews=renews,
            instead_of=instead_of and NodeId(instead_of),
        )

    def derive(self, issuer: Issuer) -> bytes:
        """TBSCertificate of the node whose key signed the CSR."""
        life = _life(self.not_before, self.not_after, LEAF_LIFE_MAX)
        if not is_name(self.name):
            bad_certificate("not a name")
        return profile.leaf_to_be_signed(issuer, _verified(self.csr).identity.spki, self.name, self.facts, life)

    @property
    def node_id(self) -> NodeId:
        """Whose certificate it is; raises Refused(BAD_CERTIFICATE)."""
        return _verified(self.csr).node_id


@dataclass(frozen=True, slots=True)
class RevocationList:
    """{1:number, 2:this update, 3:next update, 4:all but the serials, 5:[[serial, since, revoked, reason]]}."""

    kind: ClassVar = RequestKind.REVOCATION_LIST
    facts: ListFacts = field(repr=False)

    def fields(self) -> bytes:
        """As above."""
        facts, serials = self.facts, sorted(self.facts.revocations.serials.items())
        rows = [[serial, to_seconds(mark.since), to_seconds(mark.revoked), int(mark.reason)] for serial, mark in serials]
        times = to_seconds(facts.this_update), to_seconds(facts.next_update)
        return make_map(facts.number, *times, facts.revocations.pack(), rows)

    @classmethod
    def read(cls, data: bytes) -> "RevocationList":
        """From fields."""
        number, this_update, next_update, packed, rows = open_map(
            data, UInt(LIST_NUMBER_MAX), TIME, TIME, Bytes(1, LIST_MAX), _SERIALS, limit=REQUEST_MAX
        )
        times = {"this_update": from_seconds(this_update), "next_update": from_seconds(next_update)}
        try:
            serials = {serial: Mark(from_seconds(a), from_seconds(b), RevocationReason(why)) for serial, a, b, why in rows}
            return cls(ListFacts(number=number, **times, revocations=Revocations.unpack(packed, serials)))
        except ValueError as error:
            raise Refused(Reason.BAD_REVOCATION_LIST, str(error)) from None

    def derive(self, issuer: Issuer) -> bytes:
        """TBSCertList."""
        try:
            return revocation_list_to_be_signed(issuer, self.facts)
        except ValueError as error:
            raise Refused(Reason.BAD_REVOCATION_LIST, str(error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCertificate:
    """{1:k, 2:SPKI of root k, 3:not before, 4:not after of root k}: by root k-1; by root k it is root k's own certificate."""

    kind: ClassVar = RequestKind.CROSS_CERTIFICATE
    number: int
    spki: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime

    def fields(self) -> bytes:
        """As above."""
        return make_map(self.number, self.spki, to_seconds(self.not_before), to_seconds(self.not_after))

    @classmethod
    def read(cls, data: bytes) -> "CrossCertificate":
        """From fields."""
        number, spki, not_before, not_after = open_map(data, UInt(NUMBER_MAX), SPKI, TIME, TIME, limit=REQUEST_MAX)
        return cls(number=number, spki=spki, not_before=from_seconds(not_before), not_after=from_seconds(not_after))

    def derive(self, issuer: Issuer) -> bytes:
        """TBSCertificate of a root, under the mesh's own name."""
        key = IdentityKey.parse(self.spki)
        if key.algorithm != COSE_EDDSA or not point_has_prime_order(key.public_key):
            bad_certificate("the root's key is not a good Ed25519 key")
        return profile.authority_to_be_signed(issuer, self.spki, issuer.name, self.life(issuer))

    def life(self, issuer: Issuer) -> Life:
        """Of this one; raises Refused(BAD_CERTIFICATE)."""
        begin = self.not_before + CROSS_LATER * (issuer.spki != self.spki)
        return _life(begin, self.not_after, AUTHORITY_LIFE_MAX)


@lru_cache(maxsize=SESSIONS_MAX)
def _verified(csr: bytes) -> Request:
    """A signer needs it several times for one certificate; what was refused is not remembered."""
    return verify_request(csr)


def _life(not_before: datetime, not_after: datetime, longest: timedelta) -> Life:
    try:
        life = Life.between(not_before, not_after)
    except ValueError as error:
        bad_certificate(str(error))
    if life.not_after - life.not_before > longest:
        bad_certificate(f"lives longer than {longest}")
    return life
