"""Writes those of our vectors that hold what is signed, the traces and the counters: `python -m tests.vectors.make_ours`.

Certificates come from our own builder; all else is made by hand, so that both sides of every comparison are independent.
The same run gives the same bytes.
"""

import json
from collections.abc import Callable, Iterator

from tests.vectors.by_hand import Side, noise, record
from tests.vectors.make_admission import admission
from tests.vectors.make_checkpoints import WITNESS, checkpoints
from tests.vectors.make_credentials import credentials
from tests.vectors.make_forks import forks
from tests.vectors.make_logs import logs
from tests.vectors.make_messages import OPENING, STREAM, messages
from tests.vectors.make_work import work
from tests.vectors.vector_kit import ALICE, AT, BOB, H1, MESH, OURS, Json, hexed, private, value

# --- traces and counters ----------------------------------------------------------------------------------------------


def traces() -> Iterator[Json]:
    """Every step of the three handshakes of session.json."""
    (session,) = json.loads((OURS / "session.json").read_text())["vectors"]
    secret = {side: bytes.fromhex(key) for side, key in session["static_private"].items()}

    def side(name: str, inputs: Json) -> Side:
        return Side(secret[name], bytes.fromhex(inputs[f"{name}_ephemeral_private"]))

    xx = {name: bytes.fromhex(item) for name, item in session["xx"]["values"].items()}
    first, second = (side(name, session["xx"]["inputs"]) for name in ("opener", "other"))
    payloads = [b"", xx["payload_2"], xx["payload_3"]]
    yield {"name": "XX", "expect": "ok", "steps": noise("XX", xx["prologue"], first, second, payloads).trace}
    for rekey in session["rekeys"]:
        inputs, values = rekey["inputs"], rekey["values"]
        first, second = side(inputs["answerer"], inputs), side(inputs["driver"], inputs)
        prologue, psk = (bytes.fromhex(values[name]) for name in ("prologue", "psk"))
        found = noise("KKpsk0", prologue, first, second, [b"", b""], psk)
        yield {"name": f"KKpsk0 of epoch {inputs['epoch']}", "expect": "ok", "steps": found.trace}


def counters() -> Iterator[Json]:
    key, plaintext = value("record key"), b"\x10\0\0\0\0\0\0\0"
    for counter in (0, 1, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**56, 2**63, 2**64 - 2):
        yield {
            "name": f"counter {counter}", "expect": "ok", "key": key, "counter": str(counter),
            "nonce": bytes(4) + counter.to_bytes(8, "big"), "plaintext": plaintext, "record": record(key, counter, plaintext),
        }  # fmt: skip
    for name, counter, sealed in (
        ("the last counter is never used", 2**64 - 1, 2**64 - 1), ("a counter too high", 7, 8), ("a counter too low", 8, 7),
        ("a counter that wrapped at 32 bits", 2**32, 0),
    ):  # fmt: skip
        yield {
            "name": name, "expect": "bad_record", "key": key, "counter": str(counter), "record": record(key, sealed, plaintext)
        }


# --- files ------------------------------------------------------------------------------------------------------------

SIGNED_CONTEXT = {"root": MESH.root.der, "mesh_id": bytes(MESH.mesh_id), "at": AT}
PEERS = {
    member.name: {"leaf": member.credentials.leaf, "endorsement": member.credentials.endorsement} for member in (ALICE, BOB)
}
KEYS = {member.name: private(member, "message") for member in (ALICE, BOB)}
FILES: dict[str, tuple[list[str], Json, Callable[[], Iterator[Json]]]] = {
    "credentials.json": (
        ["A certificate and an endorsement, checked under the root at the time `at` (Unix seconds).",
         "values are those of the endorsement; certificates are Ed25519 by the root."],
        SIGNED_CONTEXT, credentials,
    ),
    "admission.json": (
        ["kind proof: the body of PROOF, of alice (role 1, opener) or bob (role 2), as the peer checks it before it appraises.",
         "kind evidence: software evidence, as it stands in PROOF and EVIDENCE, for the binding of role, h, epoch and nonce.",
         "others: how many more leaves the tree has; they are in leaves."],
        SIGNED_CONTEXT | {"h1": H1, "peers": PEERS, "message_private": KEYS}, admission,
    ),
    "messages.json": (
        ["Signed messages of alice, as bob checks them on the link h1. fields are those of the payload, from 1 on.",
         "segments: of that stream and opening call. batch and proof: of the kind overlay/1 transient."],
        SIGNED_CONTEXT | {
            "h1": H1, "peers": PEERS, "message_private": KEYS, "stream": STREAM, "opening": OPENING,
        }, messages,
    ),
    "checkpoints.json": (
        ["Checkpoints of a log of alice, which bob witnesses, as signed notes (C2SP). raw is the whole note.",
         "kind checkpoint: does the author's line hold? kind cosignature: does bob's, and is it of the time `at`?"],
        SIGNED_CONTEXT | {"peers": PEERS, "message_private": KEYS, "witness_private": WITNESS}, checkpoints,
    ),
    "logs.json": (
        ["kind part: the body of EVIDENCE_PART; fields are those of the map, from 1 on.",
         "kind replay: a boot log and a measurement list, and the digest over pcrs that was quoted of the machine."],
        {}, logs,
    ),
    "forks.json": (
        ["Fork proofs against alice, judged for the time `at` (Unix seconds) by the root alone."], SIGNED_CONTEXT, forks,
    ),
    "work.json": (
        ["Signed work of alice, one and all by her message key; a workload of two is signed by alice, then by bob.",
         "fields are those of the payload, from 1 on, null where one is absent; hash is what a placement or a result names."],
        SIGNED_CONTEXT | {"peers": PEERS, "message_private": KEYS}, work,
    ),
    "trace.json": (
        ["The handshakes of session.json step by step: h, ck, the key k and its counter n after each.",
         "message 0 is what comes before the first message. An empty k is none."], {}, traces,
    ),
    "counters.json": (
        ["One record under a key, as the receiver opens it at that counter (decimal)."], {}, counters,
    ),
}  # fmt: skip


def made(name: str) -> Json:
    """The content of a file."""
    about, context, make = FILES[name]
    content: Json = {"about": about}
    if context:
        content["context"] = hexed(context)
    return content | {"vectors": [hexed(vector) for vector in make()]}


def main() -> None:
    """Write all files."""
    for name in FILES:
        (OURS / name).write_text(json.dumps(made(name), indent=1) + "\n")


if __name__ == "__main__":
    main()
