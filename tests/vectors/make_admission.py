"""Vectors of admission, by hand: what a proof signs, and what evidence is bound to."""

from collections.abc import Iterator
from typing import Any

from tests.vectors.by_hand import sha256
from tests.vectors.cose_by_hand import (
    attest_leaf,
    bind,
    ed25519,
    fields,
    merkle_path,
    merkle_root,
    proof_input,
    qualifying_data,
    sign1,
    to_be_signed,
)
from tests.vectors.vector_kit import ALICE, BOB, H1, MESH, Json, private, value


def facts(prover: int, **changes: bytes) -> list[bytes]:
    """What a proof covers; alice is the opener."""
    own, peer = (ALICE, BOB) if prover == 1 else (BOB, ALICE)
    found = {
        "mesh_id": bytes(MESH.mesh_id), "h": H1, "role": bytes([prover]), "own_leaf": sha256(own.credentials.leaf),
        "own_endorsement": own.kid, "peer_leaf": sha256(peer.credentials.leaf), "peer_endorsement": peer.kid,
        "nonce": value("nonce"),
    }  # fmt: skip
    return list((found | changes).values())


def proof(prover: int, evidence: bytes, *, shown: bytes = b"", **changes: bytes) -> tuple[Json, bytes]:
    """All values of a PROOF, and its body; the signature may be about something else than what is shown."""
    signed = proof_input(facts(prover, **changes), evidence)
    signature = ed25519(private(ALICE if prover == 1 else BOB, "message"), signed)
    return {"to_sign": signed, "signature": signature}, fields(signature, b"claims", shown or evidence)


def evidence(prover: int, others: int, **changes: Any) -> tuple[Json, bytes]:
    """All values of software evidence, in a tree with others' bindings, and its packed form."""
    attester, verifier = (ALICE, BOB) if prover == 1 else (BOB, ALICE)
    epoch = changes.get("epoch", 1)
    parts = [
        bytes(MESH.mesh_id), changes.get("h", H1), bytes([changes.get("role", prover)]), sha256(attester.credentials.leaf),
        changes.get("verifier_leaf", sha256(verifier.credentials.leaf)), changes.get("nonce", value("nonce")),
    ]  # fmt: skip
    bound = bind(parts, epoch, changes.get("claims", b"claims"))
    leaf = attest_leaf(bound)
    leaves = sorted([leaf, *(attest_leaf(value(f"binding {number}")) for number in range(others))])
    index, root = leaves.index(leaf), merkle_root(leaves)
    data, path = qualifying_data(len(leaves), root), merkle_path(leaves, index)
    aad = b"overlay/1 software evidence\0" + MESH.mesh_id
    payload = fields(data)
    signed = to_be_signed(payload, aad, attester.kid)
    signature = ed25519(private(attester, "message"), signed)
    quote = sign1(payload, signature, attester.kid)
    place = changes.get("index", index), changes.get("path", path)
    values = {
        "bind": bound, "leaf": leaf, "leaves": leaves, "index": index, "path": path, "root": root, "qualifying_data": data,
        "payload": payload, "to_be_signed": signed, "signature": signature, "quote": quote,
    }  # fmt: skip
    return values, fields(len(leaves), *place, b"", quote, b"")


def admission() -> Iterator[Json]:
    packed = evidence(1, 0)[1]
    common = {"nonce": value("nonce"), "claims": b"claims"}
    for role in (1, 2):
        values, body = proof(role, packed)
        yield {
            "name": f"proof of the {'opener' if role == 1 else 'other'}", "expect": "ok", "kind": "proof", "role": role,
            "evidence": packed, **common, "values": values, "body": body,
        }  # fmt: skip
    wrong: list[tuple[str, bytes]] = [
        (f"proof with another {name}", proof(1, packed, **{name: value(f"another {name}")})[1])
        for name in ("mesh_id", "h", "own_leaf", "own_endorsement", "peer_leaf", "peer_endorsement", "nonce")
    ]
    wrong += [
        ("proof in the role of the other", proof(1, packed, role=b"\2")[1]),
        ("proof over other evidence", proof(1, packed, shown=fields(1, 0, [], b"", b"quote", b""))[1]),
        ("proof by the other's key", proof(2, packed)[1]),
        ("proof without a signature", fields(bytes(64), b"claims", packed)),
    ]
    for name, body in wrong:
        yield {"name": name, "expect": "bad_proof", "kind": "proof", "role": 1, **common, "body": body}
    signature = proof(1, packed)[0]["signature"]
    for name, body in (
        ("proof with a signature of 63 bytes", fields(signature[:63], b"claims", packed)),
        ("proof without claims", fields(signature, None, packed)),
        ("proof with a field too many", fields(signature, b"claims", packed, 1)),
    ):
        yield {"name": name, "expect": "malformed", "kind": "proof", "role": 1, **common, "body": body}
    for role, others in ((1, 0), (2, 0), (1, 1), (1, 4), (2, 6)):
        values, packed = evidence(role, others)
        yield {
            "name": f"evidence of {'the opener' if role == 1 else 'the other'} with {others} more leaves", "expect": "ok",
            "kind": "evidence", "role": role, "epoch": 1, "h": H1, **common, "others": others, "values": values, "body": packed,
        }  # fmt: skip
    bob = sha256(BOB.credentials.leaf)
    bad: list[tuple[str, str, Json]] = [
        ("bound to another h", "evidence_not_bound", {"h": value("h")}),
        ("bound to another epoch", "evidence_not_bound", {"epoch": 2}),
        ("bound to another nonce", "evidence_not_bound", {"nonce": value("another nonce")}),
        ("bound to other claims", "evidence_not_bound", {"claims": b"other claims"}),
        ("bound to the other role", "evidence_not_bound", {"role": 2}),
        ("bound to another verifier", "evidence_not_bound", {"verifier_leaf": value("leaf")}),
        ("at another place of the tree", "evidence_not_bound", {"index": 0 if evidence(1, 4)[0]["index"] else 1}),
        ("beyond the tree", "evidence_not_bound", {"index": 5}),
        ("with a path too short", "evidence_not_bound", {"path": []}),
        ("with a path too long", "evidence_not_bound", {"path": [bob] * 9}),
        ("with a hash of 31 bytes in its path", "malformed", {"path": [bob[:31]]}),
    ]
    for name, expect, changes in bad:
        yield {
            "name": f"evidence {name}", "expect": expect, "kind": "evidence", "role": 1, "epoch": 1, "h": H1, **common,
            "body": evidence(1, 4, **changes)[1],
        }  # fmt: skip
