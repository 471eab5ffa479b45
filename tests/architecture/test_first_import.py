"""Each package can be the first that a fresh interpreter imports, and brings in nothing heavy."""

import subprocess
import sys

import pytest

from tests.architecture.tree import PACKAGES, ROOT

HEAVY = ("trio", "zeroconf", "tpm2_pytss", "sqlite3")
CHECK = """
import sys
import {package}
print(*sorted(set(sys.modules) & set({heavy})))
for name in getattr({package}, "__all__", ()):
    getattr({package}, name)
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imported_first_works_and_loads_nothing_heavy(package: str) -> None:
    check = CHECK.format(package=package, heavy=HEAVY)
    result = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""
