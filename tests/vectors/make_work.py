"""Vectors of signed work, by hand: workloads of one and of two signers, placements, results."""

from collections.abc import Iterator
from typing import Any

from tests.vectors.by_hand import sha256
from tests.vectors.cose_by_hand import cbor, ed25519, fields, protected, sign1, to_be_signed
from tests.vectors.make_messages import changed
from tests.vectors.vector_kit import ALICE, AT, BOB, MESH, OTHER_ALICE, OTHER_MESH, Json, private, value

LABELS = {
    "workload": b"overlay/1 workload\0", "placement": b"overlay/1 placement\0", "result": b"overlay/1 work result\0",
}  # fmt: skip
WORKLOAD: list[Any] = [
    bytes(ALICE.node_id), value("workload id", 16), "report", AT, AT + 3600, [sha256(b"program"), 7, 1], ["-v", "two words"],
    [["LANG", "C"], ["TZ", "UTC"]], [60, 2**26, 8, 2**20, False], [["table.csv", sha256(b"a,b"), 3]], ["chart.svg"], 2,
    [[], ["night"]], [[bytes(BOB.node_id)], []], 3, None,
]  # fmt: skip
OF_TWO = [*WORKLOAD[:-1], bytes(BOB.node_id)]


def signed(kind: str, values: list[Any], **changes: Any) -> tuple[Json, bytes]:
    """All values of one by alice, and its bytes."""
    kid, payload = changes.get("kid", ALICE.kid), changes.get("payload", fields(*values))
    aad = LABELS[changes.get("label", kind)] + changes.get("mesh_id", MESH.mesh_id)
    to_sign = to_be_signed(payload, aad, kid)
    signature = ed25519(changes.get("private", private(ALICE, "message")), to_sign)
    raw = sign1(payload, signature, kid)
    return {"aad": aad, "payload": payload, "to_be_signed": to_sign, "signature": signature, "hash": sha256(raw)}, raw


PLACEMENT: list[Any] = [
    bytes(ALICE.node_id), sha256(signed("workload", WORKLOAD)[1]), 1, bytes(BOB.node_id), AT, AT + 300, value("nonce", 16)
]
RESULT: list[Any] = [
    bytes(ALICE.node_id), sha256(signed("placement", PLACEMENT)[1]), PLACEMENT[1], 1, 1, 0, None, AT * 1000, AT * 1000 + 1500,
    [["chart.svg", sha256(b"<svg/>"), 6], ["stderr", sha256(b""), 0], ["stdout", sha256(b"done"), 4]],
]  # fmt: skip
FORMS = {"workload": WORKLOAD, "placement": PLACEMENT, "result": RESULT}


def tagged(item: Any) -> Any:
    """For JSON: bytes as {"hex": ...}, all the way down; all else as it is."""
    if isinstance(item, list):
        return [tagged(one) for one in item]
    return {"hex": item.hex()} if isinstance(item, bytes) else item


def of_two(
    values: list[Any], *, order: int = 1, label: bytes = LABELS["workload"], context: str = "Signature"
) -> tuple[Json, bytes]:
    """By alice and bob: COSE_Sign, RFC 9052, sections 4.1 and 4.4."""
    payload, rows, to_sign = fields(*values), [], []
    for member in (ALICE, BOB)[::order]:
        head = [] if context == "Signature1" else [b""]
        to_sign.append(cbor([context, *head, protected(member.kid), label + MESH.mesh_id, payload]))
        rows.append([protected(member.kid), {}, ed25519(private(member, "message"), to_sign[-1])])
    raw = b"\xd8\x62" + cbor([b"", {}, payload, rows])
    return {"payload": payload, "to_be_signed": to_sign, "signatures": [row[2] for row in rows], "hash": sha256(raw)}, raw


def work() -> Iterator[Json]:
    for kind, values in FORMS.items():
        found, raw = signed(kind, values)
        yield {"name": kind, "expect": "ok", "kind": kind, "fields": tagged(values), "values": found, "raw": raw}
        yield from refused(kind, values, raw)
    found, raw = of_two(OF_TWO)
    yield {"name": "workload of two", "expect": "ok", "kind": "workload of two", "values": found, "raw": raw}
    for name, expect, wrong in (
        ("signatures in the other order", "wrong_author", of_two(OF_TWO, order=-1)[1]),
        ("signed as a placement", "bad_signature", of_two(OF_TWO, label=LABELS["placement"])[1]),
        ("signed as one alone would", "bad_signature", of_two(OF_TWO, context="Signature1")[1]),
        ("that names no second signer", "malformed", of_two(WORKLOAD)[1]),
        ("under one signature", "malformed", signed("workload", OF_TWO)[1]),
        ("whose second signer is the first", "malformed", of_two([*WORKLOAD[:-1], bytes(ALICE.node_id)])[1]),
    ):
        yield {"name": f"workload of two: {name}", "expect": expect, "kind": "workload of two", "raw": wrong}
    yield from of_other_forms()


def refused(kind: str, values: list[Any], raw: bytes) -> Iterator[Json]:
    """What every kind refuses."""
    other = next(name for name in FORMS if name != kind)
    for name, expect, wrong in (
        ("a bit of the signature", "bad_signature", raw[:-1] + bytes([raw[-1] ^ 1])),
        ("signed for another mesh", "bad_signature", signed(kind, values, mesh_id=OTHER_MESH.mesh_id)[1]),
        (f"signed as a {other}", "bad_signature", signed(kind, values, label=other)[1]),
        ("signed by another key", "bad_signature", signed(kind, values, private=private(BOB, "message"))[1]),
        ("under another endorsement", "wrong_author", signed(kind, values, kid=OTHER_ALICE.kid)[1]),
        ("in the name of another node", "wrong_author", signed(kind, changed(values, 1, bytes(BOB.node_id)))[1]),
        ("a field too many", "malformed", signed(kind, [*values, *[None] * (16 - len(values)), 1])[1]),
        ("another format number", "unsupported", signed(kind, [], payload=b"\xa1\0\2")[1]),
    ):
        yield {"name": f"{kind}: {name}", "expect": expect, "kind": kind, "raw": wrong}


def of_other_forms() -> Iterator[Json]:
    """What means nothing, or leads somewhere else."""
    cases: list[tuple[str, str, int, Any]] = [
        ("an input in the folder above", "workload", 10, [["../table.csv", bytes(32), 3]]),
        ("an output with a path", "workload", 11, ["a/b"]), ("an output called stdout", "workload", 11, ["stdout"]),
        ("outputs that are not sorted", "workload", 11, ["b", "a"]),
        ("two names that differ in case", "workload", 11, ["A", "a"]),
        ("a zero byte in an argument", "workload", 7, ["a\0b"]),
        ("variables that are not sorted", "workload", 8, [["B", ""], ["A", ""]]),
        ("a workload that lives too long", "workload", 5, AT + 86_401), ("no runs", "workload", 15, 0),
        ("a list of nobody", "workload", 13, [[], []]), ("an unknown type of artifact", "workload", 6, [bytes(32), 7, 99]),
        ("run 0", "placement", 3, 0), ("a placement that lives too long", "placement", 6, AT + 3601),
        ("a result without the number that its state asks for", "result", 6, None), ("an unknown state", "result", 5, 99),
        ("a run that ended before it began", "result", 9, AT * 1000 - 1),
    ]  # fmt: skip
    for name, kind, place, item in cases:
        raw = signed(kind, changed(FORMS[kind], place, item))[1]
        yield {"name": name, "expect": "malformed", "kind": kind, "raw": raw}
