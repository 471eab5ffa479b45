"""What passes over the control socket: one JSON object a line, and the values and errors of a node as JSON and back."""

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, NoReturn

from overlay.app.api import EntryFilter, EntryReceipt, EntryView, Published, TopicItem
from overlay.app.json_text import bytes_as_hex, finite
from overlay.core.keys import NodeId
from overlay.core.limits import BODY_MAX
from overlay.errors import (
    CheckFailed,
    DeadlineExceeded,
    HostLacks,
    NotAllowed,
    NoWitnesses,
    OverlayError,
    PeerUnreachable,
    Refused,
    RemoteError,
    StateDamaged,
    UsageError,
)
from overlay.net.request import PeerInfo
from overlay.net.statistics import ChainStatistics, LinkStatistics, NodeStatistics, ServiceStatistics
from overlay.registry import Reason

LINE_MAX: Final = 4 * 1024 * 1024  # a body of 1 MiB takes 1.4 MiB as base64; the status of a large mesh less
DEPTH_MAX: Final = 64  # our guess
SECONDS_MAX: Final = 86_400.0  # our guess: nobody waits longer than a day

# The classes that travel as what they are; all others arrive as OverlayError.
_CLASSES: Final = {
    cls.__name__: cls
    for cls in (
        PeerUnreachable, DeadlineExceeded, NotAllowed, NoWitnesses, CheckFailed, UsageError, HostLacks, StateDamaged
    )
}


def malformed(detail: str) -> NoReturn:
    """Refuse what came over the socket."""
    raise Refused(Reason.MALFORMED, detail, hint="both sides of the control socket must be of the same release")


# --- lines ----------------------------------------------------------------------------------------------------------


def pack(message: Mapping[str, Any]) -> bytes:
    """One line. Raises Refused(TOO_LARGE)."""
    line = json.dumps(finite(message), separators=(",", ":"), allow_nan=False, default=bytes_as_hex).encode() + b"\n"
    if len(line) > LINE_MAX:
        raise Refused(Reason.TOO_LARGE, f"{len(line)} bytes where {LINE_MAX} fit through the control socket")
    return line


def unpack(line: bytes) -> dict[str, Any]:
    """The object on a line: strict JSON (RFC 8259), text that is Unicode, limited depth. Raises Refused(MALFORMED)."""
    try:
        value = json.loads(line, parse_constant=_no_constant)
        if b"\\ud" in line.lower():
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate does not survive this
    except (ValueError, RecursionError):
        malformed("not a line of JSON")
    if not isinstance(value, dict) or not _shallow(value, DEPTH_MAX):
        malformed("not an object of JSON, or nested too deeply")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(text)


def _shallow(value: object, depth: int) -> bool:
    if depth == 0:
        return False
    if isinstance(value, dict):
        value = list(value.values())
    return all(_shallow(part, depth - 1) for part in value) if isinstance(value, list) else True


# --- fields ---------------------------------------------------------------------------------------------------------


def text_of(message: Mapping[str, Any], key: str, *, limit: int = 4096) -> str:
    """A text field. Raises Refused(MALFORMED)."""
    value = message.get(key)
    return value if isinstance(value, str) and len(value) <= limit else malformed(key)


def number_of(message: Mapping[str, Any], key: str) -> int:
    """A whole number from 0. Raises Refused(MALFORMED)."""
    value = message.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else malformed(key)


def seconds_of(message: Mapping[str, Any], key: str) -> float:
    """Positive seconds, at most a day. Raises Refused(MALFORMED)."""
    value = message.get(key)
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= SECONDS_MAX
    return float(value) if good and value is not None else malformed(key)


def texts_of(message: Mapping[str, Any], key: str, *, most: int = 256) -> tuple[str, ...]:
    """A list of texts. Raises Refused(MALFORMED)."""
    value = message.get(key)
    good = isinstance(value, list) and len(value) <= most and all(isinstance(one, str) and len(one) <= 4096 for one in value)
    return tuple(value) if isinstance(value, list) and good else malformed(key)


def truth_of(message: Mapping[str, Any], key: str) -> bool:
    """True or false. Raises Refused(MALFORMED)."""
    value = message.get(key)
    return value if isinstance(value, bool) else malformed(key)


def bytes_of(message: Mapping[str, Any], key: str) -> bytes:
    """A body in base64, at most 1 MiB. Raises Refused(MALFORMED or TOO_LARGE)."""
    try:
        data = base64.b64decode(text_of(message, key, limit=LINE_MAX), validate=True)
    except (binascii.Error, ValueError):
        malformed(key)
    if len(data) > BODY_MAX:
        raise Refused(Reason.TOO_LARGE, f"a body of {len(data)} bytes where {BODY_MAX} are allowed")
    return data


def base64_text(data: bytes) -> str:
    """What `bytes_of` reads."""
    return base64.b64encode(data).decode()


def node_id_of(message: Mapping[str, Any], key: str) -> NodeId:
    """A node id in base32. Raises Refused(MALFORMED)."""
    try:
        return NodeId.parse(text_of(message, key))
    except ValueError:
        malformed(key)


def _hex_of(message: Mapping[str, Any], key: str) -> bytes:
    try:
        return bytes.fromhex(text_of(message, key))
    except ValueError:
        malformed(key)


def _time_of(message: Mapping[str, Any], key: str) -> datetime:
    try:
        return datetime.fromisoformat(text_of(message, key))
    except ValueError:
        malformed(key)


# --- values ---------------------------------------------------------------------------------------------------------


def peer_fields(peer: PeerInfo) -> dict[str, Any]:
    """Who someone is."""
    return {"name": peer.name, "node": str(peer.node_id), "roles": list(peer.roles), "level": peer.level}


def read_peer(value: Any) -> PeerInfo:
    """Raises Refused(MALFORMED)."""
    if not isinstance(value, dict) or not isinstance(value.get("roles"), list):
        malformed("peer")
    roles = tuple(str(role) for role in value["roles"])
    return PeerInfo(node_id_of(value, "node"), text_of(value, "name"), roles, number_of(value, "level"))


def published_fields(published: Published) -> dict[str, Any]:
    """Where a publication stands."""
    return {"topic": published.topic, "seq": published.seq, "peers": published.peers}


def read_published(value: Mapping[str, Any]) -> Published:
    """Raises Refused(MALFORMED)."""
    seq = None if value.get("seq") is None else number_of(value, "seq")
    return Published(topic=text_of(value, "topic"), seq=seq, peers=number_of(value, "peers"))


def item_fields(item: TopicItem) -> dict[str, Any]:
    """A publication."""
    return {
        "topic": item.topic, "author": peer_fields(item.author), "seq": item.seq, "at": item.at.isoformat(),
        "body": base64_text(item.body),
    }


def read_item(value: Mapping[str, Any]) -> TopicItem:
    """Raises Refused(MALFORMED or TOO_LARGE)."""
    seq = None if value.get("seq") is None else number_of(value, "seq")
    return TopicItem(
        topic=text_of(value, "topic"), author=read_peer(value.get("author")), seq=seq, at=_time_of(value, "at"),
        body=bytes_of(value, "body"),
    )


def receipt_fields(receipt: EntryReceipt) -> dict[str, Any]:
    """Which entry."""
    return {
        "node": str(receipt.node_id), "log": receipt.log_id.hex(), "seq": receipt.seq, "hash": receipt.hash.hex()
    }


def read_receipt(value: Mapping[str, Any]) -> EntryReceipt:
    """Raises Refused(MALFORMED)."""
    return EntryReceipt(
        node_id=node_id_of(value, "node"), log_id=_hex_of(value, "log"), seq=number_of(value, "seq"),
        hash=_hex_of(value, "hash"),
    )


def entry_fields(entry: EntryView) -> dict[str, Any]:
    """An entry."""
    return {
        "node": str(entry.node_id), "name": entry.node_name, "log": entry.log_id.hex(), "seq": entry.seq,
        "hash": entry.hash.hex(), "at": entry.at.isoformat(), "type": entry.type, "body": entry.body,
        **({"unproven": True} if entry.unproven else {}),
    }


def read_entry(value: Mapping[str, Any]) -> EntryView:
    """Raises Refused(MALFORMED)."""
    body = value.get("body")
    return EntryView(
        node_id=node_id_of(value, "node"), node_name=text_of(value, "name"), log_id=_hex_of(value, "log"),
        seq=number_of(value, "seq"), hash=_hex_of(value, "hash"), at=_time_of(value, "at"),
        type=text_of(value, "type"), body=body if isinstance(body, dict) else malformed("body"),
        unproven=value.get("unproven") is True,
    )


def filter_fields(only: EntryFilter | None) -> dict[str, Any]:
    """A filter; what it leaves out is absent."""
    if only is None:
        return {}
    times = {"since": only.since, "until": only.until}
    found = {name: at.isoformat() for name, at in times.items() if at is not None}
    return {**found, **({"types": list(only.types)} if only.types else {}), **({"text": only.text} if only.text else {})}


def read_filter(value: Mapping[str, Any]) -> EntryFilter:
    """Raises Refused(MALFORMED)."""
    since, until = (_time_of(value, name) if value.get(name) is not None else None for name in ("since", "until"))
    types = texts_of(value, "types") if value.get("types") is not None else ()
    text = text_of(value, "text") if value.get("text") is not None else ""
    if any(at is not None and at.tzinfo is None for at in (since, until)):
        malformed("a time without a zone")
    return EntryFilter(types=tuple(types), since=since, until=until, text=text)


def read_statistics(value: Mapping[str, Any]) -> NodeStatistics:
    """From `NodeStatistics.fields()`. Raises Refused(MALFORMED)."""
    try:
        links = tuple(LinkStatistics(**_endless(LinkStatistics, link)) for link in value["links"])
        chains = tuple(ChainStatistics(**chain) for chain in value["chains"])
        services = tuple(ServiceStatistics(**service) for service in value["services"])
        rest = {**value, "links": links, "chains": chains, "services": services}
        rest |= {name: tuple(value[name]) for name in ("roles", "exposed", "warnings")}
        return NodeStatistics(**rest)
    except (TypeError, KeyError):
        malformed("status")


def _endless(kind: type[Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """`null` where a float belongs was infinity."""
    floats = {one.name for one in fields(kind) if one.type in (float, "float")}
    return {key: math.inf if part is None and key in floats else part for key, part in value.items()}


# --- errors ---------------------------------------------------------------------------------------------------------


def error_fields(error: OverlayError) -> dict[str, Any]:
    """An error as it travels."""
    found: dict[str, Any] = {"class": type(error).__name__, "message": str(error), "hint": error.hint}
    if isinstance(error, Refused):
        found |= {"reason": error.reason.name, "detail": error.detail}
    if isinstance(error, RemoteError):
        found["kind"] = error.kind
    return found


def read_error(value: Any) -> OverlayError:
    """The same class, message and hint, ready to be raised; OverlayError where the class is not known here."""
    if not isinstance(value, dict):
        malformed("error")
    name, message, hint = text_of(value, "class"), text_of(value, "message", limit=LINE_MAX), str(value.get("hint", ""))
    if name == "Refused" and value.get("reason") in Reason.__members__:
        return Refused(Reason[value["reason"]], str(value.get("detail", "")), hint=hint)
    if name == "RemoteError":
        return RemoteError(message, hint=hint, kind=str(value.get("kind", "")))
    return _CLASSES.get(name, OverlayError)(message, hint=hint)
