"""Inclusion and consistency proofs of others, good and bad, against ours (RFC 9162, section 2.1).

Two rules settle the cases on which implementations differ: a hash has 32 bytes, and size 0 proves nothing.
"""

from base64 import b64decode
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from overlay.core.merkle import check_consistency, check_inclusion
from overlay.errors import Refused

pytestmark = pytest.mark.vectors

# Good for the authors of the vectors, refused by us: the roots are no hashes.
STRICTER = {"additional/sizes-are-equal-one-and-proof-is-empty"}


def data(text: str | None) -> bytes:
    return b64decode(text or "")


def proof(case: dict[str, Any]) -> list[bytes]:
    return [data(node) for node in case["proof"] or []]


def refused(check: Callable[[], None]) -> bool:
    try:
        check()
    except Refused:
        return True
    return False


def test_inclusion(vectors: Callable[[str], Any]) -> None:
    cases = vectors("merkle/inclusion.json")
    differ = set()
    for name, case in cases.items():
        leaf, index, size, root = data(case["leafHash"]), case["leafIdx"], case["treeSize"], data(case["root"])
        if refused(partial(check_inclusion, leaf, index, size, proof(case), root)) != case["wantErr"]:
            differ.add(name)
    assert len(cases) == 98
    assert differ == set()


def test_consistency(vectors: Callable[[str], Any]) -> None:
    cases = vectors("merkle/consistency.json")
    differ = set()
    for name, case in cases.items():
        sizes = (case["size1"], data(case["root1"]), case["size2"], data(case["root2"]))
        if refused(partial(check_consistency, *sizes, proof(case))) != case["wantErr"]:
            differ.add(name)
    assert len(cases) == 98
    assert differ == STRICTER
