"""Reads the threat table of docs/protocol/security.md and knows which tests and scenes exist."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.architecture.tree import ROOT

PAGE = ROOT / "docs" / "protocol" / "security.md"
LAB = ROOT / "overlay" / "app" / "lab"
HEADER = "| attacker | promise | test |"
ATTACKS = ROOT / "docs" / "protocol" / "attestation.md"
ATTACKS_HEADER = "| attack | refused as | test |"
NAMED = re.compile(r"`([^`]+)`")


def rows(text: str, header: str = HEADER) -> list[tuple[str, str, str]]:
    """Attacker, promise and test of each row below the header."""
    lines = text.splitlines()
    start = lines.index(header) + 2
    found = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        attacker, promise, test = (cell.strip() for cell in line.strip("|").split("|"))
        found.append((attacker, promise, test))
    return found


def names(cell: str) -> list[str]:
    """What a cell names: `tests/unit/core/test_gate.py::test_x`, or `scene stranger`."""
    return NAMED.findall(cell)


@cache
def tests_of(path: Path) -> frozenset[str]:
    """The tests a file defines, methods of classes as `Class::test_x`."""
    body = ast.parse(path.read_text()).body
    classes = (node for node in body if isinstance(node, ast.ClassDef))
    methods = {f"{node.name}::{name}" for node in classes for name in functions(node.body)}
    return frozenset(methods | functions(body))


def functions(body: list[ast.stmt]) -> set[str]:
    """The functions among these statements."""
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def exists(name: str) -> bool:
    """Whether that test or scene exists."""
    if name.startswith("scene "):
        file = f"{name.removeprefix('scene ').replace('-', '_')}.py"
        return any((LAB / folder / file).is_file() for folder in ("scenes", "acts"))
    path, _, function = name.partition("::")
    return (ROOT / path).is_file() and function.partition("[")[0] in tests_of(ROOT / path)
