"""What entries say: the body of each type, one row per form (docs/protocol/audit.md).

A body is {0:1, 1:a, 2:b, ...} with its fields in the order of the row; an application's is {0: type, 1: JSON}. Who
checks a chain reads only the two that carry keys (`log_open`, `endorsement`): the others may grow without stopping a log.
Never in a body: tokens, nonces, keys, or a person's data other than salted hashes.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from overlay.core.keys import NodeId, base32
from overlay.core.telemetry.anchor import ANCHORS
from overlay.core.trust import Credentials
from overlay.core.wire import Array, Bytes, Kind, Maybe, Text, UInt, malformed, read_map
from overlay.core.work.envelopes import SIGNED_PLACEMENT_MAX
from overlay.errors import Refused, UsageError
from overlay.registry import EntryType, Reason, WorkEvent, WorkState

Body = Mapping[int, Any]

WORD_MAX: Final = 64  # bytes of a word such as a reason: our guess
DETAIL_MAX: Final = 1024  # bytes of a text for people: our guess
APPLICATION_TYPE_MAX: Final = 128  # bytes: our guess
VALUE_DEPTH_MAX: Final = 32  # lists and maps in each other: our guess
CHAIN_MAX: Final = 12  # certificates, as on a link
WITNESSES_MAX: Final = 7  # design: of more candidates five are witnesses
REVOKED_MAX: Final = 64  # nodes named in one entry: our guess, the list itself names all
DER_MAX: Final = 8 * 1024  # all certificates of a link together; one cannot be larger

_CREDENTIALS: Final = (
    ("endorsement", Bytes(1, 4096)), ("leaf", Bytes(1, DER_MAX)), ("chain", Array(Bytes(1, DER_MAX), CHAIN_MAX)),
)  # fmt: skip
_NODE: Final = Bytes(32)
_HASH: Final = Bytes(32)

FORMS: Final[Mapping[EntryType, tuple[tuple[str, Kind], ...]]] = {
    EntryType.LOG_OPEN: (
        ("k", UInt(2**32 - 1)), *_CREDENTIALS, ("old_log", Maybe(Bytes(16))), ("old_size", Maybe(UInt())),
        ("old_root", Maybe(_HASH)), ("old_checkpoint", Maybe(Bytes(1, 16_384))), ("reason", Maybe(Text(WORD_MAX))),
        ("old_last", Maybe(_HASH)),  # hash of the last known entry of the old log: the rule for log ids needs it
    ),
    EntryType.ENDORSEMENT: _CREDENTIALS,
    EntryType.WITNESSES: (("nodes", Array(_NODE, WITNESSES_MAX)),),
    EntryType.LIFECYCLE: (
        ("event", Text(WORD_MAX)), ("version", Maybe(Text(WORD_MAX))), ("detail", Maybe(Text(DETAIL_MAX))),
    ),
    EntryType.ADMISSION: (("peer", _NODE), ("kid", _HASH), ("level", UInt(5)), ("evidence", UInt(255))),
    EntryType.REFUSAL: (("peer", Maybe(_NODE)), ("reason", UInt(255)), ("minute", UInt()), ("count", UInt())),
    EntryType.FORK: (("node", _NODE), ("kind", UInt(255)), ("proof_hash", _HASH), ("detail", Maybe(Text(DETAIL_MAX)))),
    EntryType.DRIFT: (("peer", _NODE), ("reason", UInt(255)), ("detail", Maybe(Text(DETAIL_MAX)))),
    EntryType.ENROLMENT: (("node", _NODE), ("name", Text(WORD_MAX)), ("roles", Array(Text(WORD_MAX), 16))),
    EntryType.ISSUANCE: (("node", _NODE), ("serial", Bytes(1, 20)), ("leaf_hash", _HASH), ("not_after", UInt())),
    EntryType.ORDER: (("operator", _NODE), ("kind", UInt(255)), ("number", UInt()), ("order_hash", _HASH)),
    EntryType.REVOCATION: (("number", UInt()), ("list_hash", _HASH), ("nodes", Array(_NODE, REVOKED_MAX))),
    EntryType.POLICY: (("version", UInt()), ("policy_hash", _HASH)),
    EntryType.AUTHORITY: (("number", UInt(2**32 - 1)), ("object_hash", _HASH)),
    EntryType.WORK: (  # made and read by work_bodies.py
        ("event", UInt(255)), ("name", Maybe(Text(WORD_MAX))), ("workload", Maybe(_HASH)), ("run", Maybe(UInt())),
        ("placement", Maybe(_HASH)), ("scheduler", Maybe(_NODE)), ("originators", Maybe(Array(_NODE, 2))),
        ("carried", Maybe(Bytes(1, SIGNED_PLACEMENT_MAX))), ("state", Maybe(UInt(255))), ("number", Maybe(UInt(255))),
        ("result", Maybe(_HASH)), ("reason", Maybe(UInt(255))), ("peer", Maybe(_NODE)), ("detail", Maybe(Text(DETAIL_MAX * 2))),
    ),
    EntryType.TELEMETRY: (("streams", ANCHORS),),  # made and read by overlay/core/telemetry/anchor.py
}  # fmt: skip

_APPLICATION: Final[tuple[Kind, ...]] = (Text(APPLICATION_TYPE_MAX), Bytes(0, 61_440))
_NODES: Final = frozenset({"peer", "node", "operator", "scheduler"})
_LISTS_OF_NODES: Final = frozenset({"nodes", "originators"})
_WORDS: Final[Mapping[str, type[IntEnum]]] = {"reason": Reason, "event": WorkEvent, "state": WorkState}


def make_body(entry_type: EntryType, **values: Any) -> Body:
    """A body by field names; a field left out is absent. TypeError for a name that the form does not have."""
    form = FORMS[entry_type]
    unknown = set(values) - {name for name, _ in form}
    if unknown:
        raise TypeError(f"{entry_type.name} has no field {min(unknown)}")
    fields = {index: values[name] for index, (name, _) in enumerate(form, 1) if values.get(name) is not None}
    return {0: 1, **fields}


def read_body(entry_type: EntryType, body: Body) -> dict[str, Any]:
    """The fields by name, None where one is absent. Raises Refused: MALFORMED, UNSUPPORTED."""
    form = FORMS[entry_type]
    values = read_map(dict(body), *(kind for _, kind in form))
    return {name: value for (name, _), value in zip(form, values, strict=True)}


# --- the two that carry keys ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """The incarnation before, as far as its author knows it."""

    log_id: bytes
    size: int
    root: bytes
    last: bytes  # hash of entry size - 1
    reason: str  # why it was not continued
    checkpoint: bytes | None = None  # the newest of it that witnesses have shown: a signed note


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOpen:
    """Entry 0 of every log. `former` is None for k = 0 only."""

    k: int
    credentials: Credentials
    former: Former | None = None

    def body(self) -> Body:
        """As it stands in the entry."""
        old = self.former
        fields = {} if old is None else {
            "old_log": old.log_id, "old_size": old.size, "old_root": old.root, "old_last": old.last,
            "reason": old.reason, "old_checkpoint": old.checkpoint,
        }  # fmt: skip
        return make_body(EntryType.LOG_OPEN, k=self.k, **_credential_fields(self.credentials), **fields)

    @classmethod
    def read(cls, body: Body) -> "LogOpen":
        """Raises Refused: MALFORMED, UNSUPPORTED."""
        found = read_body(EntryType.LOG_OPEN, body)
        old = [found[name] for name in ("old_log", "old_size", "old_root", "old_last", "reason")]
        if any((value is None) != (found["k"] == 0) for value in old):
            malformed("a log names the one before, unless it is the first")
        former = None
        if found["k"] > 0:
            shown = found["old_checkpoint"]
            former = Former(log_id=old[0], size=old[1], root=old[2], last=old[3], reason=old[4], checkpoint=shown)
        return cls(k=found["k"], credentials=_credentials(found), former=former)


def endorsement_body(credentials: Credentials) -> Body:
    """The endorsement under which the log goes on."""
    return make_body(EntryType.ENDORSEMENT, **_credential_fields(credentials))


def read_credentials(entry_type: int, body: Body) -> Credentials:
    """What an entry that carries keys shows, not verified. Raises Refused: MALFORMED, UNSUPPORTED."""
    if entry_type == EntryType.LOG_OPEN:
        return LogOpen.read(body).credentials
    return _credentials(read_body(EntryType.ENDORSEMENT, body))


def _credential_fields(credentials: Credentials) -> dict[str, Any]:
    return {"endorsement": credentials.endorsement, "leaf": credentials.leaf, "chain": list(credentials.chain)}


def _credentials(found: Mapping[str, Any]) -> Credentials:
    return Credentials(found["endorsement"], found["leaf"], tuple(found["chain"]))


# --- what a node says of itself and of others -------------------------------------------------------------------------


def lifecycle(event: str, *, version: str | None = None, detail: str | None = None) -> Body:
    """The node itself: "started", "stopped"."""
    return make_body(EntryType.LIFECYCLE, event=event, version=version, detail=detail)


def admission(peer: NodeId, kid: bytes, *, level: int, evidence: int) -> Body:
    """A member was let in: under which endorsement, at which level (0 to 5), on which EvidenceKind."""
    return make_body(EntryType.ADMISSION, peer=peer, kid=kid, level=level, evidence=int(evidence))


def refusal(peer: NodeId | None, reason: int, *, minute: int, count: int = 1) -> Body:
    """How often someone was turned away in a minute (Unix time / 60). Strangers count together, without a peer."""
    return make_body(EntryType.REFUSAL, peer=peer, reason=int(reason), minute=minute, count=count)


def drift(peer: NodeId, reason: Reason, *, detail: str | None = None) -> Body:
    """A member had been admitted, and what it runs is not good any more."""
    return make_body(EntryType.DRIFT, peer=peer, reason=int(reason), detail=detail)


def fork(node: NodeId, kind: int, proof_hash: bytes, *, detail: str | None = None) -> Body:
    """A node has told two stories: of which ForkKind, and the hash of the proof."""
    return make_body(EntryType.FORK, node=node, kind=int(kind), proof_hash=proof_hash, detail=detail)


def enrolment(node: NodeId, name: str, roles: tuple[str, ...]) -> Body:
    """A request for membership was accepted."""
    return make_body(EntryType.ENROLMENT, node=node, name=name, roles=list(roles))


def issuance(node: NodeId, serial: int, leaf_hash: bytes, not_after: int) -> Body:
    """We gave a share of a certificate's signature. `leaf_hash`: SHA-256 of what was signed; `not_after` in Unix seconds."""
    number = serial.to_bytes(20, "big")
    return make_body(EntryType.ISSUANCE, node=node, serial=number, leaf_hash=leaf_hash, not_after=not_after)


def order(operator: NodeId, kind: int, number: int, order_hash: bytes) -> Body:
    """An operator's order counts from now on here; `kind` is its OrderKind."""
    return make_body(EntryType.ORDER, operator=operator, kind=kind, number=number, order_hash=order_hash)


def revocation(number: int, list_hash: bytes, nodes: Iterable[NodeId]) -> Body:
    """Another revocation list is in force here; `nodes`: those that it adds, the first so many."""
    return make_body(EntryType.REVOCATION, number=number, list_hash=list_hash, nodes=list(nodes)[:REVOKED_MAX])


def policy(version: int, policy_hash: bytes) -> Body:
    """Another policy is in force here."""
    return make_body(EntryType.POLICY, version=version, policy_hash=policy_hash)


def witnesses(nodes: Iterable[NodeId]) -> Body:
    """Who witnesses this log from here on."""
    return make_body(EntryType.WITNESSES, nodes=list(nodes))


def authority(number: int, object_hash: bytes) -> Body:
    """Another authority object is in force here."""
    return make_body(EntryType.AUTHORITY, number=number, object_hash=object_hash)


# --- what users say ---------------------------------------------------------------------------------------------------


def application(kind: str, value: Any = None) -> Body:
    """A user's entry: text keys and floats live only inside the JSON string, keys sorted.

    Raises:
        UsageError: `kind` is empty or longer than 128 bytes, or JSON cannot hold `value`.
    """
    if not kind or len(kind.encode(errors="replace")) > APPLICATION_TYPE_MAX:
        raise UsageError(f"the type of an entry has 1 to {APPLICATION_TYPE_MAX} bytes")
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        body: Body = {0: kind, 1: text.encode()}
        read_application(body)  # keys that are numbers sort as numbers and are written as text
    except (TypeError, ValueError, RecursionError, Refused) as error:
        raise UsageError(f"the value of an entry must be JSON: {error}", hint="use text keys in maps") from None
    return body


def read_application(body: Body) -> tuple[str, Any]:
    """Type and value of a user's entry. Raises Refused(MALFORMED)."""
    if set(body) != {0, 1}:
        malformed("an application entry has a type and a value")
    for kind, field in zip(_APPLICATION, (body[0], body[1]), strict=True):
        kind.check(field)
    try:
        value = json.loads(body[1].decode(), parse_constant=_no_constant, object_pairs_hook=_sorted_map)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could not be shown
    except (ValueError, RecursionError):
        malformed("the value of an application entry is not JSON")
    if not _shallow(value, VALUE_DEPTH_MAX):
        malformed("the value of an application entry is nested too deep")
    return body[0], value


def _shallow(value: object, depth: int) -> bool:
    """Whether no list or map in it lies deeper than so many others: whoever shows it may recurse."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inside is None or (depth > 0 and all(_shallow(one, depth - 1) for one in inside))


def _sorted_map(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """One meaning only: keys are sorted, none is there twice."""
    keys = [key for key, _ in pairs]
    if keys != sorted(set(keys)):
        malformed("the keys of a value are not sorted, or one is there twice")
    return dict(pairs)


def _no_constant(name: str) -> None:
    malformed(f"{name} is not JSON")


# --- for people -------------------------------------------------------------------------------------------------------


def describe(entry_type: int, body: Body) -> dict[str, Any]:
    """A body as JSON can show it: node ids in base32, reasons by name, other bytes in hex. Never raises for a body."""
    try:
        if entry_type == EntryType.APPLICATION:
            kind, value = read_application(body)
            return {"type": kind, "value": value}
        fields = read_body(EntryType(entry_type), body)
    except (Refused, ValueError, KeyError):
        return {"unreadable": _show(body)}
    return {name: _show_field(name, value) for name, value in fields.items() if value is not None}


def _show_field(name: str, value: Any) -> Any:
    if name in _NODES:
        return base32(value)
    if name == "carried":
        return f"{len(value)} bytes"
    if name in _LISTS_OF_NODES:
        return [base32(node) for node in value]
    if name in _WORDS and isinstance(value, int):
        words = _WORDS[name]
        return words(value).name.lower() if value in words._value2member_map_ else value
    return _show(value)


def _show(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): _show(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_show(item) for item in value]
    return value
