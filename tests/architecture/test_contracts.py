"""The contracts of pyproject.toml hold, and each of them notices a planted violation."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, copy_packages

LINT = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"

# contract, file to plant, what it does wrong
VIOLATIONS = [
    ("layers", "overlay/core/planted.py", "import overlay.net.ports"),
    ("layers", "overlay/registry.py", "import overlay.errors"),
    ("layers", "overlay/store/planted.py", "import attest.levels"),
    ("layers", "attest/planted.py", "import discovery.announcement"),
    ("layers", "discovery/planted.py", "import overlay.net.ports"),
    ("whole", "overlay/planted.py", "import overlay.registry"),
    ("plugged", "overlay/net/planted.py", "import attest.levels"),
    ("pure", "overlay/core/planted.py", "import trio"),
    ("pure", "overlay/core/mesh/planted.py", "from time import monotonic"),
    ("pure", "overlay/errors.py", "import logging"),
    ("tpm", "attest/planted.py", "import tpm2_pytss"),
    ("tpm", "overlay/app/planted.py", "def late() -> None:\n    from tpm2_pytss.types import TPMT_PUBLIC"),
    ("mdns", "discovery/planted.py", "import zeroconf"),
    ("noise", "overlay/core/planted.py", "from noise.connection import NoiseConnection"),
    ("facade", "overlay/net/planted.py", "import overlay"),
    ("facade", "overlay/app/lab/planted.py", "from attest import nothing_of_this_name"),
    ("facade", "audit/planted.py", "from audit import nothing_of_this_name"),
    ("circles", "overlay/core/planted.py", "import overlay.core.planted_too"),
]


def lint(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run lint-imports on the packages of that folder, whatever is installed."""
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages to plant in."""
    folder = tmp_path_factory.mktemp("planted")
    copy_packages(folder)
    return folder


def test_the_contracts_hold() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("contract", "file", "text"), VIOLATIONS)
def test_a_planted_violation_is_found(planted: Path, contract: str, file: str, text: str) -> None:
    path = planted / file
    before = path.read_text() if path.exists() else None
    second = planted / "overlay/core/planted_too.py"
    path.write_text(f"{before or ''}\n{text}\n")
    second.write_text("import overlay.core.planted\n" if contract == "circles" else "")
    try:
        result = lint(planted, "--contract", contract)
    finally:
        second.unlink()
        path.unlink()
        if before is not None:
            path.write_text(before)
    assert "0 kept, 1 broken" in result.stdout, result.stdout + result.stderr
    assert "planted" in result.stdout or file.removesuffix(".py").replace("/", ".") in result.stdout


def test_every_contract_has_a_planted_violation() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["id"] for contract in contracts} == {contract for contract, _, _ in VIOLATIONS}
