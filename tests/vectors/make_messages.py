"""Vectors of signed messages, by hand: calls, replies, segments, publications, batches."""

from collections.abc import Iterator
from typing import Any

from tests.vectors.by_hand import lv, sha256
from tests.vectors.cose_by_hand import cbor, ed25519, fields, merkle_path, merkle_root, protected, sign1, to_be_signed
from tests.vectors.vector_kit import ALICE, AT, BOB, H1, MESH, OTHER_ALICE, OTHER_MESH, Json, private, value

LABELS = {
    "call": b"overlay/1 call\0", "reply": b"overlay/1 reply\0", "segment": b"overlay/1 segment\0",
    "publish": b"overlay/1 publish\0", "batch": b"overlay/1 batch\0",
}  # fmt: skip
STREAM, OPENING = 3, sha256(b"overlay test vector opening call")
HLC = AT * 1000 << 16
FORMS: dict[str, list[Any]] = {
    "call": [bytes(ALICE.node_id), bytes(BOB.node_id), value("call id", 16), H1, "greet", AT * 1000 + 30_000, b"hello"],
    "reply": [bytes(ALICE.node_id), bytes(BOB.node_id), sha256(b"overlay test vector call"), 0, True, 0, b"good day"],
    "segment": [
        bytes(ALICE.node_id), bytes(BOB.node_id), H1, STREAM, OPENING, 2, 3_000_000, value("BLAKE3 of the prefix"), False
    ],
    "publish": [
        bytes(ALICE.node_id), "news", sha256(b"overlay/1 topic\0", MESH.mesh_id, ALICE.node_id, value("log", 16), b"news")[:16],
        0, bytes(32), HLC, b"stop press",
    ],
}  # fmt: skip
MESSAGES = [lv(topic) + body for topic, body in ((b"news", b"one"), (b"news", b"two"), (b"weather", b""), (b"news", b"3"))]


def message(
    kind: str, values: list[Any], *, mesh_id: bytes = MESH.mesh_id, label: str = "", **changes: Any
) -> tuple[Json, bytes]:
    """All values of a signed message, and its bytes."""
    kid = changes.get("kid", ALICE.kid)
    payload = changes.get("payload", fields(*values))
    aad = LABELS[label or kind] + mesh_id
    signed = to_be_signed(payload, aad, kid)
    signature = ed25519(changes.get("private", private(ALICE, "message")), signed)
    found = {"aad": aad, "payload": payload, "protected": protected(kid), "to_be_signed": signed, "signature": signature}
    return found, sign1(payload, signature, kid)


def batch(messages: list[bytes] | None = None, **head: Any) -> tuple[Json, bytes, bytes]:
    """All values of a batch, its bytes and those of its head."""
    said = MESSAGES if messages is None else messages
    leaves = [sha256(b"\0", one) for one in said]
    values = [bytes(ALICE.node_id), b"overlay/1 transient\0", HLC, len(said), merkle_root(leaves)]
    for place, item in head.items():
        values[int(place[1:]) - 1] = item
    found, raw = message("batch", values)
    return found | {"leaves": leaves, "root": values[-1]}, fields(raw, said), raw


def changed(values: list[Any], place: int, item: Any) -> list[Any]:
    return [*values[: place - 1], item, *values[place:]]


def messages() -> Iterator[Json]:
    for kind, values in FORMS.items():
        yield good(kind, kind, values)
        yield from refused(kind, values, message(kind, values)[1])
    call, reply, segment = (FORMS[kind] for kind in ("call", "reply", "segment"))
    yield good("call without a deadline", "call", changed(call, 6, 0))
    yield good("reply, the third part of an answer", "reply", changed(changed(reply, 4, 2), 5, False))
    yield good("reply of a handler that failed", "reply", changed(changed(reply, 6, 1), 7, fields("KeyError", "no such door")))
    yield good("segment, the final one", "segment", changed(segment, 9, True))
    own: list[tuple[str, str, str, list[Any]]] = [
        ("call to somebody else", "wrong_recipient", "call", changed(call, 2, value("node"))),
        ("call of another link", "wrong_link", "call", changed(call, 4, value("h"))),
        ("reply with an unknown status", "malformed", "reply", changed(reply, 6, 200)),
        ("reply of a handler that failed, without its form", "malformed", "reply", changed(reply, 6, 1)),
        ("reply whose final is a number", "malformed", "reply", changed(reply, 5, 1)),
        ("segment of another stream", "wrong_link", "segment", changed(segment, 4, STREAM + 2)),
        ("segment of another opening call", "wrong_link", "segment", changed(segment, 5, value("opening"))),
        ("publication outside the life of its endorsement", "not_in_force", "publish", changed(FORMS["publish"], 6, 1)),
        ("publication on a topic without a name", "malformed", "publish", changed(FORMS["publish"], 2, "")),
    ]
    for name, expect, kind, values in own:
        yield {"name": name, "expect": expect, "kind": kind, "raw": message(kind, values)[1]}
    yield from batches()


def good(name: str, kind: str, values: list[Any]) -> Json:
    found, raw = message(kind, values)
    return {"name": name, "expect": "ok", "kind": kind, "fields": tagged(values), "values": found, "raw": raw}


def refused(kind: str, values: list[Any], raw: bytes) -> Iterator[Json]:
    """What every kind refuses."""
    payload, signature = fields(*values), raw[-64:]
    other = next(name for name in FORMS if name != kind)
    cases: list[tuple[str, str, bytes]] = [
        ("a bit of the signature", "bad_signature", raw[:-1] + bytes([raw[-1] ^ 1])),
        ("a bit of the payload", "bad_signature", sign1(payload[:-1] + bytes([payload[-1] ^ 1]), signature, ALICE.kid)),
        ("signed for another mesh", "bad_signature", message(kind, values, mesh_id=OTHER_MESH.mesh_id)[1]),
        (f"signed as a {other}", "bad_signature", message(kind, values, label=other)[1]),
        ("signed by another key", "bad_signature", message(kind, values, private=private(BOB, "message"))[1]),
        ("under another endorsement", "wrong_author", message(kind, values, kid=OTHER_ALICE.kid)[1]),
        ("in the name of another node", "wrong_author", message(kind, changed(values, 1, bytes(BOB.node_id)))[1]),
        ("without its tag", "malformed", raw[1:]),
        ("algorithm -19", "malformed", sign1(payload, signature, ALICE.kid, -19)),
        ("without a kid", "malformed", sign1(payload, signature, None)),
        ("unprotected header", "malformed", b"\xd2" + cbor([protected(ALICE.kid), {4: b"x"}, payload, signature])),
        ("detached payload", "malformed", b"\xd2\x84" + cbor(protected(ALICE.kid)) + b"\xa0\xf6" + cbor(signature)),
        ("a byte after the end", "malformed", raw + b"\0"),
        ("a field too many", "malformed", message(kind, [*values, 1])[1]),
        ("a field missing", "malformed", message(kind, values[:-1])[1]),
        ("another format number", "unsupported", message(kind, [], payload=b"\xa1\0\2")[1]),
        ("format number in two bytes", "malformed", message(kind, [], payload=payload[:1] + b"\0\x18\1" + payload[3:])[1]),
        ("keys out of order", "malformed", message(kind, [], payload=b"\xa2\1\0\0\1")[1]),
        ("indefinite length", "malformed", message(kind, [], payload=b"\xbf\0\1\xff")[1]),
        ("a float", "malformed", message(kind, [], payload=b"\xa2\0\1\1\xf9\0\0")[1]),
    ]
    for name, expect, wrong in cases:
        yield {"name": f"{kind}: {name}", "expect": expect, "kind": kind, "raw": wrong}


def batches() -> Iterator[Json]:
    found, raw, head_raw = batch()
    yield {
        "name": "batch", "expect": "ok", "kind": "batch", "messages": MESSAGES, "values": found, "raw": raw
    }  # fmt: skip
    for index, said in enumerate(MESSAGES):
        path = merkle_path(found["leaves"], index)
        yield {
            "name": f"message {index} of the batch, alone", "expect": "ok", "kind": "proof", "values": {"path": path},
            "raw": fields(head_raw, index, path, said),
        }  # fmt: skip
    path, other_path = merkle_path(found["leaves"], 1), merkle_path(found["leaves"], 2)
    wrong: list[tuple[str, str, str, bytes]] = [
        ("batch: messages in another order", "chain_broken", "batch", fields(head_raw, MESSAGES[::-1])),
        ("batch: a message less", "chain_broken", "batch", fields(head_raw, MESSAGES[:-1])),
        ("batch: a message more", "chain_broken", "batch", fields(head_raw, [*MESSAGES, MESSAGES[0]])),
        ("batch: another count", "chain_broken", "batch", batch(f4=5)[1]),
        ("batch: another root", "chain_broken", "batch", batch(f5=value("root"))[1]),
        ("batch: of another kind", "malformed", "batch", batch(f2=b"overlay/1 publish\0")[1]),
        ("batch: in the name of another node", "wrong_author", "batch", batch(f1=bytes(BOB.node_id))[1]),
        ("batch: before its endorsement", "not_in_force", "batch", batch(f3=1)[1]),
        ("batch: a message that is none", "malformed", "batch", batch([b"\0\5new"])[1]),
        ("batch: a topic that is no text", "malformed", "batch", batch([b"\0\1\xff"])[1]),
        ("proof: another message", "chain_broken", "proof", fields(head_raw, 1, path, MESSAGES[0])),
        ("proof: another place", "chain_broken", "proof", fields(head_raw, 2, path, MESSAGES[1])),
        ("proof: another path", "chain_broken", "proof", fields(head_raw, 1, other_path, MESSAGES[1])),
        ("proof: path too short", "chain_broken", "proof", fields(head_raw, 1, path[:1], MESSAGES[1])),
        ("proof: path too long", "chain_broken", "proof", fields(head_raw, 1, [*path, path[0]], MESSAGES[1])),
        ("proof: outside the batch", "chain_broken", "proof", fields(head_raw, 4, path, MESSAGES[1])),
    ]
    for name, expect, kind, data in wrong:
        yield {"name": name, "expect": expect, "kind": kind, "raw": data}


def tagged(values: list[Any]) -> list[Any]:
    """Fields for JSON: bytes as {"hex": ...}, all else as it is."""
    return [{"hex": item.hex()} if isinstance(item, bytes) else item for item in values]
