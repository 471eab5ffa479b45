"""What the generators of our vectors share: a mesh, three members with their private keys, fixed stand-ins for chance."""

from pathlib import Path
from typing import Any

from tests.unit.core.authority_kit import Member, make_member, make_mesh, seed
from tests.vectors.by_hand import sha256

Json = dict[str, Any]
OURS = Path(__file__).parent / "ours"
MESH = make_mesh("vectors")
OTHER_MESH = make_mesh("another")
ALICE, BOB, MACHINE = make_member(MESH, "alice"), make_member(MESH, "bob"), make_member(MESH, "machine", tpm_like=True)
OTHER_ALICE = make_member(MESH, "alice", start=2)
AT = int(MESH.at.timestamp())
H1 = sha256(b"overlay test vector h(1)")


def value(name: str, size: int = 32) -> bytes:
    """A fixed stand-in for something random."""
    return sha256(b"overlay test vector ", name.encode())[:size]


def hexed(given: Any) -> Any:
    """Bytes as hex, all the way down."""
    if isinstance(given, bytes):
        return given.hex()
    if isinstance(given, dict):
        return {name: hexed(item) for name, item in given.items()}
    return [hexed(item) for item in given] if isinstance(given, list | tuple) else given


def private(member: Member, use: str) -> bytes:
    """The private key, as authority_kit makes it."""
    return seed("identity", MESH.root.name, member.name) if use == "identity" else seed(use, MESH.root.name, member.name, "1")
