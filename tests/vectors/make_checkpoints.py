"""Vectors of checkpoints and cosignatures, by hand: signed notes as C2SP defines them."""

import base64
from collections.abc import Iterator

from tests.vectors.by_hand import sha256, u64
from tests.vectors.cose_by_hand import ed25519, ed25519_public
from tests.vectors.vector_kit import ALICE, AT, BOB, MESH, Json, private, value

SECRET = private(ALICE, "message")
LOG, ROOT, SIZE = value("log", 16), value("root of the log"), 20_852_163
WITNESS = value("witness key")


def base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def base_64(data: bytes) -> str:
    return base64.b64encode(data).decode()


MESH_ID, NODE_ID, WITNESS_ID = base32(MESH.mesh_id), base32(ALICE.node_id), base32(BOB.node_id)
ORIGIN, WITNESS_NAME = f"{MESH_ID}/{NODE_ID}/{LOG.hex()}", f"{MESH_ID}/{WITNESS_ID}/w"
TEXT = f"{ORIGIN}\n{SIZE}\n{base_64(ROOT)}\n"


def key_id(name: str, kind: int, public: bytes) -> bytes:
    return sha256(name.encode(), b"\n", bytes([kind]), public)[:4]


def verifier_key(name: str, kind: int, public: bytes) -> str:
    """As other tools take it."""
    return f"{name}+{key_id(name, kind, public).hex()}+{base_64(bytes([kind]) + public)}"


def line(name: str, identifier: bytes, signature: bytes) -> str:
    return f"\N{EM DASH} {name} {base_64(identifier + signature)}\n"


def author_line(text: str = TEXT, name: str = ORIGIN, secret: bytes = b"") -> str:
    secret = secret or SECRET
    return line(name, key_id(name, 1, ed25519_public(secret)), ed25519(secret, text.encode()))


def cosigned(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def witness_line(text: str = TEXT, at: int = AT, said: int | None = None, secret: bytes = WITNESS, kind: int = 4) -> str:
    identifier = key_id(WITNESS_NAME, kind, ed25519_public(secret))
    return line(WITNESS_NAME, identifier, u64(at if said is None else said) + ed25519(secret, cosigned(text, at)))


def note(text: str, *lines: str) -> bytes:
    return (text + "\n" + "".join(lines)).encode()


def checkpoints() -> Iterator[Json]:
    public, witness = ed25519_public(SECRET), ed25519_public(WITNESS)
    yield {
        "name": "a checkpoint by its author", "kind": "checkpoint", "expect": "ok", "raw": note(TEXT, author_line()),
        "values": {
            "text": TEXT.encode(), "key_id": key_id(ORIGIN, 1, public), "signature": ed25519(SECRET, TEXT.encode()),
            "verifier_key": verifier_key(ORIGIN, 1, public).encode(),
        },
    }  # fmt: skip
    yield {
        "name": "cosigned by a witness", "kind": "cosignature", "expect": "ok", "at": AT,
        "raw": note(TEXT, author_line(), witness_line()),
        "values": {
            "to_be_signed": cosigned(TEXT, AT), "key_id": key_id(WITNESS_NAME, 4, witness),
            "signature": ed25519(WITNESS, cosigned(TEXT, AT)), "verifier_key": verifier_key(WITNESS_NAME, 4, witness).encode(),
        },
    }  # fmt: skip
    yield good("the witness first", note(TEXT, witness_line(), author_line()))
    yield good("a line of somebody else", note(TEXT, line("example.com/x", bytes(4), bytes(64)), author_line(), witness_line()))
    yield from bad_checkpoints()
    yield from bad_cosignatures()


def good(name: str, raw: bytes) -> Json:
    return {"name": name, "kind": "cosignature", "expect": "ok", "at": AT, "raw": raw}


def bad_checkpoints() -> Iterator[Json]:
    texts = {
        "size 0": TEXT.replace(f"\n{SIZE}\n", "\n0\n"),
        "a size with a leading zero": TEXT.replace(f"\n{SIZE}\n", f"\n0{SIZE}\n"),
        "a size above 2^53": TEXT.replace(f"\n{SIZE}\n", f"\n{2**53 + 1}\n"), "an extension line": TEXT + "more\n",
        "two lines": f"{ORIGIN}\n{SIZE}\n", "a root of 31 bytes": f"{ORIGIN}\n{SIZE}\n{base_64(ROOT[:31])}\n",
        "ids in capitals": TEXT.replace(ORIGIN, ORIGIN.upper()), "a log id of 15 bytes": TEXT.replace(ORIGIN, ORIGIN[:-2]),
        "no node id": TEXT.replace(f"/{NODE_ID}", ""), "an origin of others": TEXT.replace(ORIGIN, "example.com/log"),
    }  # fmt: skip
    for name, text in texts.items():
        yield refused(name, "checkpoint", "malformed", note(text, author_line(text, text.split("\n", maxsplit=1)[0])))
    raw = note(TEXT, author_line())
    for name, wrong in {
        "no newline at the end": raw[:-1], "no line": TEXT.encode() + b"\n", "a carriage return": raw.replace(b"\n", b"\r\n"),
        "a hyphen for the dash": raw.replace("\N{EM DASH}".encode(), b"-"), "not UTF-8": b"\xff" + raw,
        "base64 without padding": raw.replace(b"=\n", b"\n"),
    }.items():  # fmt: skip
        yield refused(name, "checkpoint", "malformed", wrong)
    larger = TEXT.replace(f"\n{SIZE}\n", f"\n{SIZE + 1}\n")
    for name, wrong in {
        "another size than was signed": note(larger, author_line()), "another key": note(TEXT, author_line(secret=WITNESS)),
        "under another name": note(TEXT, author_line(name=f"{MESH_ID}/{NODE_ID}")),
        "by a witness alone": note(TEXT, witness_line()),
        "with the key id of type 4": note(
            TEXT, line(ORIGIN, key_id(ORIGIN, 4, ed25519_public(SECRET)), ed25519(SECRET, TEXT.encode()))
        ),
    }.items():  # fmt: skip
        yield refused(name, "checkpoint", "bad_signature", wrong)


def bad_cosignatures() -> Iterator[Json]:
    for name, wrong in {
        "a later time than was signed": witness_line(said=AT + 1),
        "another witness key": witness_line(secret=value("another key")),
        "of another checkpoint": witness_line(TEXT.replace(str(SIZE), "1")), "with the key id of type 1": witness_line(kind=1),
        "without the time": line(
            WITNESS_NAME, key_id(WITNESS_NAME, 4, ed25519_public(WITNESS)), ed25519(WITNESS, TEXT.encode())
        ),
    }.items():  # fmt: skip
        reason = "malformed" if name == "without the time" else "bad_signature"
        yield refused(f"cosignature: {name}", "cosignature", reason, note(TEXT, author_line(), wrong)) | {"at": AT}


def refused(name: str, kind: str, reason: str, raw: bytes) -> Json:
    return {"name": name, "kind": kind, "expect": reason, "raw": raw}
