"""What a signer has promised before anything of its share leaves: this name, use, number or serial is given to that, for ever.

    bindings = {0:1, 1:[[kind, key, value, until], ...] rising}

Two signatures by t of n signers have 2t - n signers in common, so two different values for one thing would need as many liars.
A value is never replaced; a renewal of which no share has left may be given up (`reservations.py`). A name moves from a
replaced node to the next one by a row of its own, so that there, too, is one value only. Rows about certificates that are long
over are left out at `without`; the signer refuses such certificates by time.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, unique
from typing import Any, Final

from overlay.core.authority.record_requests import AuthorityObjectRequest, PolicyRequest, Roster
from overlay.core.authority.request_kinds import TIME_MAX, to_seconds
from overlay.core.authority.requests import Request
from overlay.core.authority.x509_requests import CrossCertificate, IssueLeaf, RevocationList
from overlay.core.certificate_profile import Issuer, serial_number
from overlay.core.certificates import LEAF_LIFE_MAX, TOLERANCE
from overlay.core.keys import NodeId
from overlay.core.revocation_profile import serial_bytes
from overlay.core.wire import Array, Bytes, Tuple, UInt, make_map, malformed, open_map, sha256, u32, u64
from overlay.errors import Refused
from overlay.registry import Reason

BINDINGS_MAX: Final = 64 * 1024 * 1024  # our guess: half a million rows
KEEP_RENEWED: Final = timedelta(days=120)  # protocol: 90 days of grace at most, and a month to spare
KEEP_SERIAL: Final = LEAF_LIFE_MAX + timedelta(days=1)  # and a day for clocks that were set back
KEEP_ROSTER: Final = timedelta(days=30)  # our guess
FOR_EVER: Final = 0
DAY: Final = 86_400

KEY_MAX: Final = 128  # bytes: our guess, names have 63

ROW: Final = Tuple((UInt(255), Bytes(1, KEY_MAX), Bytes(32), UInt(TIME_MAX)))


@unique
class Bound(IntEnum):
    """What is bound, key -> value."""

    NAME = 1  # name -> node id that had it first
    USE = 2  # u32 use || invite id -> node id
    SERIAL = 3  # H(SPKI of the root) || serial -> H(to be signed)
    RENEWED = 4  # H(SPKI of the root) || serial that was renewed -> H(to be signed)
    REPLACED = 5  # H(replaced node id || name) -> node id that took its place
    LIST = 6  # H(SPKI of the root) || u64 number -> H(to be signed)
    OBJECT = 7  # H(SPKI of the root) || u64 k -> H(payload); so a new root that was given up binds nobody
    POLICY = 8  # u64 version -> H(payload)
    ROSTER = 9  # u64 day -> H(to be signed)


_KINDS: Final = {int(kind): kind for kind in Bound}
_NEVER_BACK: Final = {
    Bound.LIST: Reason.BAD_REVOCATION_LIST, Bound.POLICY: Reason.BAD_POLICY, Bound.OBJECT: Reason.BAD_AUTHORITY_OBJECT
}
_REFUSAL: Final = {Bound.RENEWED: Reason.CLONED_IDENTITY}  # of all others: BOUND_OTHERWISE


@dataclass(frozen=True, slots=True, order=True)
class Binding:
    """One row. `until` is when it may be forgotten, in Unix seconds, or FOR_EVER."""

    kind: Bound
    key: bytes
    value: bytes  # 32
    until: int = FOR_EVER

    @property
    def fields(self) -> list[int | bytes]:
        """As it is stored and told."""
        return [int(self.kind), self.key, self.value, self.until]


Rows = Mapping[Bound, Mapping[bytes, Binding]]


@dataclass(frozen=True, slots=True)
class Bindings:
    """All that one signer has bound. Never changes: `bind` gives new ones."""

    rows: Rows = field(default_factory=dict, repr=False)

    def missing(self, request: Request, issuer: Issuer, message: bytes) -> tuple[Binding, ...]:
        """What would have to be bound; nothing for a retry.

        Raises:
            Refused: BOUND_OTHERWISE; CLONED_IDENTITY for a serial that was renewed otherwise; BAD_REVOCATION_LIST, BAD_POLICY
                or BAD_AUTHORITY_OBJECT for a number below one that is bound.
        """
        claims = claims_of(request, issuer, message)
        if isinstance(request, IssueLeaf):
            claims += self._name(request)
        for claim in claims:
            self._check(claim)
        return tuple(claim for claim in claims if self.get(claim.kind, claim.key) is None)

    def bind(self, request: Request, issuer: Issuer, message: bytes) -> "Bindings":
        """These and what the request binds; raises Refused as `missing`."""
        return self.adding(self.missing(request, issuer, message))

    def adding(self, new: Iterable[Binding]) -> "Bindings":
        """These and more rows; raises Refused(BOUND_OTHERWISE) if one contradicts."""
        rows, copied = dict(self.rows), dict[Bound, dict[bytes, Binding]]()
        for row in new:
            if row.kind not in copied:
                rows[row.kind] = copied[row.kind] = dict(rows.get(row.kind, {}))
            held = copied[row.kind]
            if row.key in held and held[row.key].value != row.value:
                raise Refused(Reason.BOUND_OTHERWISE, row.kind.name.lower())
            held[row.key] = row
        return Bindings(rows)

    def less(self, rows: Collection[Binding]) -> "Bindings":
        """These without rows that no share has ever rested on, see `reservations.py`."""
        kept = {kind: {key: row for key, row in held.items() if row not in rows} for kind, held in self.rows.items()}
        return Bindings({kind: held for kind, held in kept.items() if held})

    def get(self, kind: Bound, key: bytes) -> bytes | None:
        """What that is bound to."""
        row = self.rows.get(kind, {}).get(key)
        return None if row is None else row.value

    def is_renewed(self, serial: bytes, roots: Iterable[bytes]) -> bool:
        """Whether a certificate in that one's place was promised under one of these roots, SPKI DER."""
        return any(self.get(Bound.RENEWED, sha256(spki) + serial) is not None for spki in roots)

    def highest_list(self, issuer: Issuer) -> int:
        """The highest number of a revocation list under that root; 0 where there is none."""
        root = sha256(issuer.spki)
        return max((int.from_bytes(key[-8:], "big") for key in self.rows.get(Bound.LIST, {}) if key[:-8] == root), default=0)

    def bearers(self, name: str) -> list[NodeId]:
        """Who have had the name, each in place of the one before; the last one has it."""
        found, encoded = list[NodeId](), name.encode()
        bearer = self.get(Bound.NAME, encoded)
        while bearer is not None and bearer not in found:  # rows that others have made up may go round in a circle
            found.append(NodeId(bearer))
            bearer = self.get(Bound.REPLACED, sha256(bearer, encoded))
        return found

    def holder(self, name: str) -> NodeId | None:
        """Whose name it is."""
        return self.bearers(name)[-1] if self.bearers(name) else None

    def use_for(self, invite_id: bytes, node_id: NodeId, uses: int) -> int | None:
        """Which use of an invite to ask for: the one that this node has, else the first free one; None if all are spent."""
        held = [self.get(Bound.USE, u32(use) + invite_id) for use in range(uses)]
        return held.index(node_id) if node_id in held else held.index(None) if None in held else None

    def without(self, at: datetime) -> "Bindings":
        """Those that still matter."""
        now = int(at.timestamp())
        kept = {
            kind: {key: row for key, row in rows.items() if row.until == FOR_EVER or row.until > now}
            for kind, rows in self.rows.items()
        }
        return Bindings({kind: rows for kind, rows in kept.items() if rows})

    def after(self, kind: int, key: bytes) -> Iterator[Binding]:
        """All rows that come after that place, rising."""
        for one in sorted(self.rows):
            if one >= kind:
                held = self.rows[one]
                names = held if one > kind else [name for name in held if name > key]
                yield from map(held.__getitem__, sorted(names))

    def pack(self) -> bytes:
        """As they are stored."""
        return make_map([row.fields for row in self.after(0, b"")])

    @classmethod
    def unpack(cls, data: bytes) -> "Bindings":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        (rows,) = open_map(data, Array(ROW, BINDINGS_MAX // 40), limit=BINDINGS_MAX)
        found: dict[Bound, dict[bytes, Binding]] = {}
        last = (-1, b"")
        for fields in rows:
            row = read_row(fields)
            if (row.kind, row.key) <= last:
                malformed("bindings are rising, and none is there twice")
            last = (row.kind, row.key)
            found.setdefault(row.kind, {})[row.key] = row
        return cls(found)

    def _name(self, request: IssueLeaf) -> list[Binding]:
        """Who may bear the name: its first node, or one that takes the place of the node that has it, and never had it."""
        node_id, old, name = request.node_id, request.instead_of, request.name.encode()
        bearers = self.bearers(request.name)
        if bearers and bearers[-1] == node_id:
            return []
        if old is None and not bearers:
            return [Binding(Bound.NAME, name, node_id)]
        if old is None or node_id in (*bearers, old) or (bearers and bearers[-1] != old):
            raise Refused(Reason.BOUND_OTHERWISE, f"{request.name} is another node's name")
        moved = Binding(Bound.REPLACED, sha256(old, name), node_id)
        return [moved] if bearers else [Binding(Bound.NAME, name, old), moved]

    def _check(self, claim: Binding) -> None:
        held = self.rows.get(claim.kind, {})
        bound = held.get(claim.key)
        if bound is not None and bound.value != claim.value:
            detail = f"{claim.kind.name.lower()} is bound to something else"
            raise Refused(_REFUSAL.get(claim.kind, Reason.BOUND_OTHERWISE), detail)
        if bound is None and claim.kind in _NEVER_BACK and any(_after(key, claim.key) for key in held):
            raise Refused(_NEVER_BACK[claim.kind], f"{claim.kind.name.lower()} goes backwards")


def read_row(fields: list[Any]) -> Binding:
    """Of what ROW has let through. Raises Refused(MALFORMED) for a kind that nobody knows."""
    number, key, value, until = fields
    if number not in _KINDS:
        malformed("bindings are of known kinds")
    return Binding(_KINDS[number], key, value, until)


def check_time(request: Request, at: datetime) -> None:
    """Refuse what may be forgotten already, and what is for later.

    Raises:
        Refused: CERTIFICATE_EXPIRED, CERTIFICATE_NOT_YET_VALID; CLOCK for the roster of another day.
    """
    match request:
        case IssueLeaf(not_after=not_after) if not_after <= at:
            raise Refused(Reason.CERTIFICATE_EXPIRED, "it would be over already")
        case IssueLeaf(not_before=not_before) if not_before > at + TOLERANCE:
            raise Refused(Reason.CERTIFICATE_NOT_YET_VALID, "it would begin later")
        case Roster(day=day) if abs(day - int(at.timestamp()) // DAY) > 1:
            raise Refused(Reason.CLOCK, "the roster of another day")
        case _:
            pass


def _after(key: bytes, other: bytes) -> bool:
    """Whether a number is above another one of the same row of numbers (the last 8 bytes count)."""
    return key[:-8] == other[:-8] and key[-8:] > other[-8:]


def claims_of(request: Request, issuer: Issuer, message: bytes) -> list[Binding]:
    """All but the name."""
    signed, root = sha256(message), sha256(issuer.spki)
    match request:
        case IssueLeaf():
            return _leaf_claims(request, issuer, signed)
        case RevocationList(facts=facts):
            return [Binding(Bound.LIST, root + u64(facts.number), signed)]
        case AuthorityObjectRequest():
            return [Binding(Bound.OBJECT, root + u64(request.number), sha256(request.payload))]
        case CrossCertificate():
            serial = serial_number(issuer.mesh_id, sha256(request.spki), request.life(issuer).not_before)
            return [Binding(Bound.SERIAL, root + serial_bytes(serial), signed)]
        case PolicyRequest():
            return [Binding(Bound.POLICY, u64(request.version), sha256(request.payload))]
        case Roster():
            until = (request.day + KEEP_ROSTER.days) * DAY
            return [Binding(Bound.ROSTER, u64(request.day), signed, until)]
        case _:
            return []


def _leaf_claims(request: IssueLeaf, issuer: Issuer, signed: bytes) -> list[Binding]:
    node_id = request.node_id
    key = sha256(issuer.spki) + serial_bytes(serial_number(issuer.mesh_id, node_id, request.not_before))
    claims = [Binding(Bound.SERIAL, key, signed, to_seconds(request.not_before + KEEP_SERIAL))]
    if request.invite_id is not None and request.use is not None:
        claims.append(Binding(Bound.USE, u32(request.use) + request.invite_id, node_id))
    if request.renews is not None:
        until = to_seconds(request.not_before + KEEP_RENEWED)
        claims.append(Binding(Bound.RENEWED, sha256(issuer.spki) + request.renews, signed, until))
    return claims
