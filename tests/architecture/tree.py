"""The project as the architecture tests see it: its root, its four packages, their modules and imports."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("overlay", "discovery", "attest", "audit")


def sources(root: Path = ROOT) -> list[str]:
    """Every source file of the packages, relative to the root: `overlay/core/wire.py`."""
    found = (path.relative_to(root).as_posix() for package in PACKAGES for path in (root / package).rglob("*.py"))
    return sorted(found)


def modules(root: Path = ROOT) -> list[str]:
    """The same without the `__init__.py` files."""
    return [path for path in sources(root) if not path.endswith("__init__.py")]


def dotted(path: str) -> str:
    """`overlay/core/wire.py` to `overlay.core.wire`; a package's `__init__.py` to the package."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: Path) -> Iterator[str]:
    """Every name a file imports, wherever in the file: `trio`, `overlay.core.wire`."""
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def first_line(path: Path) -> str:
    """The first line of a module's docstring: what the file is for."""
    docstring = ast.get_docstring(ast.parse(path.read_text(), filename=str(path))) or ""
    return docstring.partition("\n")[0]


def copy_packages(target: Path) -> None:
    """Copy the four packages and the configuration, for a test that plants something."""
    for package in PACKAGES:
        if (ROOT / package).is_dir():
            shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", target)
