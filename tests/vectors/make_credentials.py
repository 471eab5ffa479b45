"""Vectors of credentials: certificates by our own builder, which openssl checks elsewhere; endorsements by hand."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.unit.core.authority_kit import DAY, HOUR, Member, make_member, seed
from tests.vectors.by_hand import public, sha256
from tests.vectors.cose_by_hand import EDDSA, ed25519, ed25519_public, fields, sign1, to_be_signed
from tests.vectors.vector_kit import ALICE, AT, BOB, MACHINE, MESH, OTHER_MESH, Json, private, value

ES256 = -7
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def low_s_p256(secret: bytes, data: bytes) -> bytes:
    """r || s with low s, deterministic (RFC 6979)."""
    number = int.from_bytes(secret, "big") % (P256_ORDER - 1) + 1
    signature = ec.derive_private_key(number, ec.SECP256R1()).sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    r, s = decode_dss_signature(signature)
    return r.to_bytes(32, "big") + min(s, P256_ORDER - s).to_bytes(32, "big")


def pop_input(mesh_id: bytes, node_id: bytes, noise_public: bytes, start_id: bytes) -> bytes:
    return b"overlay/1 endorse pop\0" + mesh_id + node_id + noise_public + start_id


def endorsement(member: Member, *, mesh_id: bytes = MESH.mesh_id, **changes: Any) -> tuple[Json, bytes]:
    """All values of an endorsement, and its bytes; any field can be given."""
    noise_public = changes.get("noise_public", public(private(member, "noise")))
    start_id = seed("start", MESH.root.name, member.name, "1")[:16]
    popped = pop_input(mesh_id, member.node_id, noise_public, start_id)
    pop = changes.get("pop", ed25519(private(member, "message"), popped))
    before = changes.get("not_before", AT - 60)
    payload = fields(
        bytes(changes.get("node_id", member.node_id)), changes.get("leaf_hash", sha256(member.credentials.leaf)), noise_public,
        changes.get("message_public", ed25519_public(private(member, "message"))), start_id, before,
        changes.get("not_after", before + 86_400), pop, *changes.get("more", ()),
    )  # fmt: skip
    algorithm = ES256 if member is MACHINE else EDDSA
    signed = to_be_signed(payload, b"overlay/1 endorse\0" + mesh_id, None, algorithm)
    sign = low_s_p256 if member is MACHINE else ed25519
    signature = changes.get("signature", sign(private(member, "identity"), signed))
    raw = sign1(payload, signature, None, algorithm)
    values = {
        "node_id": bytes(member.node_id), "leaf_hash": sha256(member.credentials.leaf), "pop_input": popped, "pop": pop,
        "payload": payload, "to_be_signed": signed, "signature": signature, "kid": sha256(raw),
    }  # fmt: skip
    return values, raw


def credentials() -> Iterator[Json]:
    for member in (ALICE, BOB, MACHINE):
        inputs: Json = {f"{use}_private": private(member, use) for use in ("identity", "noise", "message")}
        inputs |= {"start_id": member.start_id, "not_before": AT - 60, "not_after": AT - 60 + 86_400}
        values, raw = endorsement(member)
        yield {
            "name": f"{member.name}, {'P-256' if member is MACHINE else 'Ed25519'}", "expect": "ok", "at": AT, "inputs": inputs,
            "leaf": member.credentials.leaf, "values": values, "endorsement": raw,
        }  # fmt: skip
    high = MACHINE.credentials.endorsement
    r, s = high[-64:-32], P256_ORDER - int.from_bytes(high[-32:], "big")
    stranger = make_member(OTHER_MESH, "alice")
    cases: list[tuple[str, str, Member, Json]] = [
        ("endorsement signed for another mesh", "bad_endorsement", ALICE, {"mesh_id": OTHER_MESH.mesh_id}),
        ("endorsement under another certificate", "bad_endorsement", ALICE, {"leaf_hash": sha256(BOB.credentials.leaf)}),
        ("endorsement of another node", "bad_endorsement", ALICE, {"node_id": BOB.node_id}),
        ("endorsement longer than a day", "bad_endorsement", ALICE, {"not_after": AT - 60 + 86_401}),
        ("endorsement beyond the certificate", "bad_endorsement", ALICE, {"not_before": AT, "not_after": AT + 86_400}),
        ("endorsement that ends before it begins", "bad_endorsement", ALICE, {"not_after": AT - 61}),
        ("Noise key of low order", "bad_endorsement", ALICE, {"noise_public": bytes(32)}),
        ("message key of low order", "bad_endorsement", ALICE, {"message_public": b"\1" + bytes(31)}),
        ("proof of possession by another key", "bad_endorsement", ALICE, {"pop": ed25519(value("other"), b"")}),
        ("a witness key without its proof", "bad_endorsement", ALICE, {"more": [ed25519_public(value("witness"))]}),
        ("a field too many", "malformed", ALICE, {"more": [None, None, 1]}),
        ("signature of zeros", "bad_endorsement", ALICE, {"signature": bytes(64)}),
        ("P-256 with high s", "bad_endorsement", MACHINE, {"signature": r + s.to_bytes(32, "big")}),
    ]  # fmt: skip
    for name, expect, member, changes in cases:
        _, raw = endorsement(member, **changes)
        yield {"name": name, "expect": expect, "at": AT, "leaf": member.credentials.leaf, "endorsement": raw}
    good, own = ALICE.credentials, "alice's own, "
    for name, expect, at, leaf in (
        (f"{own}five minutes after its end", "ok", AT - 60 + 86_400 + 300, good.leaf),
        (f"{own}a second later", "certificate_expired", AT - 60 + 86_400 + 301, good.leaf),
        (f"{own}five minutes before its beginning", "ok", AT - 360, good.leaf),
        (f"{own}a second earlier", "certificate_not_yet_valid", AT - 361, good.leaf),
        ("a certificate of another mesh", "other_mesh", AT, stranger.credentials.leaf),
        ("a certificate with a byte changed", "bad_certificate", AT, good.leaf[:-1] + bytes([good.leaf[-1] ^ 1])),
        ("the certificate of another member", "bad_endorsement", AT, BOB.credentials.leaf),
    ):
        yield {"name": name, "expect": expect, "at": at, "leaf": leaf, "endorsement": good.endorsement}
    short = make_member(MESH, "alice", life=7 * DAY, endorsement_life=HOUR)
    late = AT - 60 + 3600 + 301
    yield {
        "name": "endorsement expired under a certificate in force", "expect": "endorsement_expired", "at": late,
        "leaf": short.credentials.leaf, "endorsement": short.credentials.endorsement,
    }  # fmt: skip
    later = make_member(MESH, "alice", not_before=MESH.at - timedelta(hours=1))
    _, raw = endorsement(ALICE, leaf_hash=sha256(later.credentials.leaf), not_before=AT + 301, not_after=AT + 400)
    yield {"name": "endorsement not valid yet", "expect": "clock", "at": AT, "leaf": later.credentials.leaf, "endorsement": raw}
