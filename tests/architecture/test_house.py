"""The house: `run` keeps standard output for reports, and every dependency is locked with a hash and names no index."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)


def normal(name: str) -> str:
    """A distribution's name as indexes compare it, without version and extras."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=~!;\[]", name)[0]).lower()


def locked(name: str) -> set[str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return {normal(found) for found in REQUIREMENT.findall(text)}


@pytest.mark.parametrize("script", ["run", ".ci/run", "requirements/renew"])
def test_a_script_is_executable_and_parses(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@pytest.mark.parametrize("arguments", [[], ["dance"], ["--yes"]])
def test_run_says_how_it_is_used_and_keeps_standard_output_clean(arguments: list[str]) -> None:
    done = subprocess.run([str(ROOT / "run"), *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ./run")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_everything_in_a_lock_has_a_hash_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert blocks
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert not re.search(r"://|--find-links|--(extra-)?index-url|\bfile:", text)


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("runtime", PROJECT["project"]["dependencies"]),
        ("tpm", PROJECT["project"]["optional-dependencies"]["tpm"]),
        ("extras", PROJECT["project"]["optional-dependencies"]["dashboard"]),
        ("extras", PROJECT["project"]["optional-dependencies"]["telemetry"]),
        ("dev", PROJECT["dependency-groups"]["dev"]),
        ("build", PROJECT["build-system"]["requires"]),
    ],
)
def test_what_the_project_asks_for_is_locked(lock: str, wanted: list[str]) -> None:
    assert {normal(name) for name in wanted} - locked(lock) == set(), "run requirements/renew"


def test_one_distribution_has_one_version_in_all_locks_of_one_environment() -> None:
    """Tools that check us by other libraries have an environment of their own, which nothing of ours enters."""
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        if lock.name == "interop.txt":
            continue
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE):
            versions.setdefault(normal(name), set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
