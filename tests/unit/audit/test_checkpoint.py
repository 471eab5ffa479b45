"""Checkpoints: what is signed, by whom, and what is refused."""

import pytest

from audit.checkpoint import Checkpoint, parse_checkpoint, read_checkpoint, verify_cosignature, witness_key
from audit.notes import parse_note
from overlay.core.keys import Ed25519Signer, MeshId, NodeId, base32
from overlay.errors import Refused
from overlay.registry import Reason

AUTHOR = Ed25519Signer(bytes([1]) * 32)
WITNESS = Ed25519Signer(bytes([2]) * 32)
WITNESS_ID = NodeId(bytes([3]) * 32)
CHECKPOINT = Checkpoint(
    mesh_id=MeshId(bytes([4]) * 32), node_id=NodeId(bytes([5]) * 32), log_id=bytes([6]) * 16, size=64, root=bytes([7]) * 32
)


def test_a_checkpoint_is_three_lines() -> None:
    mesh, node = base32(bytes([4]) * 32), base32(bytes([5]) * 32)
    assert CHECKPOINT.text == f"{mesh}/{node}/{'06' * 16}\n64\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n"
    assert read_checkpoint(CHECKPOINT.text) == CHECKPOINT


def test_its_author_signs_under_the_origin_and_witnesses_below() -> None:
    line = CHECKPOINT.cosign(WITNESS_ID, WITNESS, 1_700_000_000)
    found = parse_checkpoint(CHECKPOINT.sign(AUTHOR).with_signatures(line).raw)
    assert found.verify(AUTHOR.public_key) == CHECKPOINT
    assert found.verify_any([WITNESS.public_key, AUTHOR.public_key]) == AUTHOR.public_key
    assert [one.name for one in found.note.signatures] == [CHECKPOINT.origin, f"{CHECKPOINT.mesh_id}/{WITNESS_ID}/w"]
    assert found.cosignatures == (line,)
    assert verify_cosignature(CHECKPOINT, line, WITNESS_ID, WITNESS.public_key) == 1_700_000_000
    assert found.note.verify(witness_key(CHECKPOINT.mesh_id, WITNESS_ID, WITNESS.public_key)) == line


def test_a_checkpoint_of_another_key_is_refused() -> None:
    found = parse_checkpoint(CHECKPOINT.sign(WITNESS).raw)
    for check in (lambda: found.verify(AUTHOR.public_key), lambda: found.verify_any([AUTHOR.public_key])):
        with pytest.raises(Refused) as refused:
            check()
        assert refused.value.reason is Reason.BAD_SIGNATURE


def test_a_cosignature_counts_for_its_witness_and_its_checkpoint_only() -> None:
    line = CHECKPOINT.cosign(WITNESS_ID, WITNESS, 1_700_000_000)
    other = read_checkpoint(CHECKPOINT.text.replace("\n64\n", "\n65\n"))
    tries = [(other, WITNESS_ID, WITNESS), (CHECKPOINT, NodeId(bytes(32)), WITNESS), (CHECKPOINT, WITNESS_ID, AUTHOR)]
    for checkpoint, node_id, key in tries:
        with pytest.raises(Refused) as refused:
            verify_cosignature(checkpoint, line, node_id, key.public_key)
        assert refused.value.reason is Reason.BAD_SIGNATURE


ORIGIN, ROOT = CHECKPOINT.origin, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="


@pytest.mark.parametrize("text", [
    "\n", f"{ORIGIN}\n64\n", f"{ORIGIN}\n64\n{ROOT}\nmore\n", f"{ORIGIN}\n064\n{ROOT}\n", f"{ORIGIN}\n0\n{ROOT}\n",
    f"{ORIGIN}\n-1\n{ROOT}\n", f"{ORIGIN}\n٦٤\n{ROOT}\n", f"{ORIGIN}\n{2**53 + 1}\n{ROOT}\n",
    f"{ORIGIN}\n64\n{ROOT[:-4]}\n", f"{ORIGIN}\n64\n{ROOT[:-1]}\n", f"{ORIGIN}\n64\n{ROOT.replace('Bwc=', 'Bwd=')}\n",
    f"{ORIGIN.upper()}\n64\n{ROOT}\n", f"{ORIGIN}00\n64\n{ROOT}\n", f"{ORIGIN}/\n64\n{ROOT}\n",
    f"{ORIGIN.replace('/', '/ ')}\n64\n{ROOT}\n", f"{ORIGIN[1:]}\n64\n{ROOT}\n",
])  # fmt: skip
def test_there_is_one_way_to_write_a_checkpoint(text: str) -> None:
    with pytest.raises(Refused) as refused:
        read_checkpoint(text)
    assert refused.value.reason is Reason.MALFORMED


def test_a_note_about_something_else_is_no_checkpoint() -> None:
    raw = b"hello\n\n" + CHECKPOINT.sign(AUTHOR).signatures[0].line.encode()
    assert parse_note(raw)
    with pytest.raises(Refused, match="three lines"):
        parse_checkpoint(raw)
