"""What we write into a log or export, checked by libraries of others: cwt (COSE) and pymerkle (trees)."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.raw_logs import split
from audit.receipts import Place, make_receipt
from overlay.core.merkle import inclusion_proof, root_of
from overlay.core.wire import parse_sign1
from overlay.registry import Label
from tests.unit.audit.audit_kit import some_log
from tests.unit.core.authority_kit import make_mesh

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("OVERLAY_INTEROP") or HERE.parents[1] / ".venv" / "interop")
PYTHON = FOLDER / "tools" / "bin" / "python"
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason=f"there are no cwt and no pymerkle in {FOLDER / 'tools'}")

MESH = make_mesh()
LOG = some_log(9, mesh=MESH)
KEY = {"public": LOG.member.peer.message_public.hex(), "kid": LOG.member.kid.hex()}
AAD = (Label.AUDIT + MESH.mesh_id).hex()


class Tools:
    """The process in which they run."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": do, **request}), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def tools() -> Iterator[Tools]:
    command = [str(PYTHON), str(HERE / "audit_tools.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Tools(process)
        assert process.stdin is not None
        process.stdin.close()


def test_cwt_verifies_every_entry(tools: Tools) -> None:
    for raw in split(b"".join(LOG.raws)):
        payload = parse_sign1(raw, limit=65_536).payload.hex()
        assert tools.ask("cose", message=raw.hex(), **KEY, aad=AAD) == {"payload": payload}


def test_cwt_refuses_an_entry_that_was_changed_or_is_of_another_mesh(tools: Tools) -> None:
    changed = bytearray(LOG.raws[3])
    changed[-1] ^= 1
    assert "error" in tools.ask("cose", message=bytes(changed).hex(), **KEY, aad=AAD)
    other = (Label.AUDIT + make_mesh("other").mesh_id).hex()
    assert "error" in tools.ask("cose", message=LOG.raws[3].hex(), **KEY, aad=other)


def test_cwt_verifies_a_receipt_with_the_root_that_pymerkle_works_out(tools: Tools) -> None:
    hashes = [entry.hash for entry in LOG.entries]
    place = Place(index=3, size=9, path=inclusion_proof(hashes, 3))
    receipt = make_receipt(place, hashes[3], signer=LOG.member.message, kid=LOG.member.kid).hex()
    root = tools.ask("tree", entries=[raw.hex() for raw in LOG.raws])["roots"][-1]
    assert tools.ask("cose", message=receipt, **KEY, aad="", detached=root) == {"payload": root}
    assert "error" in tools.ask("cose", message=receipt, **KEY, aad="", detached="00" * 32)


def test_pymerkle_finds_our_roots(tools: Tools) -> None:
    roots = tools.ask("tree", entries=[raw.hex() for raw in LOG.raws])["roots"]
    hashes = [entry.hash for entry in LOG.entries]
    assert roots == [root_of(hashes[:size]).hex() for size in range(1, 10)]
