"""What a revocation list says, and its one X.509 form (RFC 5280, section 5): from facts to the bytes that are signed.

Serial numbers stand where every tool looks for them, one entry each. Nodes, keys, machines and the ends of logs stand in one
extension of ours, which other tools pass over. There is exactly one encoding for given facts, as for certificates.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum, unique
from typing import Any, Final

from cryptography import x509

from overlay.core.certificate_profile import THROW_AWAY, Issuer, common_name
from overlay.core.keys import NodeId
from overlay.core.wire import Array, Bytes, Tuple, UInt, make_map, malformed, open_map, sha256

LIST_OID: Final = x509.ObjectIdentifier("2.25.161434587649020601065814033374234341669")  # from a random UUID
LIST_MAX: Final = (1024 - 256 - 4) * 1024  # one message that moves trust, less a policy of full size and the envelope
LIST_LIFE: Final = timedelta(days=30)  # for tools that want a newer list by then: our guess; we never forget one
TIME_MAX: Final = 2**34  # seconds: the year 2514, so that no sum of times overflows
SERIAL_SIZE: Final = 20
NUMBER_MAX: Final = 2**63 - 1  # RFC 5280 allows 20 bytes; this fits SQLite's integers

_SERIALS: Final = range(0x40 << 152, 0x80 << 152)  # what `certificate_profile.serial_number` gives
_ITEMS_MAX: Final = LIST_MAX // 40  # no item is shorter than that


@unique
class RevocationReason(IntEnum):
    """CRLReason (RFC 5280, section 5.3.1), those that make sense here: nothing is on hold, nothing comes back."""

    KEY_COMPROMISE = 1
    AUTHORITY_COMPROMISE = 2
    SUPERSEDED = 4  # another node took its place
    CESSATION = 5  # it left
    PRIVILEGE_WITHDRAWN = 9

    @property
    def words(self) -> str:
        """For people."""
        return self.name.lower().replace("_", " ")


_FLAGS: Final = {
    RevocationReason.KEY_COMPROMISE: x509.ReasonFlags.key_compromise,
    RevocationReason.AUTHORITY_COMPROMISE: x509.ReasonFlags.ca_compromise,
    RevocationReason.SUPERSEDED: x509.ReasonFlags.superseded,
    RevocationReason.CESSATION: x509.ReasonFlags.cessation_of_operation,
    RevocationReason.PRIVILEGE_WITHDRAWN: x509.ReasonFlags.privilege_withdrawn,
}
REASONS: Final = {flag: reason for reason, flag in _FLAGS.items()}


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Since when something is not to be trusted any more, when that was ordered, and why. Of two the lower one counts."""

    since: datetime  # invalidityDate, whole seconds UTC
    revoked: datetime  # not before `since`
    reason: RevocationReason


@dataclass(frozen=True, slots=True, order=True)
class LogEnd:
    """Where a log of a revoked node ends for everybody: its last witnessed head. Of two the lower one counts."""

    size: int  # entries
    last: bytes = field(repr=False)  # hash of the last entry, 32 bytes


LogName = tuple[bytes, bytes]  # node id, log id of 16 bytes

_MARKED: Final = Array(Tuple((Bytes(32), UInt(TIME_MAX), UInt(TIME_MAX), UInt(255))), _ITEMS_MAX)
_ENDS: Final = Array(Tuple((Bytes(32), Bytes(16), UInt(), Bytes(32))), _ITEMS_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """A set of revocations, which only ever grows: `merged` is associative, commutative and idempotent."""

    nodes: Mapping[bytes, Mark] = field(default_factory=dict)  # node id: that node for ever, whatever it is issued
    keys: Mapping[bytes, Mark] = field(default_factory=dict)  # `key_hash` of a key
    machines: Mapping[bytes, Mark] = field(default_factory=dict)  # ek_tag
    serials: Mapping[bytes, Mark] = field(default_factory=dict)  # 20 bytes
    ends: Mapping[LogName, LogEnd] = field(default_factory=dict)

    def merged(self, other: "Revocations") -> "Revocations":
        """Both together."""
        return Revocations(
            nodes=_lower(self.nodes, other.nodes), keys=_lower(self.keys, other.keys),
            machines=_lower(self.machines, other.machines), serials=_lower(self.serials, other.serials),
            ends=_lower(self.ends, other.ends),
        )

    def covers(self, other: "Revocations") -> bool:
        """Whether `other` adds nothing to this."""
        return self.merged(other) == self

    def __bool__(self) -> bool:
        return bool(self.nodes or self.keys or self.machines or self.serials or self.ends)

    def pack(self) -> bytes:
        """The value of our extension: all but the serials."""
        ends = [[*name, end.size, end.last] for name, end in sorted(self.ends.items())]
        return make_map(_listed(self.nodes), _listed(self.keys), _listed(self.machines), ends)

    @classmethod
    def unpack(cls, data: bytes, serials: Mapping[bytes, Mark]) -> "Revocations":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED). Order and repetition show when it is packed again."""
        nodes, keys, machines, ends = open_map(data, _MARKED, _MARKED, _MARKED, _ENDS, limit=LIST_MAX)
        return cls(
            nodes=_marked(nodes), keys=_marked(keys), machines=_marked(machines), serials=serials,
            ends={(node, log): LogEnd(size, last) for node, log, size, last in ends},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFacts:
    """What one revocation list says. It is cumulative: it repeats all that the authority has revoked."""

    number: int  # from 1, rising
    this_update: datetime
    next_update: datetime
    revocations: Revocations

    def __post_init__(self) -> None:
        """Raises ValueError for what no verifier would accept."""
        if not 1 <= self.number <= NUMBER_MAX:
            raise ValueError(f"a list's number is from 1 to {NUMBER_MAX}")
        if not _whole(self.this_update) < _whole(self.next_update):
            raise ValueError("this update comes before the next one")
        found = self.revocations
        for marks in (found.nodes, found.keys, found.machines, found.serials):
            for mark in marks.values():
                if not _whole(mark.since) <= _whole(mark.revoked) <= self.this_update:
                    raise ValueError("what is revoked was bad before, and the list comes after that")
        if any(int.from_bytes(serial, "big") not in _SERIALS or len(serial) != SERIAL_SIZE for serial in found.serials):
            raise ValueError("no serial of ours")


def key_hash(key: bytes) -> bytes:
    """By what a key is revoked: its SubjectPublicKeyInfo DER (identity, root), or the raw 32 bytes of an endorsed one."""
    return sha256(key)


def serial_bytes(serial: int) -> bytes:
    """A serial as 20 bytes."""
    return serial.to_bytes(SERIAL_SIZE, "big")


def revocation_list_to_be_signed(issuer: Issuer, facts: ListFacts) -> bytes:
    """TBSCertList, version 2, for the mesh key to sign; `certificate_profile.seal` then makes the list.

    Raises:
        ValueError: the list would be larger than `LIST_MAX`.
    """
    builder = (
        x509.CertificateRevocationListBuilder(
            revoked_certificates=[_entry(*item) for item in sorted(facts.revocations.serials.items())]
        )
        .issuer_name(common_name(issuer.name))
        .last_update(facts.this_update)
        .next_update(facts.next_update)
        .add_extension(x509.AuthorityKeyIdentifier(sha256(issuer.spki), None, None), critical=False)
        .add_extension(x509.CRLNumber(facts.number), critical=False)
        .add_extension(x509.UnrecognizedExtension(LIST_OID, facts.revocations.pack()), critical=False)
    )
    content = builder.sign(THROW_AWAY, None).tbs_certlist_bytes
    if len(content) > LIST_MAX - 96:  # algorithm, signature and lengths around it
        raise ValueError(f"a revocation list has at most {LIST_MAX} bytes")
    return content


def _entry(serial: bytes, mark: Mark) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder(int.from_bytes(serial, "big"), mark.revoked.replace(tzinfo=None))
    reasons = builder.add_extension(x509.CRLReason(_FLAGS[mark.reason]), critical=False)
    return reasons.add_extension(x509.InvalidityDate(mark.since.replace(tzinfo=None)), critical=False).build()


def _lower(ours: Mapping[Any, Any], theirs: Mapping[Any, Any]) -> dict[Any, Any]:
    """All keys of both, each with the lower value."""
    both = dict(ours)
    for key, value in theirs.items():
        both[key] = min(both.get(key, value), value)
    return both


def _listed(marks: Mapping[bytes, Mark]) -> list[list[bytes | int]]:
    return [
        [name, int(mark.since.timestamp()), int(mark.revoked.timestamp()), int(mark.reason)]
        for name, mark in sorted(marks.items())
    ]


def _marked(items: Iterable[tuple[bytes, int, int, int]]) -> dict[bytes, Mark]:
    return {name: Mark(_time(since), _time(revoked), _reason(reason)) for name, since, revoked, reason in items}


def _reason(number: int) -> RevocationReason:
    try:
        return RevocationReason(number)
    except ValueError:
        malformed(f"reason {number} of a revocation")


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _whole(time: datetime) -> datetime:
    """The same time; raises ValueError unless it is in whole seconds UTC from 1970 to 2514."""
    if time.tzinfo is not UTC or time.microsecond or not 0 <= time.timestamp() <= TIME_MAX:
        raise ValueError("times are in whole seconds UTC, from 1970 to 2514")
    return time


def node_revocation(
    node_id: NodeId, mark: Mark, *, serials: Iterable[bytes] = (), machine: bytes | None = None,
    ends: Mapping[bytes, LogEnd] | None = None,
) -> Revocations:
    """All of one node: its id, its known serials, its machine, and where its logs (by log id) end."""
    return Revocations(
        nodes={bytes(node_id): mark}, serials=dict.fromkeys(serials, mark),
        machines={} if machine is None else {machine: mark},
        ends={(bytes(node_id), log): end for log, end in (ends or {}).items()},
    )
