"""Runs where cwt and pymerkle are, with nothing of ours: reads requests as JSON lines, answers each with one."""

import json
import sys

from cwt import COSE, COSEKey
from pymerkle import InmemoryTree


def key_of(public: str, kid: str) -> COSEKey:
    """An Ed25519 public key as RFC 9053 has it."""
    return COSEKey.new({1: 1, 2: bytes.fromhex(kid), 3: -8, -1: 6, -2: bytes.fromhex(public)})


def cose(request: dict) -> dict:
    """Verify a COSE_Sign1, its payload in it or detached."""
    detached = bytes.fromhex(request["detached"]) if "detached" in request else None
    payload = COSE.new().decode(
        bytes.fromhex(request["message"]), key_of(request["public"], request["kid"]),
        external_aad=bytes.fromhex(request["aad"]), detached_payload=detached,
    )
    return {"payload": payload.hex()}


def tree(request: dict) -> dict:
    """The root of entries, after each of them."""
    found, roots = InmemoryTree(algorithm="sha256"), []
    for entry in request["entries"]:
        found.append_entry(bytes.fromhex(entry))
        roots.append(found.get_root().hex())
    return {"roots": roots}


for line in sys.stdin:
    asked = json.loads(line)
    try:
        answer = {"cose": cose, "tree": tree}[asked.pop("do")](asked)
    except Exception as error:  # noqa: BLE001 (whatever theirs raise, the answer says it)
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
