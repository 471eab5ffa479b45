"""Removes each guard of mutants.toml, alone, in a copy of the project, and fails if no test notices.

`python -m tests.mutants [GUARD...]`, where a guard is a word of its name.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
LEFT_BEHIND = (".hypothesis", ".pytest_cache", "*-report.xml")  # by tests that ran in a copy
LIST = Path(__file__).with_suffix(".toml")
AT_ONCE = 5  # on two cores: most of these tests wait more than they compute
TESTS_TIMEOUT = 300.0  # seconds; a suite that hangs has noticed, too
ALL_TESTS_TIMEOUT = 1200.0  # seconds for a share of all that is named, on the code as it is
SCENES_TIMEOUT = 240.0
OVERLAY = "import sys; from overlay.app.cli.main import main; sys.exit(main())"


class Outcome(Enum):
    """What a run of the named tests says about the code it ran on."""

    GREEN = "all passed"
    RED = "noticed"
    HUNG = "noticed: hung"
    BROKEN = "did not run"  # a syntax error proves nothing, and neither does a test that was skipped


@dataclass(frozen=True, slots=True)
class Mutant:
    """One guard, the change that removes it, and who has to notice."""

    guard: str
    file: str
    find: str
    replace: str
    tests: Sequence[str] = ()
    scenes: Sequence[str] = ()
    lab: Sequence[str] = ()  # further options for `overlay lab`

    def apply(self, root: Path) -> None:
        """Change the file below that root. The text must stand there exactly once."""
        path = root / self.file
        text = path.read_text()
        if text.count(self.find) != 1:
            raise ValueError(f"{self.guard}: the text to find occurs {text.count(self.find)} times in {self.file}")
        path.unlink()  # the copy may share it with others
        path.write_text(text.replace(self.find, self.replace))
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()


def load(path: Path = LIST) -> list[Mutant]:
    """The rows of the list."""
    rows: list[dict[str, Any]] = tomllib.loads(path.read_text()).get("mutant", [])
    return [Mutant(**row) for row in rows]


@contextmanager
def copy_of(root: Path) -> Iterator[Path]:
    """A throw-away copy of what git would take: tracked files and new ones that are not ignored."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True)
    with tempfile.TemporaryDirectory(prefix="overlay-mutant-") as folder:
        for name in listed.stdout.decode().split("\0"):
            if name and (root / name).is_file():
                target = Path(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, target)
        yield Path(folder)


@contextmanager
def links_to(base: Path) -> Iterator[Path]:
    """The same once more: files are shared with it, what Python has compiled too, and folders are not."""
    with tempfile.TemporaryDirectory(prefix="overlay-mutant-", dir=base.parent) as folder:
        shutil.copytree(base, folder, copy_function=os.link, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        yield Path(folder)


def run(folder: Path, arguments: Sequence[str], timeout: float) -> tuple[int | None, str, str]:
    """Run Python on that copy. Exit code, standard output and standard error; no code if it hung."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return None, "", ""
    finally:
        end_group(process)
    return process.returncode, output, errors


def end_group(process: subprocess.Popen[str]) -> None:
    """Leave nothing behind of a run, whether it ended, hung or was interrupted."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_tests(
    folder: Path, tests: Sequence[str], timeout: float = TESTS_TIMEOUT, name: str = "mutant"
) -> tuple[Outcome, str]:
    """Run these tests in the copy. The outcome, and the output of pytest."""
    report = folder / f"{name}-report.xml"
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    code, output, errors = run(folder, ["-m", "pytest", *options, *tests], timeout)
    output += errors
    if code is None:
        return Outcome.HUNG, output
    if code not in {0, 1} or not report.exists():
        return Outcome.BROKEN, output
    counts = next(ElementTree.parse(report).iter("testsuite")).attrib
    if code == 1:
        return (Outcome.RED if int(counts["failures"]) else Outcome.BROKEN), output
    return (Outcome.BROKEN if int(counts["skipped"]) else Outcome.GREEN), output


def run_scenes(folder: Path, scenes: Sequence[str], options: Sequence[str]) -> tuple[Outcome, str]:
    """Run these scenes in the copy. The outcome, and the report with what the lab said."""
    lab = ["-c", OVERLAY, "lab", "--json", "--scenes", ",".join(scenes), *options]
    code, report, said = run(folder, lab, SCENES_TIMEOUT)
    output = report + said
    if code is None:
        return Outcome.HUNG, output
    try:
        statuses = {scene["name"]: scene["status"] for scene in json.loads(report)["scenes"]}
    except (ValueError, KeyError):
        return Outcome.BROKEN, output
    asked = {statuses.get(scene, "skipped") for scene in scenes}
    if "failed" in asked:
        return Outcome.RED, output
    return (Outcome.GREEN if asked == {"passed"} else Outcome.BROKEN), output


def judge(mutant: Mutant, folder: Path) -> tuple[Outcome, str]:
    """Whether anyone named notices, in a copy that has the mutant's change already (or not)."""
    outcome, output = Outcome.GREEN, ""
    if mutant.tests:
        outcome, output = run_tests(folder, mutant.tests)
    if mutant.scenes and outcome is Outcome.GREEN:
        outcome, output = run_scenes(folder, mutant.scenes, mutant.lab)
    return outcome, output


def try_mutant(mutant: Mutant, base: Path) -> tuple[Outcome, str]:
    """In a copy of that copy: remove the guard, and judge."""
    with links_to(base) as folder:
        mutant.apply(folder)
        return judge(mutant, folder)


def try_unpatched(mutants: Sequence[Mutant], folder: Path) -> list[str]:
    """Everything named must pass on the code as it is. What does not: output to read. Leaves there what Python has compiled."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    scenes = {(tuple(mutant.scenes), tuple(mutant.lab)) for mutant in mutants if mutant.scenes}
    shares = [share for number in range(AT_ONCE) if (share := tests[number::AT_ONCE])]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = [f"share-{number}" for number in range(len(shares))]
        results = list(pool.map(run_tests, [folder] * len(shares), shares, [ALL_TESTS_TIMEOUT] * len(shares), names))
        results += [run_scenes(folder, scene, options) for scene, options in sorted(scenes)]
    return [output or outcome.value for outcome, output in results if outcome is not Outcome.GREEN]


def main(wanted: Sequence[str]) -> int:
    """Try all mutants, or those whose guard contains one of the words. Exit code."""
    mutants = [mutant for mutant in load() if not wanted or any(word in mutant.guard for word in wanted)]
    with copy_of(ROOT) as folder:
        for output in try_unpatched(mutants, folder):
            print(f"on the code as it is, this must pass without a skip:\n{output}", flush=True)
            return 1
        return remove_each(mutants, folder)


def remove_each(mutants: Sequence[Mutant], folder: Path) -> int:
    """One after the other, several at once. Exit code."""
    started = time.monotonic()
    unnoticed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for mutant, (outcome, output) in zip(mutants, pool.map(partial(try_mutant, base=folder), mutants), strict=True):
            noticed = outcome in {Outcome.RED, Outcome.HUNG}
            unnoticed += not noticed
            verdict = "ok" if noticed else "SURVIVED"
            print(f"{verdict:<8}  {mutant.guard:<44}  {mutant.file:<36}  {outcome.value}", flush=True)
            if outcome is Outcome.BROKEN:
                print(output)
    print(f"{len(mutants)} guards removed, {unnoticed} unnoticed, {time.monotonic() - started:.0f} s")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
