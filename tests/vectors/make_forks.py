"""Vectors of fork proofs, by hand: two statements of one node that contradict each other, or do not."""

from collections.abc import Iterator
from typing import Any

from tests.unit.core.authority_kit import Member, seed
from tests.vectors.by_hand import sha256
from tests.vectors.cose_by_hand import cbor, ed25519, fields, merkle_path, merkle_root, sign1, to_be_signed
from tests.vectors.make_checkpoints import MESH_ID, NODE_ID, author_line, base_64, note
from tests.vectors.vector_kit import ALICE, AT, BOB, MESH, OTHER_ALICE, Json, private, value

LOG, OTHER_LOG = value("forked log", 16), value("another log", 16)
AAD = b"overlay/1 audit\0" + MESH.mesh_id
HLC = AT * 1000 << 16
LEAVES = {name: [value(f"{name} {index}") for index in range(5)] for name in ("left", "right")}
LEAVES["right"][:2] = LEAVES["left"][:2]


def message_key(member: Member) -> bytes:
    start = "2" if member is OTHER_ALICE else "1"
    return seed("message", MESH.root.name, member.name, start)


def entry(text: str, *, member: Member = ALICE, log: bytes = LOG, seq: int = 7, kind: int = 17, **changes: Any) -> bytes:
    """An application entry, or with `k` a log_open."""
    body = {0: "note", 1: b'"%s"' % text.encode()}
    if "k" in changes:
        kind, old = 1, {5: value("log before", 16), 6: 3, 7: value("root"), 9: "damaged", 10: value("last")}
        body = {0: 1, 1: changes["k"], **{place + 1: one for place, one in enumerate(credentials(member), 1)}, **old}
    values = [bytes(changes.get("node", member.node_id)), log, seq, value("prev"), HLC, kind, body, []]
    payload, kid = fields(*values), changes.get("kid", member.kid)
    signature = ed25519(changes.get("private", message_key(member)), to_be_signed(payload, AAD, kid))
    return sign1(payload, signature, kid)


def credentials(member: Member) -> list[Any]:
    return [member.credentials.endorsement, member.credentials.leaf, []]


def entry_side(raw: bytes, member: Member = ALICE) -> dict[int, Any]:
    return {0: 1, 1: credentials(member), 2: raw}


def head_side(branch: str, size: int = 5, *, secret: bytes = b"") -> dict[int, Any]:
    origin = f"{MESH_ID}/{NODE_ID}/{LOG.hex()}"
    text = f"{origin}\n{size}\n{base_64(merkle_root(LEAVES[branch][:size]))}\n"
    return {0: 1, 1: credentials(ALICE), 3: note(text, author_line(text, origin, secret))}


def leaf_side(branch: str, size: int = 5, index: int = 2) -> dict[int, Any]:
    leaves = LEAVES[branch][:size]
    return head_side(branch, size) | {4: index, 5: leaves[index], 6: merkle_path(leaves, index)}


def proof(kind: int, one: Any, other: Any, *, ordered: bool = True) -> bytes:
    sides = sorted([one, other], key=cbor) if ordered and kind != 5 else [one, other]
    return cbor({0: 1, 1: kind, 2: sides[0], 3: sides[1]})


LEFT, RIGHT = entry("left"), entry("right")


def forks() -> Iterator[Json]:
    yield good("two entries", 1, entry_side(LEFT), entry_side(RIGHT))
    yield good("two entries of two starts", 1, entry_side(LEFT), entry_side(entry("right", member=OTHER_ALICE), OTHER_ALICE))
    yield good("two openings", 2, entry_side(entry("", k=4, seq=0)), entry_side(entry("", k=4, seq=0, log=OTHER_LOG)))
    yield good("two heads", 3, head_side("left"), head_side("right"))
    yield good("two leaves under heads of different sizes", 4, leaf_side("left"), leaf_side("right", 4))
    leaf = leaf_side("right", 5, 2)
    yield good("an entry and a leaf", 5, entry_side(entry("left", seq=2)), leaf)
    for name, (kind, one, other) in harmless().items():
        yield refused(name, "bad_fork_proof", proof(kind, one, other))
    yield from badly_signed()
    yield from malformed()
    late = AT + 3 * 86_400
    ended = proof(1, entry_side(LEFT), entry_side(RIGHT))
    yield refused("long after the keys have ended", "certificate_expired", ended, at=late)


def harmless() -> dict[str, tuple[int, Any, Any]]:
    bobs = entry_side(entry("right", member=BOB), BOB)
    return {
        "the same entry twice": (1, entry_side(LEFT), entry_side(LEFT)),
        "entries of two numbers": (1, entry_side(LEFT), entry_side(entry("right", seq=8))),
        "entries of two logs": (1, entry_side(LEFT), entry_side(entry("right", log=OTHER_LOG))),
        "entries of two nodes": (1, entry_side(LEFT), bobs),
        "openings of two numbers": (
            2, entry_side(entry("", k=4, seq=0)), entry_side(entry("", k=5, seq=0, log=OTHER_LOG))
        ),
        "openings that open nothing": (2, entry_side(LEFT), entry_side(entry("right", log=OTHER_LOG))),
        "one root twice": (3, head_side("left", 2), head_side("right", 2)),
        "heads of two sizes": (3, head_side("left"), head_side("right", 4)),
        "one leaf twice": (4, leaf_side("left", 5, 1), leaf_side("right", 4, 1)),
        "leaves at two places": (4, leaf_side("left"), leaf_side("right", 5, 3)),
        "an entry and a leaf at another place": (5, entry_side(entry("left", seq=3)), leaf_side("right", 5, 2)),
        "heads called entries": (1, head_side("left"), head_side("right")),
    }


def badly_signed() -> Iterator[Json]:
    forged = entry("right", private=private(BOB, "message"))
    yield refused("an entry that somebody else has signed", "bad_signature", proof(1, entry_side(LEFT), entry_side(forged)))
    named = entry("right", member=BOB, node=ALICE.node_id)
    yield refused("an entry in somebody else's name", "wrong_author", proof(1, entry_side(LEFT), entry_side(named, BOB)))
    yield refused(
        "an entry beside another endorsement", "bad_endorsement", proof(1, entry_side(LEFT), entry_side(RIGHT, OTHER_ALICE))
    )
    head = head_side("right", secret=private(BOB, "message"))
    yield refused("a head that somebody else has signed", "bad_signature", proof(3, head_side("left"), head))
    wrong = leaf_side("right") | {5: sha256(b"no leaf")}
    yield refused("a leaf that does not stand there", "chain_broken", proof(4, leaf_side("left"), wrong))


def malformed() -> Iterator[Json]:
    one, other = sorted([entry_side(LEFT), entry_side(RIGHT)], key=cbor)
    yield refused("the sides in the other order", "malformed", proof(1, other, one, ordered=False))
    yield refused("a side without a statement", "malformed", proof(1, {0: 1, 1: credentials(ALICE)}, entry_side(LEFT)))
    yield refused("a side with two", "malformed", proof(1, entry_side(LEFT) | {3: head_side("left")[3]}, entry_side(RIGHT)))
    leaf = leaf_side("right")
    del leaf[6]
    yield refused("a leaf without a path", "malformed", proof(4, leaf_side("left"), leaf))
    yield refused("a kind that there is not", "unsupported", proof(9, entry_side(LEFT), entry_side(RIGHT)))


def good(name: str, kind: int, one: Any, other: Any) -> Json:
    return {"name": name, "expect": "ok", "at": AT, "kind": kind, "raw": proof(kind, one, other)}


def refused(name: str, reason: str, raw: bytes, *, at: int = AT) -> Json:
    return {"name": name, "expect": reason, "at": at, "raw": raw}
